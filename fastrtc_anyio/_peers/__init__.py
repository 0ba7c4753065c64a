"""Transports: implementations of :class:`fastrtc_anyio.abc.Peer` for connected clients."""
