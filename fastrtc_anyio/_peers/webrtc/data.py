"""Messages over data channels. All functions run on the portal's loop."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from functools import partial

from aiortc import RTCDataChannel, RTCSctpTransport

from fastrtc_anyio._peers.discards import Discards
from fastrtc_anyio._peers.streams.messages import MessageChannel
from fastrtc_anyio._signaling.messages import encode_message
from fastrtc_anyio.errors import LimitExceeded
from fastrtc_anyio.limits import MessageRate, RequestLimits, check_message

from . import sctp_internals

DRAIN_LIMIT = 0.5
"""Seconds to wait for the acknowledgement of messages before the connection is closed."""
OPEN_LIMIT = 1.4
"""Seconds to wait for a data channel to open when messages are queued."""
_BUFFER = 65_536
"""Bytes that may wait in the data channel's own buffer."""
_FRAGMENTS = 1024
"""Maximum fragments of unfinished messages, and chunks behind a missing one; a client that observes
the receive window has fewer."""
_CHANNELS = 256
"""Maximum data channels, and inbound streams, of one client."""
_WINDOW_GRACE = 65_536
"""Bytes a client may exceed the receive window by: those in flight when it closed."""


class DataChannels:
    """Receives messages on all data channels, and sends on the first open one.

    ``on_violation`` is called with an explanation when a client sends too many messages.
    """

    def __init__(
        self,
        messages: MessageChannel,
        limits: RequestLimits,
        discards: Discards,
        on_violation: Callable[[str], None],
    ) -> None:
        self._messages = messages
        self._rate = MessageRate(limits, time.monotonic)
        self._on_violation = on_violation
        self._discards = discards
        self._limits = limits
        self.channels: list[RTCDataChannel] = []
        """Channels that are not closed."""

    def add(self, channel: RTCDataChannel) -> None:
        """Use a channel, which either side may have created."""
        self.channels.append(channel)
        channel.bufferedAmountLowThreshold = _BUFFER // 4
        channel.on("message", partial(self._on_message, channel))
        channel.on("bufferedamountlow", self.flush)
        channel.on("open", self._on_open)
        channel.on("close", lambda: self._on_close(channel))
        if channel.readyState == "open":
            self._on_open()

    def flush(self) -> None:
        """Send queued messages until the channel's buffer is full."""
        channel = self._find_open()
        while (
            channel is not None
            and channel.bufferedAmount < _BUFFER
            and (text := self._messages.pop_outgoing()) is not None
        ):
            if not self._send(channel, text):
                self._messages.count_unsent()

    async def drain(self, sctp: RTCSctpTransport) -> None:
        """Wait until the client has acknowledged all messages: aiortc's close discards the others.

        A handler that fails at once sends its error while the channel is still opening, so wait for
        that first.
        """
        # SCTP has no event for "all acknowledged". Polling is cheap once, at the end of a call.
        await poll(lambda: bool(self.channels) or not self._messages.has_outgoing, OPEN_LIMIT)
        await poll(
            lambda: not self._messages.has_outgoing and not sctp_internals.has_unacknowledged(sctp),
            DRAIN_LIMIT,
        )

    def _send(self, channel: RTCDataChannel, text: str) -> bool:
        try:
            channel.send(text)
        except ValueError as exc:
            self._discards.count("messages_out", "a message is longer than the client accepts", exc)
            return False
        return True

    def _on_open(self) -> None:
        self._messages.mark_open()
        self.flush()

    def _on_close(self, channel: RTCDataChannel) -> None:
        self.channels.remove(channel)
        if not self._find_open():
            self._messages.mark_closed()

    def _find_open(self) -> RTCDataChannel | None:
        return next((c for c in self.channels if c.readyState == "open"), None)

    def _on_message(self, channel: RTCDataChannel, message: str | bytes) -> None:
        try:
            self._rate.count()
        except LimitExceeded as exc:
            self._on_violation(str(exc))
            return
        size = len(message if isinstance(message, bytes) else message.encode())
        try:
            check_message(size, self._limits)
        except LimitExceeded as exc:
            self._discards.count("messages_in", "a client's message is too long", exc)
            if channel.readyState == "open":
                self._send(channel, encode_message("error", str(exc)))
            return
        text = message.decode("utf-8", "replace") if isinstance(message, bytes) else message
        self._messages.push(text)


def guard_sctp(
    sctp: RTCSctpTransport, on_violation: Callable[[str], None], discards: Discards
) -> None:
    """Call ``on_violation`` with an explanation when a client exceeds the limits.

    The limits bound memory, and time: aiortc searches the fragments of unfinished messages for each
    new one, on the loop that all connections share. A malformed message is only counted.
    """

    def admit(load: sctp_internals.SctpLoad) -> bool:
        # Checked before aiortc stores anything. The window alone does not protect: it counts bytes,
        # and a fragment can have a single byte.
        violation = _find_violation(load)
        if violation is not None:
            on_violation(violation)
        return violation is None

    def on_malformed(error: Exception) -> None:
        discards.count("messages_in", "a message over a data channel is malformed", repr(error))

    sctp_internals.guard_sctp(sctp, admit, on_malformed)


def _find_violation(load: sctp_internals.SctpLoad) -> str | None:
    if load.channels > _CHANNELS:
        return f"the client has opened more than {_CHANNELS} data channels"
    if load.streams > _CHANNELS:
        return f"the client uses more than {_CHANNELS} streams of data channels"
    if (
        load.fragments >= _FRAGMENTS
        or load.misordered >= _FRAGMENTS
        or load.window < -_WINDOW_GRACE
    ):
        return "too many unfinished messages over data channels"
    return None


async def poll(condition: Callable[[], bool], limit: float) -> None:
    """Poll ``condition`` until it holds or ``limit`` seconds have passed."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + limit
    while not condition() and loop.time() < deadline:
        await asyncio.sleep(0.005)
