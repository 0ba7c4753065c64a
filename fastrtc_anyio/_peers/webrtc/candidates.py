"""The client's ICE candidates: those of its description, and those trickled after it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Coroutine
from typing import Any

from aiortc import RTCIceCandidate, RTCPeerConnection
from aiortc.sdp import candidate_from_sdp

from fastrtc_anyio._signaling.requests import IceCandidate
from fastrtc_anyio.errors import InvalidCandidate, LimitExceeded
from fastrtc_anyio.limits import RequestLimits, check_candidates

__all__ = ["RemoteCandidates"]

logger = logging.getLogger("fastrtc_anyio")

_LAST_PORT = 65_535


class RemoteCandidates:
    """Parses, counts and adds a client's candidates.

    Args:
        limits: the number of candidates one client may send.
        spawn: start a task: adding waits for the resolution of an mDNS name, up to seconds.
    """

    def __init__(
        self, limits: RequestLimits, spawn: Callable[[Coroutine[Any, Any, object]], None]
    ) -> None:
        self._limits = limits
        self._spawn = spawn
        self._count = 0

    def add(self, pc: RTCPeerConnection, candidate: IceCandidate) -> None:
        """Start to add a candidate.

        Raises:
            InvalidCandidate: it is malformed.
            LimitExceeded: the client has sent as many as it may.
        """
        check_candidates(self._count, self._limits)
        self._count += 1
        self._spawn(_add(pc, _parse(candidate)))

    def add_described(
        self, pc: RTCPeerConnection, candidates: list[IceCandidate], *, complete: bool
    ) -> None:
        """Start to add the candidates of a description, ``complete`` if it says so itself."""
        for candidate in candidates:
            try:
                self.add(pc, candidate)
            except InvalidCandidate as exc:
                logger.debug("ignored: %s", exc)
            except LimitExceeded as exc:
                logger.warning("an offer has %d candidates: %s", len(candidates), exc)
                break
        if complete:
            self._spawn(pc.addIceCandidate(None))  # behind those of the candidates


def _parse(candidate: IceCandidate) -> RTCIceCandidate:
    try:
        parsed = candidate_from_sdp(candidate.candidate.removeprefix("candidate:"))
    except (ValueError, AssertionError, IndexError) as exc:
        raise InvalidCandidate(f"not a candidate: {candidate.candidate[:100]!r}") from exc
    if not 0 <= parsed.port <= _LAST_PORT:
        raise InvalidCandidate(f"a port is 0 to {_LAST_PORT}; got {parsed.port}")
    parsed.sdpMid = candidate.sdp_mid
    parsed.sdpMLineIndex = candidate.sdp_mline_index
    return parsed


async def _add(pc: RTCPeerConnection, candidate: RTCIceCandidate) -> None:
    try:
        await pc.addIceCandidate(candidate)
    except ValueError as exc:  # an address or a transport aioice has no use for
        logger.debug("ignored a candidate: %s", exc)
