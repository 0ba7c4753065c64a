"""Wire formats: does every message decode to an event or the documented error, and encode back?"""
