"""Do turns begin and end when they should, and do replies start, stop and resume with them?"""
