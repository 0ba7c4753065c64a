"""Speech: are detectors, recognisers and voices correct for any input, and their errors clear?"""
