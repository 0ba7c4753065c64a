"""Candidates and readers of outputs that arrive before their session.

A client may send candidates as soon as it has them, and a page on a WebSocket requests its outputs
separately. HTTP requests can overtake each other.
"""

from __future__ import annotations

from collections import OrderedDict
from math import inf

from fastrtc_anyio._signaling.requests import IceCandidate
from fastrtc_anyio.errors import LimitExceeded
from fastrtc_anyio.limits import RequestLimits, check_candidates
from fastrtc_anyio.outputs import OutputBoard, OutputReader

from .ownership import ANONYMOUS

_Key = tuple[str, str]
"""The client's id for its session, and the client's identity."""


class EarlyCandidates:
    """Keeps candidates for a limited time, for a limited number of clients."""

    def __init__(self, limits: RequestLimits) -> None:
        self._limits = limits
        self._clients: OrderedDict[_Key, tuple[float, list[IceCandidate | None]]] = OrderedDict()

    def add(
        self,
        webrtc_id: str,
        candidate: IceCandidate | None,
        now: float,
        identity: str = ANONYMOUS,
    ) -> None:
        """Keep a candidate of a client, or None at their end. ``now`` is in seconds.

        Raises:
            LimitExceeded: the client has sent too many candidates.
        """
        key = webrtc_id, identity
        since, candidates = self._clients.pop(key, (-inf, []))
        if now - since > self._limits.early_seconds:
            since, candidates = now, []
        self._clients[key] = (since, candidates)
        if len(self._clients) > self._limits.early_clients:
            self._clients.popitem(last=False)
        check_candidates(len(candidates), self._limits)
        candidates.append(candidate)

    def take(
        self, webrtc_id: str, now: float, identity: str = ANONYMOUS
    ) -> list[IceCandidate | None]:
        """Remove and return the candidates of a client, in their order."""
        since, candidates = self._clients.pop((webrtc_id, identity), (now, []))
        return candidates if now - since <= self._limits.early_seconds else []

    def clear(self) -> None:
        self._clients.clear()


class EarlyReaders:
    """Readers that wait for their session to begin, for a limited time and in a limited number."""

    def __init__(self, limits: RequestLimits) -> None:
        self._limits = limits
        # `list(d)` and `d.pop(k, None)` are atomic: threads need no lock.
        self._awaited: dict[OutputReader, tuple[str, str | None]] = {}
        self._clients: dict[OutputReader, str] = {}

    def __len__(self) -> int:
        return len(self._open_readers())

    def add(
        self, webrtc_id: str, identity: str | None = None, client: str | None = None
    ) -> OutputReader:
        """Create a reader that waits for the session ``webrtc_id``. Thread-safe.

        ``identity`` is that of the client that reads, None for the application. ``client`` names
        it for the limits of one client; None exempts it from them.

        Raises:
            LimitExceeded: too many readers are waiting already, in all or of this client.
        """
        waiting = self._open_readers()
        limit, name = self._limits.early_clients, "early_clients"
        if client is not None and len(waiting) < limit:
            waiting = [one for one in waiting if self._clients.get(one) == client]
            limit, name = self._limits.client_pending, "client_pending"
        if len(waiting) >= limit:
            text = f"{limit} readers wait for their sessions already (RequestLimits.{name})"
            raise LimitExceeded(text, 429, retry_after=self._limits.early_seconds)
        reader = OutputReader(webrtc_id, self._limits.early_seconds)
        self._awaited[reader] = webrtc_id, identity
        if client is not None:
            self._clients[reader] = client
        return reader

    def attach(self, webrtc_id: str, board: OutputBoard, owner: str = ANONYMOUS) -> None:
        """Move the readers that wait for ``webrtc_id`` to the board of its session.

        Only those of its owner and of the application: the others never find the session.
        """
        reached = ((webrtc_id, owner), (webrtc_id, None))
        for reader in self._open_readers():
            if self._awaited.get(reader) in reached:
                self._forget(reader)
                board.add(reader)

    def close(self) -> None:
        """End all waiting readers: no further session will begin."""
        for reader in self._open_readers():
            self._forget(reader)
            reader.end()

    def _open_readers(self) -> list[OutputReader]:
        for reader in list(self._awaited):
            if not reader.is_open:
                self._forget(reader)
        return list(self._awaited)

    def _forget(self, reader: OutputReader) -> None:
        self._awaited.pop(reader, None)
        self._clients.pop(reader, None)
