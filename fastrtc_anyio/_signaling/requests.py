"""Requests to the signalling endpoint: parse and check them.

The body is FastRTC's: ``{"type": "offer", "sdp": ..., "webrtc_id": ...}`` or
``{"type": "ice-candidate", "candidate": {...} | None, "webrtc_id": ...}``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from fastrtc_anyio._core.options import short_repr
from fastrtc_anyio.errors import (
    AdmissionError,
    Draining,
    FastRTCError,
    InvalidCandidate,
    InvalidOffer,
    SignalingError,
)
from fastrtc_anyio.limits import RequestLimits, check_limit

_FIELDS = ("type", "sdp", "webrtc_id", "candidate", "restart", "resume_token")
MAX_ID_LENGTH = 128
"""Maximum characters of a client's ``webrtc_id``. FastRTC's client uses 7 to 11."""
_MAX_TOKEN_LENGTH = 128
_MAX_CANDIDATE_LENGTH = 1024
_MAX_MID_LENGTH = 128
_MAX_UFRAG_LENGTH = 256
_UFRAG = re.compile(r" ufrag (\S+)")


@dataclass(frozen=True)
class SessionDescription:
    """W3C RTCSessionDescription."""

    type: str
    sdp: str


@dataclass(frozen=True)
class IceCandidate:
    """W3C RTCIceCandidate, with the fields of its ``toJSON``."""

    candidate: str
    """The ``candidate-attribute`` of RFC 8839 5.1, with or without ``candidate:`` before it."""
    sdp_mid: str | None = None
    sdp_mline_index: int | None = None
    username_fragment: str | None = None
    """The ``ice-ufrag`` of the description that the candidate belongs to."""

    @property
    def ufrag(self) -> str | None:
        """The user fragment, which may also be an extension of the candidate (RFC 8838 11)."""
        if self.username_fragment is not None:
            return self.username_fragment
        found = _UFRAG.search(self.candidate)
        return None if found is None else found[1]


@dataclass(frozen=True)
class OfferRequest:
    """Request to begin a session, or to restart ICE in one."""

    description: SessionDescription
    webrtc_id: str | None
    restart: bool = False
    """Whether the offer is for a live session, and must not begin another."""
    can_resume: bool = False
    """Whether the client can continue its session in another one."""
    resume_token: str | None = field(default=None, repr=False)
    """The token of the session that the client continues: a secret."""


@dataclass(frozen=True)
class Answer:
    """The answer to an :class:`OfferRequest`."""

    description: SessionDescription
    webrtc_id: str
    """The client's own id, or the session's id if the client sent none."""
    resume_token: str | None = field(default=None, repr=False)
    """A secret with which the client can continue the session in another one."""


@dataclass(frozen=True)
class CandidateRequest:
    """A further candidate of a session; None at their end."""

    candidate: IceCandidate | None
    webrtc_id: str


def parse_request(body: object, limits: RequestLimits) -> OfferRequest | CandidateRequest:
    """Read a decoded JSON body.

    Raises:
        LimitExceeded: the session description is too large.
        InvalidOffer: an offer is malformed, or the request is neither an offer nor a candidate.
        InvalidCandidate: a candidate is malformed.
    """
    if not isinstance(body, Mapping):
        body = {name: getattr(body, name) for name in _FIELDS if hasattr(body, name)} or body
    if not isinstance(body, Mapping):
        raise InvalidOffer(f"the body must be a JSON object; got {_type_name(body)}")
    match body.get("type"):
        case "offer":
            return _parse_offer(body, limits)
        case "ice-candidate":
            return _parse_candidate(body)
        case other:
            raise InvalidOffer(
                f'"type" must be "offer" or "ice-candidate"; got {short_repr(other)}'
            )


def failure_body(error: FastRTCError) -> dict[str, object]:
    """Return FastRTC's JSON body for a request that failed."""
    meta: dict[str, object] = {"error": str(error)}
    if isinstance(error, AdmissionError):
        # FastRTC's clients compare "error" with this word.
        meta = {"error": "concurrency_limit_reached", "limit": error.limit, "message": str(error)}
    elif isinstance(error, Draining):
        meta["reason"] = "draining"
    return {"status": "failed", "meta": meta}


def _parse_offer(body: Mapping[str, object], limits: RequestLimits) -> OfferRequest:
    sdp = body.get("sdp")
    if not isinstance(sdp, str) or not sdp.strip():
        raise InvalidOffer(f'"sdp" must be a session description; got {short_repr(sdp)}')
    check_limit(f'"sdp" has {len(sdp)} characters', len(sdp), "body_bytes", limits)
    webrtc_id = body.get("webrtc_id")
    if webrtc_id is not None:
        webrtc_id = _parse_id(webrtc_id, InvalidOffer)
    restart = body.get("restart")
    if restart not in (None, False, True):
        raise InvalidOffer(f'"restart" must be true or false; got {short_repr(restart)}')
    description, token = SessionDescription("offer", sdp), body.get("resume_token")
    if token is not None and not (isinstance(token, str) and len(token) <= _MAX_TOKEN_LENGTH):
        # Not quoted: it may be one character longer than a secret.
        got = f"{len(token)} characters" if isinstance(token, str) else _type_name(token)
        raise InvalidOffer(
            f'"resume_token" must be a string of at most {_MAX_TOKEN_LENGTH} characters, or null; '
            f"got {got}"
        )
    return OfferRequest(description, webrtc_id, bool(restart), True, token)


def _parse_candidate(body: Mapping[str, object]) -> CandidateRequest:
    webrtc_id = _parse_id(body.get("webrtc_id"), InvalidCandidate)
    raw = body.get("candidate")
    if raw is None:
        return CandidateRequest(None, webrtc_id)
    if not isinstance(raw, Mapping):
        raise InvalidCandidate(f'"candidate" must be an object or null; got {_type_name(raw)}')
    line, mid, index = raw.get("candidate"), raw.get("sdpMid"), raw.get("sdpMLineIndex")
    if line in (None, ""):  # W3C 4.8.1.3: an empty candidate is the end of candidates
        return CandidateRequest(None, webrtc_id)
    if not isinstance(line, str) or len(line) > _MAX_CANDIDATE_LENGTH:
        raise InvalidCandidate(f'"candidate.candidate" must be a candidate; got {short_repr(line)}')
    if mid is not None and not (isinstance(mid, str) and len(mid) <= _MAX_MID_LENGTH):
        raise InvalidCandidate(
            f'"sdpMid" must be a string of at most {_MAX_MID_LENGTH} characters, or null; '
            f"got {short_repr(mid)}"
        )
    if index is not None and (not isinstance(index, int) or isinstance(index, bool)):
        raise InvalidCandidate(f'"sdpMLineIndex" must be a number or null; got {short_repr(index)}')
    if mid is None and index is None:
        raise InvalidCandidate('a candidate needs "sdpMid" or "sdpMLineIndex"; got neither')
    user = raw.get("usernameFragment")
    if user is not None and not (isinstance(user, str) and len(user) <= _MAX_UFRAG_LENGTH):
        raise InvalidCandidate(
            f'"usernameFragment" must be a string of at most {_MAX_UFRAG_LENGTH} characters, or '
            f"null; got {short_repr(user)}"
        )
    return CandidateRequest(IceCandidate(line, mid, index, user or None), webrtc_id)


def _parse_id(value: object, error: type[SignalingError]) -> str:
    if not isinstance(value, str) or not 0 < len(value) <= MAX_ID_LENGTH:
        raise error(
            f'"webrtc_id" must be a string of 1 to {MAX_ID_LENGTH} characters; '
            f"got {short_repr(value)}"
        )
    return value


def _type_name(value: object) -> str:
    return "null" if value is None else type(value).__name__
