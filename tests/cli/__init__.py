"""Command line: does each command work as a process of its own, and explain its errors?"""
