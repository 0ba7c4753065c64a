"""Requests between processes, over real sockets and with real calls."""
