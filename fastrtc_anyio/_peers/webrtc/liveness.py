"""Detection of clients that vanish without closing the connection."""

from __future__ import annotations

import asyncio
import logging

from aiortc.rtcdtlstransport import RTCDtlsTransport

from . import internals

logger = logging.getLogger("fastrtc_anyio")

_LATE = 0.1
"""Seconds a timer may be late before the delay counts as a stall of this process."""


class Heartbeat:
    """The time of the last authenticated packet: SRTP, SRTCP or a STUN check."""

    def __init__(self) -> None:
        self._heard = 0.0

    def listen(self, transport: RTCDtlsTransport) -> None:
        """Count the packets of a transport as signs of life."""
        internals.watch_packets(transport, self.beat)

    def beat(self) -> None:
        """Record a sign of life now."""
        self._heard = asyncio.get_running_loop().time()

    async def wait_silent(self, limit: float, transport: RTCDtlsTransport) -> None:
        """Wait until no packet has arrived for ``limit`` seconds.

        A muted or hidden client sends little, but answers STUN requests. After half the time each
        check sends one.
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
                # While this process was stalled, packets waited in the socket unread. This time
                # does not count as silence of the client.
                self._heard += max(0.0, loop.time() - due - _LATE)

    async def _probe(self, transport: RTCDtlsTransport) -> None:
        try:
            answered = await internals.send_binding_request(transport)
        except Exception as exc:  # a transaction can fail in many ways; all mean no answer
            logger.debug("no answer from the client: %r", exc)
        else:
            if answered:
                self.beat()
