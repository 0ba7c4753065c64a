"""Public API: do names, imports, layers and documents agree with the code?"""
