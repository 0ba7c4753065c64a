"""WebRTC peers, built on aiortc.

A peer has two halves. :class:`~.connection.Connection` runs on the portal's asyncio loop, as does
all code that touches aiortc. :class:`~.peer.WebRTCPeer` runs on the host, under trio or asyncio.
The halves share queues under a lock, and otherwise only post functions to each other.

Where this package differs from aiortc (:mod:`.internals` lists how):

* Outgoing audio (:mod:`.audio`) is encoded here, in the negotiated codec, at the handler's sample
  rate and channel count. Frames come straight from the playout buffer, so that a pause or a flush
  acts on the next 20 ms, and the RTP clock never stops.
* Incoming audio packets are reordered and decoded here on arrival. aiortc's jitter buffer would add
  60 ms, and 280 ms after the first loss.
* Outgoing video (:mod:`.video`) is encoded by aiortc, at the requested bitrate and frame rate. Only
  the latest frame of incoming video is kept.
* A vanished client (:mod:`.consent`) is detected within seconds, and a slow network ends no call.
  aiortc takes up to 35 s, and ends calls whose round trip exceeds 0.5 s.
* Candidates are added after the answer is made, so that resolving mDNS names does not delay it.
"""

from .network import local_addresses
from .peer import WebRTCPeer

__all__ = ["WebRTCPeer", "local_addresses"]
