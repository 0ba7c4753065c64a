"""Do FastRTC's programs work over real sockets, and with threads that block?"""
