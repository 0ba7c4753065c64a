"""Foundations: do threads, gates and the way back to the event loop behave on both backends?"""
