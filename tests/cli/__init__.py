"""Command line: does each command work as a separate process, and explain its errors?"""
