"""Queues between a transport and its session, the same for every transport.

The host side is async and belongs to the session's event loop. The transport side consists of plain
methods that never wait, so the transport may run on another thread. The plain methods of the host
side, such as ``flush``, may be called on any thread.
"""
