"""Values a handler gives to the application: ``AdditionalOutputs``, and who reads them."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import dataclass
from math import inf
from typing import Any
from weakref import WeakKeyDictionary, WeakSet

from anyio import (
    BrokenResourceError,
    ClosedResourceError,
    EndOfStream,
    WouldBlock,
    create_memory_object_stream,
    move_on_after,
)
from anyio.lowlevel import checkpoint
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

from ._core.gate import Gate
from .errors import LimitExceeded, UnknownSession
from .limits import RequestLimits

__all__ = ["AdditionalOutputs", "EarlyReaders", "OutputBoard", "OutputReader", "OutputStatistics"]

logger = logging.getLogger("fastrtc_anyio")

BACKLOG = 64
"""Outputs kept for each reader. One more pushes the oldest out."""


class AdditionalOutputs:
    """Values for the page or the application, emitted alone or beside a frame."""

    def __init__(self, *args: Any) -> None:
        self.args = args

    def __repr__(self) -> str:
        return f"AdditionalOutputs{self.args!r}"


@dataclass(frozen=True)
class OutputStatistics:
    """Counters of an :class:`OutputBoard`, in outputs."""

    published: int
    dropped: int
    """Pushed out of a full backlog before its reader came to them."""
    readers: int
    """Who is reading now."""


class OutputBoard:
    """A session's outputs. Everybody who reads gets all of them, in order.

    What is published while nobody reads is kept for the next who does, up to 64: a browser's
    ``EventSource`` that lost its connection misses nothing.
    """

    def __init__(self) -> None:
        self._kept: deque[AdditionalOutputs] = deque(maxlen=BACKLOG)
        self._latest: AdditionalOutputs | None = None
        self._some = Gate()
        self._closed = False
        # Not held: who is no longer read by anybody is gone.
        self._readers: WeakSet[OutputReader] = WeakSet()
        self._listeners: list[Callable[[AdditionalOutputs], object]] = []
        self._published = self._dropped = 0

    def publish(self, outputs: AdditionalOutputs) -> None:
        """Give outputs to everybody who reads. Never waits."""
        self._published += 1
        self._latest = outputs
        self._some.set()
        readers = self._open_readers()
        if not readers:
            self._dropped += len(self._kept) == BACKLOG
            self._kept.append(outputs)
        for reader in readers:
            self._dropped += reader.put(outputs)
        for listener in self._listeners:
            listener(outputs)

    def listen(self, listener: Callable[[AdditionalOutputs], object]) -> None:
        """Have a plain function called with everything from now on. What it raises ends the
        session: it is part of the handler."""
        self._listeners.append(listener)

    async def latest(self) -> AdditionalOutputs:
        """The newest outputs; waits for the first.

        Raises:
            anyio.EndOfStream: the session ended without any.
        """
        await self._some.wait()
        if self._latest is None:
            raise EndOfStream
        return self._latest

    def read(self) -> OutputReader:
        """Everything from now on, until the session ends. Reading begins at once."""
        reader = OutputReader()
        self.add(reader)
        return reader

    def add(self, reader: OutputReader) -> None:
        """Give a reader that waits everything from now on, as :meth:`read` does."""
        self._readers.add(reader)
        kept, self._kept = self._kept, deque(maxlen=BACKLOG)
        for outputs in kept:
            reader.put(outputs)
        reader.begin()
        if self._closed:
            reader.end()

    def statistics(self) -> OutputStatistics:
        """Counters so far."""
        return OutputStatistics(self._published, self._dropped, len(self._open_readers()))

    def close(self) -> None:
        """Nothing more will be published: readers end when they have read what there is."""
        self._closed = True
        self._some.set()
        for reader in self._open_readers():
            reader.end()

    def _open_readers(self) -> list[OutputReader]:
        return [reader for reader in self._readers if reader.is_open]


class OutputReader(AsyncIterator[AdditionalOutputs]):
    """One reader's memory channel. It ends with the session, by :meth:`aclose`, or when it is
    dropped unfinished, as by a request whose client has gone.

    Args:
        awaited: the name of a session that is not there yet.
        patience_s: seconds to wait for that session.
    """

    def __init__(self, awaited: str = "", patience_s: float = inf) -> None:
        self._awaited = awaited
        self._patience_s = patience_s
        self._begun = Gate()
        streams = create_memory_object_stream[AdditionalOutputs](BACKLOG)
        self._send: MemoryObjectSendStream[AdditionalOutputs] = streams[0]
        self._receive: MemoryObjectReceiveStream[AdditionalOutputs] = streams[1]

    def put(self, outputs: AdditionalOutputs) -> int:
        """Add outputs, and say how many were pushed out by them: 0 or 1."""
        try:
            self._send.send_nowait(outputs)
        except WouldBlock:
            # Policy: a slow reader loses the oldest.
            with suppress(WouldBlock):
                self._receive.receive_nowait()
            self._send.send_nowait(outputs)
            return 1
        except BrokenResourceError:  # it is being dropped
            pass
        return 0

    def begin(self) -> None:
        """Its session is there."""
        self._begun.set()

    def end(self) -> None:
        """Nothing more will come."""
        self._send.close()
        self._begun.set()

    async def wait_begun(self) -> None:
        """Wait until there is a session to read.

        Raises:
            UnknownSession: none came in time.
        """
        with move_on_after(self._patience_s):
            await self._begun.wait()
        if not self._begun.is_set():
            raise UnknownSession(
                f"no session has the id {self._awaited!r}, {self._patience_s:g} s after its "
                "outputs were asked for"
            )

    async def __anext__(self) -> AdditionalOutputs:
        if not self._begun.is_set():
            try:
                await self.wait_begun()
            except UnknownSession as exc:
                # Not raised: a page that was left open asks again and again for a call that ended.
                logger.warning("%s", exc)
                self.end()
        try:
            return await self._receive.receive()
        except (EndOfStream, ClosedResourceError):
            self._close()
            raise StopAsyncIteration from None

    async def aclose(self) -> None:
        """Stop reading."""
        self._close()
        self._begun.set()
        await checkpoint()

    def _close(self) -> None:
        self._send.close()
        self._receive.close()

    @property
    def is_open(self) -> bool:
        """Whether it may be given outputs."""
        return self._receive.statistics().open_receive_streams > 0

    def __del__(self) -> None:
        self._close()


class EarlyReaders:
    """Readers of sessions that are not there yet.

    A page that connects by a WebSocket asks for its outputs beside that, and may be heard before
    the message that names its session. Nothing is left of a reader that nobody holds any more.

    Args:
        limits: how many may wait, for how long.
    """

    def __init__(self, limits: RequestLimits) -> None:
        self._limits = limits
        self._awaited: WeakKeyDictionary[OutputReader, str] = WeakKeyDictionary()

    def __len__(self) -> int:
        return len(self._awaited)

    def add(self, webrtc_id: str) -> OutputReader:
        """A reader that waits for a session to take the name. On any thread.

        Raises:
            LimitExceeded: too many wait already.
        """
        limit = self._limits.early_clients
        if len(self) >= limit:
            text = f"{limit} readers wait for their sessions already (RequestLimits.early_clients)"
            raise LimitExceeded(text, 429)
        reader = OutputReader(webrtc_id, self._limits.early_seconds)
        self._awaited[reader] = webrtc_id
        return reader

    def welcome(self, webrtc_id: str, board: OutputBoard) -> None:
        """A session has taken the name: whoever waited for it reads its outputs."""
        for reader in self._pop(webrtc_id):
            board.add(reader)

    def close(self) -> None:
        """No session will come: nobody waits any longer."""
        for reader in self._pop(None):
            reader.end()

    def _pop(self, webrtc_id: str | None) -> list[OutputReader]:
        """Those that wait for a session, or all."""
        held = [reader for ref in self._awaited.keyrefs() if (reader := ref()) is not None]
        found = [reader for reader in held if webrtc_id in (None, self._awaited[reader])]
        for reader in found:
            del self._awaited[reader]
        return found
