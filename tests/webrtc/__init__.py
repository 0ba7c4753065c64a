"""WebRTC: do calls with plain aiortc connect, exchange media, end clean, and resist attacks?"""
