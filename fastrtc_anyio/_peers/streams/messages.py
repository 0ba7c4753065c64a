"""Text messages in both directions."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import replace

import anyio

from fastrtc_anyio._core.options import check_type
from fastrtc_anyio._peers.discards import Discards
from fastrtc_anyio._signaling.messages import mend_text
from fastrtc_anyio.abc import MessageStatistics, MessageStream

from .link import Link, Parking, wait_for

QUEUE_LIMIT = 64
"""Messages kept in each direction."""


class MessageChannel(MessageStream):
    """Text messages, kept until the channel is open and until they are read.

    Args:
        link: connection to the host.
        notify: called when a message is put into the outbox.
        discards: counts the messages that were mended.
    """

    def __init__(
        self,
        link: Link,
        notify: Callable[[], None] = lambda: None,
        discards: Discards | None = None,
    ) -> None:
        self._link = link
        self._discards = discards or Discards()
        self._notify = notify
        self._outbox: deque[str] = deque()
        self._inbox: deque[str] = deque()
        self._arrived = Parking(link)
        self._opened = Parking(link)
        self._open = False
        self._ended = False
        self._counters = MessageStatistics()

    def send_nowait(self, text: str) -> None:
        check_type("message", text, str)
        mended = mend_text(text)
        if mended != text:
            self._discards.count("messages_out", "replaced lone surrogates in a message")
        with self._link.lock:
            if self._ended:
                return
            counters = self._counters
            counters.sent += 1
            counters.bytes_sent += _size(mended)
            counters.dropped_out += _append(self._outbox, mended)
        self._notify()

    async def receive(self) -> str:
        def pop() -> str | None:
            if self._inbox:
                return self._inbox.popleft()
            if self._ended:
                raise anyio.EndOfStream
            return None

        return await wait_for(self._link, pop, self._arrived)

    @property
    def is_open(self) -> bool:
        return self._open and not self._ended

    async def wait_open(self) -> None:
        def look() -> bool | None:
            if self._ended:
                raise anyio.EndOfStream
            return self._open or None

        await wait_for(self._link, look, self._opened)

    def statistics(self) -> MessageStatistics:
        with self._link.lock:
            return replace(
                self._counters, waiting_out=len(self._outbox), waiting_in=len(self._inbox)
            )

    def pop_outgoing(self) -> str | None:
        """Transport side: take the next message to send."""
        with self._link.lock:
            return self._outbox.popleft() if self._outbox else None

    def count_unsent(self) -> None:
        """Transport side: count a message as dropped that was taken but could not be sent."""
        with self._link.lock:
            self._counters.dropped_out += 1

    @property
    def has_outgoing(self) -> bool:
        """Transport side: whether messages wait to be sent."""
        return bool(self._outbox)

    def push(self, text: str) -> None:
        """Transport side: queue a message from the client. Ignored after :meth:`end`."""
        with self._link.lock:
            if self._ended:
                return
            counters = self._counters
            counters.received += 1
            counters.bytes_received += _size(text)
            counters.dropped_in += _append(self._inbox, text)
            self._arrived.wake()

    def mark_open(self) -> None:
        """Transport side: messages reach the client from now on."""
        with self._link.lock:
            self._open = True
            self._opened.wake()

    def mark_closed(self) -> None:
        """Transport side: messages do not reach the client until :meth:`mark_open`."""
        with self._link.lock:
            self._open = False

    def end(self) -> None:
        """Transport side: end the channel for good. Messages in the outbox count as dropped."""
        with self._link.lock:
            self._ended = True
            self._counters.dropped_out += len(self._outbox)
            self._outbox.clear()
            self._arrived.wake()
            self._opened.wake()


def _append(queue: deque[str], text: str) -> int:
    """Append a message; return the number of messages pushed out of a full queue."""
    pushed_out = len(queue) == QUEUE_LIMIT
    if pushed_out:
        queue.popleft()
    queue.append(text)
    return pushed_out


def _size(text: str) -> int:
    """Return the size in bytes of UTF-8. Lone surrogates, which no transport carries, count too."""
    return len(text.encode("utf-8", "surrogatepass"))
