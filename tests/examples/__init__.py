"""Does every example run, alone and in a call?"""
