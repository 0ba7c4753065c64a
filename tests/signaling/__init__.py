"""Signalling: does every input give the documented result or error, and does no state get stuck?"""
