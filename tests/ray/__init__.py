"""Ray Serve: does every request reach its session, and does no call end with a replica?"""
