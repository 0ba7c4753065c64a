"""Does a handler or function of any kind serve a session of every modality and mode?"""
