"""Transports: each makes a :class:`fastrtc_anyio.abc.Peer` of a connected client."""
