"""Media: do frames, queues, playout and codecs keep every sample, its value and its time?"""
