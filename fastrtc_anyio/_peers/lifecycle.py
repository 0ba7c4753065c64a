"""Life of a connection: connecting, connected, closed."""

from __future__ import annotations

import anyio

from fastrtc_anyio.abc import DiscardStatistics, Peer
from fastrtc_anyio.errors import (
    Closed,
    CloseReason,
    ConnectTimeout,
    PeerClosed,
    PeerError,
    PeerFailed,
)

from .discards import Discards

_ERRORS: dict[CloseReason, type[PeerError]] = {
    CloseReason.HUNG_UP: PeerClosed,
    CloseReason.CONNECT_TIMEOUT: ConnectTimeout,
}


class LifecyclePeer(Peer):
    """Base class of the peers. The first reason to close wins; later events change nothing.

    The ``_mark`` methods belong to the host's thread.
    """

    def __init__(self) -> None:
        self._connected = anyio.Event()
        self._closed_event = anyio.Event()
        self._closed: Closed | None = None
        self._discards = Discards()

    def discarded(self) -> DiscardStatistics:
        return self._discards.statistics()

    async def wait_connected(self) -> None:
        await self._connected.wait()
        if self._closed is not None:
            raise _ERRORS.get(self._closed.reason, PeerFailed)(self._closed.message)

    async def wait_closed(self) -> Closed:
        await self._closed_event.wait()
        assert self._closed is not None
        return self._closed

    def _mark_connected(self) -> None:
        self._connected.set()

    def _mark_closed(self, closed: Closed) -> bool:
        """Note the end; return whether it is the first."""
        if self._closed is not None:
            return False
        self._closed = closed
        # A task waiting for the connection must not wait for ever: it wakes and raises.
        self._connected.set()
        self._closed_event.set()
        return True
