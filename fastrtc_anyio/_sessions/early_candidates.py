"""ICE candidates that arrive before their offer.

A client may send candidates as soon as it has them, and HTTP requests can overtake each other.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field

from fastrtc_anyio._signaling.requests import IceCandidate
from fastrtc_anyio.limits import RequestLimits, check_candidates


class EarlyCandidates:
    """Keeps candidates for a limited time, for a limited number of clients.

    Args:
        limits: ``candidates``, ``early_clients`` and ``early_seconds``.
    """

    def __init__(self, limits: RequestLimits) -> None:
        self._limits = limits
        self._clients: OrderedDict[str, _Kept] = OrderedDict()

    def add(self, webrtc_id: str, candidate: IceCandidate | None, now: float) -> None:
        """Keep a candidate.

        Args:
            webrtc_id: the client's id.
            candidate: the candidate, or None at the end of the client's candidates.
            now: seconds on any clock.

        Raises:
            LimitExceeded: the client has sent too many candidates.
        """
        kept = self._clients.get(webrtc_id)
        if kept is None or self._is_stale(kept, now):
            kept = self._clients[webrtc_id] = _Kept(now)
        self._clients.move_to_end(webrtc_id)
        if len(self._clients) > self._limits.early_clients:
            self._clients.popitem(last=False)
        check_candidates(len(kept.candidates), self._limits)
        kept.candidates.append(candidate)

    def take(self, webrtc_id: str, now: float) -> list[IceCandidate | None]:
        """Remove and return the candidates of a client, in their order."""
        kept = self._clients.pop(webrtc_id, None)
        return [] if kept is None or self._is_stale(kept, now) else kept.candidates

    def clear(self) -> None:
        """Remove all candidates."""
        self._clients.clear()

    def _is_stale(self, kept: _Kept, now: float) -> bool:
        return now - kept.since > self._limits.early_seconds


@dataclass(frozen=True)
class _Kept:
    since: float
    candidates: list[IceCandidate | None] = field(default_factory=list)
