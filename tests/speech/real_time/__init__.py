"""Does a model that works, or is being loaded, delay other calls of the process?"""
