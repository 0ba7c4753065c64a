"""Messages to the client, for a transport that sends them from a task of the session."""

from __future__ import annotations

import anyio
from anyio.lowlevel import checkpoint

from fastrtc_anyio._peers.discards import Discards

from .link import Link
from .messages import MessageChannel

_DRAIN_SECONDS = 0.5
"""Time that messages have to leave after the end."""


class Outbox:
    """The sending end of a :class:`.MessageChannel`, whose senders may be on any thread.

    Attributes:
        channel: the messages in both directions.
    """

    def __init__(self, link: Link, discards: Discards) -> None:
        self._news = anyio.Event()
        self._draining = False
        self._drained = anyio.Event()
        self.channel = MessageChannel(link, lambda: link.host.call(self._wake), discards)

    async def next(self) -> str:
        """Wait for the next message. The message before it counts as sent.

        Cancellation:
            A cancelled call has not removed a message.
        """
        await checkpoint()
        while True:
            self._news = anyio.Event()
            if (text := self.channel.pop_outgoing()) is not None:
                return text
            if self._draining:
                self._drained.set()
            await self._news.wait()

    async def drain(self) -> None:
        """Wait until all messages have been sent, but not for long."""
        self._draining = True
        with anyio.move_on_after(_DRAIN_SECONDS):
            self._wake()
            await self._drained.wait()

    def abandon(self) -> None:
        """Wait for no message any more: the client cannot receive it."""
        self._drained.set()

    def _wake(self) -> None:
        self._news.set()
