"""Candidates and readers of outputs that arrive before their session.

A client may send candidates as soon as it has them, and a page on a WebSocket requests its outputs
separately. HTTP requests can overtake each other.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from dataclasses import dataclass, field
from typing import NamedTuple

from fastrtc_anyio._signaling.requests import IceCandidate
from fastrtc_anyio.errors import LimitExceeded
from fastrtc_anyio.limits import RequestLimits, check_candidates
from fastrtc_anyio.outputs import OutputBoard, OutputReader

from .ownership import ANONYMOUS

_Key = tuple[str, str]
"""The client's id for its session, and the client's identity."""


@dataclass
class _Early:
    """The candidates of one id."""

    since: float
    client: str | None
    candidates: list[IceCandidate | None] = field(default_factory=list)


class EarlyCandidates:
    """Keeps candidates for a limited time, for a limited number of ids."""

    def __init__(self, limits: RequestLimits) -> None:
        self._limits = limits
        self._kept: OrderedDict[_Key, _Early] = OrderedDict()

    def add(
        self,
        webrtc_id: str,
        candidate: IceCandidate | None,
        now: float,
        identity: str = ANONYMOUS,
        client: str | None = None,
    ) -> None:
        """Keep a candidate for a session that may begin, or None at their end.

        ``now`` is in seconds. ``client`` names the client for the limits of one client: a client
        that sends candidates for many ids replaces its own.

        Raises:
            LimitExceeded: there are too many candidates for this id.
        """
        key = webrtc_id, identity
        early = self._kept.pop(key, None)
        if early is None or now - early.since > self._limits.early_seconds:
            early = _Early(now, client)
        self._kept[key] = early
        if len(self._kept) > self._limits.early_clients:
            self._drop_oldest()
        check_candidates(len(early.candidates), self._limits)
        early.candidates.append(candidate)

    def take(
        self, webrtc_id: str, now: float, identity: str = ANONYMOUS
    ) -> list[IceCandidate | None]:
        """Remove and return the candidates for a session, in their order."""
        early = self._kept.pop((webrtc_id, identity), None)
        if early is None or now - early.since > self._limits.early_seconds:
            return []
        return early.candidates

    def clear(self) -> None:
        self._kept.clear()

    def _drop_oldest(self) -> None:
        """Drop the oldest candidates of the client that sends them for the most ids."""
        clients = {key: early.client or key for key, early in self._kept.items()}
        counts = Counter(clients.values())
        most = max(counts.values())
        del self._kept[next(key for key, client in clients.items() if counts[client] == most)]


class _Awaited(NamedTuple):
    """The event that a reader waits for."""

    webrtc_id: str
    identity: str | None
    client: str | None


class EarlyReaders:
    """Readers that wait for their session to begin, for a limited time and in a limited number."""

    def __init__(self, limits: RequestLimits) -> None:
        self._limits = limits
        # `list(d)`, `d.get(k)` and `d.pop(k, None)` are atomic: threads need no lock.
        self._awaited: dict[OutputReader, _Awaited] = {}

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
        count, limit, name = len(waiting), self._limits.early_clients, "early_clients"
        if client is not None and count < limit:
            count = sum(awaited.client == client for _, awaited in waiting)
            limit, name = self._limits.client_pending, "client_pending"
        if count >= limit:
            text = f"{limit} readers wait for their sessions already (RequestLimits.{name})"
            raise LimitExceeded(text, 429, retry_after=self._limits.early_seconds)
        reader = OutputReader(webrtc_id, self._limits.early_seconds)
        self._awaited[reader] = _Awaited(webrtc_id, identity, client)
        return reader

    def attach(self, webrtc_id: str, board: OutputBoard, owner: str = ANONYMOUS) -> None:
        """Move the readers that wait for ``webrtc_id`` to the board of its session.

        Only those of its owner and of the application: the others never find the session.
        """
        for reader, awaited in self._open_readers():
            if awaited.webrtc_id == webrtc_id and awaited.identity in (owner, None):
                self._awaited.pop(reader, None)
                board.add(reader)

    def close(self) -> None:
        """End all waiting readers: no further session will begin."""
        for reader, _ in self._open_readers():
            self._awaited.pop(reader, None)
            reader.end()

    def _open_readers(self) -> list[tuple[OutputReader, _Awaited]]:
        found = []
        for reader in list(self._awaited):
            if not reader.is_open:
                self._awaited.pop(reader, None)
            elif (awaited := self._awaited.get(reader)) is not None:
                found.append((reader, awaited))
        return found
