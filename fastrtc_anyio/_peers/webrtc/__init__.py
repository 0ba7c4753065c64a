"""A WebRTC client, by way of aiortc.

Two halves. :class:`~.connection.Connection` lives on the portal's asyncio loop, with all else here
that touches aiortc. :class:`~.peer.WebRTCPeer` lives on the host, under trio or asyncio. They share
the queues of :mod:`fastrtc_anyio._peers.channels` under a lock, and otherwise only post functions
to each other.

What we do ourselves, because aiortc does not:

* Sound out (:mod:`.audio`) is encoded here, in the codec that was negotiated, and given to aiortc
  as packets: in the handler's own rate and channels, straight from the playout buffer, so that a
  pause or a flush acts on the very next 20 ms and the RTP clock never stops.
* Packets of the client's audio are put in order and decoded here, as they come: aiortc's jitter
  buffer would add 60 ms, and 280 after the first loss.
* Pictures (:mod:`.video`) are encoded by aiortc, at the bitrate and frame rate asked for. Of the
  client's only the latest is kept.
* A client that vanishes (:mod:`.transport`) is noticed within seconds; aiortc takes up to 35 s.
* Candidates are added after the answer is made: resolving an mDNS name never holds it back.
"""

from .network import local_addresses
from .peer import WebRTCPeer

__all__ = ["WebRTCPeer", "local_addresses"]
