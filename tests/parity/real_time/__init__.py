"""The same over real sockets, and with threads that block."""
