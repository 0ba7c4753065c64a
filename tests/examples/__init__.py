"""Examples: does each one run, alone and in a call?"""
