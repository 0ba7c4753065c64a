"""ICE candidates of the client: those in its description and those trickled later."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from aiortc import RTCIceCandidate
from aiortc.sdp import candidate_from_sdp

from fastrtc_anyio._core.log import logger
from fastrtc_anyio._peers.discards import Discards
from fastrtc_anyio._signaling.requests import IceCandidate
from fastrtc_anyio.errors import InvalidCandidate, LimitExceeded
from fastrtc_anyio.limits import RequestLimits, check_candidates

from .ice_path import IcePath

_LAST_PORT = 65_535
_FIELDS = 8
"""Fields of a candidate before its extensions."""


class RemoteCandidates:
    """Parses and counts a client's candidates, and adds them to the connection.

    Args:
        limits: the maximum number of candidates.
        spawn: starts a task. Adding one candidate can take seconds, to resolve its mDNS name.
        paths: the ICE transports, once they exist.
        discards: counts malformed candidates.
    """

    def __init__(
        self,
        limits: RequestLimits,
        spawn: Callable[[Coroutine[Any, Any, object]], None],
        paths: Sequence[IcePath],
        discards: Discards,
    ) -> None:
        self._limits = limits
        self._spawn = spawn
        self._paths = paths
        self._discards = discards
        self._count = 0

    def add(self, candidate: IceCandidate, routed: IceCandidate | None) -> None:
        """Start to add a candidate.

        ``routed`` is the candidate as aiortc numbers the sections; None if its section is not used.

        Raises:
            InvalidCandidate: the candidate is malformed.
            LimitExceeded: the client has already sent the maximum number.
        """
        check_candidates(self._count, self._limits)
        self._count += 1
        try:
            parsed = _parse(candidate)
        except InvalidCandidate as exc:
            self._discards.count("candidates", "an ICE candidate is malformed", exc)
            raise
        if routed is not None:
            for path in self._paths:
                if routed.sdp_mid in path.mids:
                    self._spawn(self._add(path, parsed))

    def add_described(self, candidates: list[IceCandidate], *, complete: bool) -> None:
        """Start to add the routed candidates of a description, ignoring malformed and excess ones.

        ``complete`` says that the description has the ``end-of-candidates`` attribute.
        """
        for candidate in candidates:
            try:
                self.add(candidate, candidate)
            except InvalidCandidate:
                pass  # counted; the others are used
            except LimitExceeded as exc:
                logger.warning("an offer has too many candidates: %s", exc, event="candidate.limit")
                break
        if complete:
            for path in self._paths:  # tasks start in order: after the candidates
                self._spawn(self._add(path, None))

    async def _add(self, path: IcePath, candidate: RTCIceCandidate | None) -> None:
        try:
            await path.add_candidate(candidate)
        except ValueError as exc:  # an address or a transport that aioice does not support
            logger.debug("ignored a candidate: %s", exc, event="candidate.ignored")
        except Exception as exc:  # such as a machine without multicast, for an mDNS name
            self._discards.count("candidates", "an ICE candidate cannot be used", repr(exc))


def _parse(candidate: IceCandidate) -> RTCIceCandidate:
    if candidate.sdp_mid is None and candidate.sdp_mline_index is None:
        raise InvalidCandidate("a candidate must name its media section: it comes after an a=mid")
    text = candidate.candidate.strip().removeprefix("a=").removeprefix("candidate:")
    # Without extensions (RFC 8839 5.1): none is used, so a malformed one does no harm.
    fields = text.split()[:_FIELDS]
    try:
        if fields[_FIELDS - 2].lower() != "typ":
            raise ValueError('the field before the type must be "typ"')
        parsed = candidate_from_sdp(" ".join(fields))
    except (ValueError, AssertionError, IndexError) as exc:
        raise InvalidCandidate(f"invalid candidate: {candidate.candidate[:100]!r}") from exc
    if not 0 <= parsed.port <= _LAST_PORT:
        raise InvalidCandidate(f"port must be 0 to {_LAST_PORT}; got {parsed.port}")
    parsed.type = parsed.type.lower()
    return parsed
