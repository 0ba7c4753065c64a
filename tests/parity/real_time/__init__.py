"""Parity in real time: do FastRTC's programs work over sockets, and with threads that block?"""
