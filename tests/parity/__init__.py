"""Parity: do FastRTC's reference programs run unchanged, and are its known defects absent?"""
