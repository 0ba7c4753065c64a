"""Detection of clients that vanished without closing the connection."""

from __future__ import annotations

import asyncio
import logging

from aiortc.rtcdtlstransport import RTCDtlsTransport

from . import internals

__all__ = ["Heartbeat"]

logger = logging.getLogger("fastrtc_anyio")

_LATE = 0.1
"""Seconds a timer may be late on a busy machine before the time counts as a stall."""


class Heartbeat:
    """Time of the last authenticated packet: SRTP, SRTCP or STUN check."""

    def __init__(self) -> None:
        self._heard = 0.0

    def listen(self, transport: RTCDtlsTransport) -> None:
        """Note the packets of a transport."""
        internals.watch_packets(transport, self.beat)

    def beat(self) -> None:
        """Note that the client is alive now."""
        self._heard = asyncio.get_running_loop().time()

    async def wait_silent(self, limit: float, transport: RTCDtlsTransport) -> None:
        """Wait until no packet has arrived for ``limit`` seconds.

        A muted or hidden client sends little but answers STUN requests: after half the time it is
        sent one at every check.
        """
        loop = asyncio.get_running_loop()
        self.beat()
        async with asyncio.TaskGroup() as requests:
            while (silent := loop.time() - self._heard) < limit:
                if silent >= limit / 2:
                    requests.create_task(self._probe(transport))
                pause = min(limit / 5, limit - silent)
                due = loop.time() + pause
                await asyncio.sleep(pause)
                # While this process was stalled, packets waited in the socket unread. Such time
                # does not count as the client's silence.
                self._heard += max(0.0, loop.time() - due - _LATE)

    async def _probe(self, transport: RTCDtlsTransport) -> None:
        try:
            answered = await internals.send_binding_request(transport)
        except Exception as exc:  # a transaction fails in many ways; all mean no answer
            logger.debug("no answer from the client: %r", exc)
        else:
            if answered:
                self.beat()
