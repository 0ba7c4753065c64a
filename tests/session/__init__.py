"""Sessions: does every start, end, error and limit leave the right state, and nothing behind?"""
