"""WebRTC: do calls with plain aiortc connect, exchange media and end clean?"""
