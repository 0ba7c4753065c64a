"""The client's side of ICE: candidates and restarts, and which candidates belong to which."""

from __future__ import annotations

import asyncio
import secrets
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from fastrtc_anyio._peers.discards import Discards
from fastrtc_anyio._peers.portal import Portal
from fastrtc_anyio._signaling.offer import Negotiation
from fastrtc_anyio._signaling.requests import IceCandidate
from fastrtc_anyio._signaling.restart import (
    IceCredentials,
    Remote,
    read_restart,
    refresh_answer,
    remote_credentials,
    write_fragment,
)
from fastrtc_anyio._signaling.sdp import Description
from fastrtc_anyio._signaling.sdp_parser import parse_in_steps
from fastrtc_anyio.errors import InvalidCandidate, InvalidStateError, LimitExceeded
from fastrtc_anyio.limits import RequestLimits

from .candidates import RemoteCandidates
from .ice_path import IcePath

_MINUTE = 60.0
_FORMER = 16
"""Former generations to remember, whose candidates are refused."""


class RemoteIce:
    """The client's side of ICE: its candidates, and its restarts.

    Args:
        negotiation: negotiation of the client's description.
        answer: the answer to it; None if it is an answer.
        paths: the ICE transports.
        limits: maximum number of restarts and of candidates.
        spawn: starts a task.
        discards: counts malformed candidates.
    """

    def __init__(
        self,
        negotiation: Negotiation,
        answer: Description | None,
        paths: Sequence[IcePath],
        limits: RequestLimits,
        spawn: Callable[[Coroutine[Any, Any, object]], None],
        discards: Discards,
    ) -> None:
        self._negotiation = negotiation
        self._answer = answer
        self._paths = paths
        self._limits = limits
        self._spawn = spawn
        self._discards = discards
        self._candidates = RemoteCandidates(limits, spawn, paths, discards)
        self._users = {one.ufrag for one in remote_credentials(negotiation).values()}
        self._former: deque[str] = deque(maxlen=_FORMER)
        self._early: deque[IceCandidate] = deque(maxlen=limits.candidates)
        self._times: deque[float] = deque(maxlen=limits.restarts)

    def add_described(self, *, complete: bool) -> None:
        """Add the candidates of the client's description."""
        candidates, are_all = self._negotiation.described_candidates()
        self._candidates.add_described(candidates, complete=are_all and complete)

    def add(self, candidate: IceCandidate) -> None:
        """Add a candidate to the newest generation, or keep it for the one it belongs to.

        Raises:
            InvalidCandidate: the candidate is malformed.
            InvalidStateError: it is for a generation that was replaced.
            LimitExceeded: the client has sent as many as it may.
        """
        user = candidate.ufrag
        if user is None or user in self._users:
            self._candidates.add(candidate, self._negotiation.route(candidate))
        elif user in self._former:
            raise InvalidStateError("the candidate is for an ICE generation that was replaced")
        else:
            self._early.append(candidate)

    async def restart(self, offer_sdp: str) -> str | None:
        """Answer an offer for an ICE restart; return None if it is for none.

        Raises:
            InvalidOffer: the offer is malformed, or changes more than the credentials.
            InvalidStateError: the connection has not begun to connect.
            LimitExceeded: too many restarts in a minute.
        """
        if self._answer is None:
            return None
        offer = await Portal.take_turns(parse_in_steps(offer_sdp, self._limits))
        after = read_restart(self._negotiation, self._answer, offer)
        if after is None:
            return None
        answer = self._restart(remote_credentials(after), self._answer)
        self._negotiation = after
        self.add_described(complete=False)
        self._add_early()
        return str(answer)

    def restart_with(self, remote: Remote) -> str:
        """Restart ICE with new credentials, and return those of this side as an SDP fragment.

        Raises:
            InvalidCandidate: a transport has no new, valid credentials.
            InvalidStateError, LimitExceeded: as for :meth:`restart`.
        """
        if self._answer is None:
            raise InvalidStateError("the connection was offered by this side")
        chosen: dict[str | None, IceCredentials] = {}
        for path in self._paths:
            found = next((remote[mid] for mid in (*path.mids, None) if mid in remote), None)
            if found is None or not found.is_valid or found.ufrag in self._users:
                raise InvalidCandidate(
                    "an ICE restart needs a new a=ice-ufrag and a=ice-pwd (RFC 8839 5.4)"
                )
            chosen |= dict.fromkeys(path.mids, found)
        answer = self._restart(chosen, self._answer)
        self._add_early()
        return write_fragment(answer)

    def _add_early(self) -> None:
        early = list(self._early)
        self._early.clear()
        routed = [self._negotiation.route(one) for one in early if one.ufrag in self._users]
        self._candidates.add_described([one for one in routed if one], complete=False)

    def _restart(self, remote: Remote, answer: Description) -> Description:
        if not all(path.is_started for path in self._paths):
            raise InvalidStateError("the connection has not begun to connect; restart ICE later")
        now = asyncio.get_running_loop().time()
        if len(self._times) == self._limits.restarts and now - self._times[0] < _MINUTE:
            count = self._limits.restarts
            text = f"a client may restart ICE {count} times a minute (RequestLimits.restarts)"
            raise LimitExceeded(text, 429)
        self._times.append(now)
        local = IceCredentials(secrets.token_hex(4), secrets.token_hex(16))
        for path in self._paths:
            path.restart(remote[path.mids[0]], local)
        self._former.extend(self._users)
        self._users = {one.ufrag for one in remote.values()}
        self._candidates = RemoteCandidates(self._limits, self._spawn, self._paths, self._discards)
        self._answer = refresh_answer(answer, local)
        return self._answer
