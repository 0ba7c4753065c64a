"""ICE candidates that come before their offer.

A client may send its candidates as soon as it has them, and requests overtake each other.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field

from fastrtc_anyio.limits import RequestLimits, check_candidates

from .requests import IceCandidate


class EarlyCandidates:
    """Keeps candidates for a while, for a bounded number of clients.

    Args:
        limits: how many, for how many, for how long.
    """

    def __init__(self, limits: RequestLimits) -> None:
        self._limits = limits
        self._clients: OrderedDict[str, _Kept] = OrderedDict()

    def add(self, webrtc_id: str, candidate: IceCandidate | None, now: float) -> None:
        """Keep a candidate, or None: the client has no more.

        Args:
            webrtc_id: the client's id.
            candidate: what it sent.
            now: the time in seconds, of any clock.

        Raises:
            LimitExceeded: the client has sent more than it may have.
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
        """What was kept for a client, in its order. It is not kept any longer."""
        kept = self._clients.pop(webrtc_id, None)
        return [] if kept is None or self._is_stale(kept, now) else kept.candidates

    def clear(self) -> None:
        """Keep nothing."""
        self._clients.clear()

    def _is_stale(self, kept: _Kept, now: float) -> bool:
        return now - kept.since > self._limits.early_seconds


@dataclass(frozen=True)
class _Kept:
    since: float
    candidates: list[IceCandidate | None] = field(default_factory=list)
