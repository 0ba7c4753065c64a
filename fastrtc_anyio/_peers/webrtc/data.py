"""Messages over a connection's data channels. Everything here runs on the portal's loop."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from functools import partial

from aiortc import RTCDataChannel, RTCSctpTransport

from fastrtc_anyio._peers.streams.messages import MessageChannel
from fastrtc_anyio._signaling.messages import encode_message
from fastrtc_anyio.errors import LimitExceeded
from fastrtc_anyio.limits import RequestLimits, check_message

from . import internals

logger = logging.getLogger("fastrtc_anyio")

DRAIN_LIMIT = 0.5
"""Seconds that messages get to be acknowledged before the connection is closed."""
OPEN_LIMIT = 2.0
"""Seconds that the data channel gets to open, if there are messages for it."""
_BUFFER = 65_536
"""Bytes handed to the data channel ahead of what the network takes."""
_FRAGMENTS = 1024
"""Of unfinished messages on one stream. A client that keeps to the receive window has fewer."""
_STREAMS = 256
_WINDOW_GRACE = 65_536
"""Bytes past the receive window: what was under way when it closed."""


class DataChannels:
    """Takes messages from every channel there is, and sends on the first that is open.

    Args:
        messages: the queues shared with the host.
        limits: how long a message may be.
    """

    def __init__(self, messages: MessageChannel, limits: RequestLimits) -> None:
        self._messages = messages
        self._limits = limits
        self._channels: list[RTCDataChannel] = []

    def add(self, channel: RTCDataChannel) -> None:
        """Use a channel, the client's or our own."""
        self._channels.append(channel)
        channel.bufferedAmountLowThreshold = _BUFFER // 4
        channel.on("message", partial(self._on_message, channel))
        channel.on("bufferedamountlow", self.flush)
        channel.on("open", self._on_open)
        channel.on("close", lambda: self._on_close(channel))
        if channel.readyState == "open":
            self._on_open()

    def flush(self) -> None:
        """Send what is in the outbox, as far as the channel takes it."""
        channel = self._find_open()
        while (
            channel is not None
            and channel.bufferedAmount < _BUFFER
            and (text := self._messages.pop_outgoing()) is not None
        ):
            try:
                channel.send(text)
            except ValueError as exc:  # longer than the client said it takes
                logger.warning("a message was not sent: %s", exc)
                self._messages.count_unsent()

    async def drain(self, sctp: RTCSctpTransport) -> None:
        """Give messages time to be acknowledged: aiortc's close throws away what is not.

        A handler that fails at once has its error to tell while the channel is still opening.
        """
        # SCTP has no event for "all acknowledged"; this runs once, at the end of a call.
        await poll(lambda: bool(self._channels) or not self._messages.has_outgoing, OPEN_LIMIT)
        await poll(
            lambda: not self._messages.has_outgoing and not internals.has_unacknowledged(sctp),
            DRAIN_LIMIT,
        )

    def _on_open(self) -> None:
        self._messages.mark_open()
        self.flush()

    def _on_close(self, channel: RTCDataChannel) -> None:
        self._channels.remove(channel)
        if not self._find_open():
            self._messages.mark_closed()

    def _find_open(self) -> RTCDataChannel | None:
        return next((c for c in self._channels if c.readyState == "open"), None)

    def _on_message(self, channel: RTCDataChannel, message: str | bytes) -> None:
        size = len(message if isinstance(message, bytes) else message.encode())
        try:
            check_message(size, self._limits)
        except LimitExceeded as exc:
            logger.warning("a client's message was dropped: %s", exc)
            if channel.readyState == "open":
                channel.send(encode_message("error", str(exc)))
            return
        text = message.decode("utf-8", "replace") if isinstance(message, bytes) else message
        self._messages.push(text)


def guard_sctp(sctp: RTCSctpTransport, on_garbage: Callable[[str], None]) -> None:
    """Call ``on_garbage`` with an explanation when a client breaks the protocol or its limits.

    The limits are on the memory and the time of reassembly: a client that never finishes its
    messages would otherwise stop everybody's connections.
    """

    async def handle_packet(handle: Callable[[bytes], Awaitable[None]], data: bytes) -> None:
        try:
            await handle(data)
        except ConnectionError:  # how aiortc ends the transport in order
            raise
        except Exception as exc:
            on_garbage(f"the client sent something over a data channel that is nothing: {exc!r}")

    def admit_chunk(load: internals.SctpLoad) -> bool:
        admitted = (
            load.streams <= _STREAMS
            and load.fragments < _FRAGMENTS
            and load.window >= -_WINDOW_GRACE
        )
        if not admitted:
            on_garbage("the client sent more pieces of unfinished messages than it may")
        return admitted

    internals.guard_sctp(sctp, handle_packet, admit_chunk)


async def poll(condition: Callable[[], bool], limit: float) -> None:
    """Wait for what announces itself to nobody, for so many seconds at most."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + limit
    while not condition() and loop.time() < deadline:
        await asyncio.sleep(0.005)
