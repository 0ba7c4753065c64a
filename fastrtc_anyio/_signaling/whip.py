"""WHIP (RFC 9725) and WHEP (draft-ietf-wish-whep): WebRTC's signalling over plain HTTP.

The client posts its offer, and receives an answer and a resource. It patches the resource with
candidates in fragments of a session description (RFC 8840), and deletes it to hang up. Clients of
WHIP send, those of WHEP receive: :func:`narrow_offer` removes everything else from an offer. Other
statuses are those of HTTP (RFC 9110); clients must accept any (RFC 9725 4.1).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from http import HTTPStatus
from typing import Literal, TypeAlias

from fastrtc_anyio._media.media_plan import Direction
from fastrtc_anyio.errors import AdmissionError, FastRTCError, InvalidCandidate, InvalidOffer
from fastrtc_anyio.limits import RequestLimits, check_limit

from .ice import IceServer
from .requests import IceCandidate
from .restart import IceCredentials, Remote
from .sdp import Description, Section

Protocol: TypeAlias = Literal["whip", "whep"]

SDP_TYPE = "application/sdp"
FRAGMENT_TYPE = "application/trickle-ice-sdpfrag"
PROBLEM_TYPE = "application/problem+json"

_NARROW: Mapping[Protocol, Direction] = {"whip": "sendonly", "whep": "recvonly"}
"""Direction of the client's media."""
_MAX_LINE = 1024
"""Characters of a candidate, behind which only extensions can be."""
_QUOTABLE = re.compile(r"[\x20-\x7e]*")


@dataclass(frozen=True)
class Fragment:
    """Additions to an offer: ``application/trickle-ice-sdpfrag`` (RFC 8840 9)."""

    ice_users: frozenset[str]
    """Each ``a=ice-ufrag``. A different one than in the offer requests an ICE restart."""
    candidates: tuple[IceCandidate, ...]
    complete: bool
    """Whether these are the last candidates."""
    credentials: Remote
    """The complete ICE credentials."""


def narrow_offer(offer: Description, protocol: Protocol) -> Description:
    """Restrict the media of an offer to one direction: to the server for WHIP, from it for WHEP.

    A section may offer both directions; the answer has one (RFC 9725 4.2).

    Raises:
        InvalidOffer: no section offers the direction, or a WHIP client offers two tracks of a kind
            (RFC 9725 4.4.2).
    """
    allowed = _NARROW[protocol]
    sections = tuple(_narrow(section, allowed) for section in offer.sections)
    usable = [s.kind for s in sections if s.has_rtp and s.direction == allowed and not s.disabled]
    if not usable:
        raise InvalidOffer(
            f"with {protocol.upper()} a client offers media as {allowed} (or sendrecv); "
            "this offer has none"
        )
    if protocol == "whip" and len(set(usable)) < len(usable):
        raise InvalidOffer(
            "with WHIP a client sends one audio and one video track at most; this offer has "
            f"{usable.count('audio')} and {usable.count('video')}"
        )
    return replace(offer, sections=sections)


def _narrow(section: Section, allowed: Direction) -> Section:
    if not section.has_rtp:
        return section
    fits = section.direction in ("sendrecv", allowed)
    return replace(section, direction=allowed if fits else "inactive")


def has_entity_tag(header: str, tag: str) -> bool:
    """Return whether an ``If-Match`` header matches a tag (RFC 9110 13.1.1)."""
    return header.strip() == "*" or tag in re.findall(r'(?:W/)?"[^"]*"', header)


def find_ice_users(sdp: str) -> frozenset[str]:
    """Return each ``a=ice-ufrag`` in a description or a fragment."""
    return frozenset(re.findall(r"^a=ice-ufrag:(\S+)", sdp, re.MULTILINE))


def parse_fragment(text: str, limits: RequestLimits | None = None) -> Fragment:
    """Read the body of a ``PATCH`` request.

    Other lines are ignored, and candidates are not checked: one that cannot be used must not cost
    the rest of the fragment. One candidate more than the limit is read, which is then refused.

    Raises:
        InvalidCandidate: nothing in the fragment can be used.
        LimitExceeded: the fragment has too many lines or user fragments.
    """
    limits = limits or RequestLimits()
    count = text.count("\n")
    check_limit(f"the fragment has {count} lines", count, "lines", limits)
    candidates: list[IceCandidate] = []
    credentials: dict[str | None, IceCredentials] = {}
    mid = user = password = None
    complete = False
    for line in re.split(r"\r?\n", text):
        if line.startswith("m="):
            mid = user = password = None
        elif line.startswith("a=mid:"):
            mid = line.removeprefix("a=mid:")
        elif line.startswith("a=candidate:"):
            if len(candidates) <= limits.candidates:
                candidates.append(IceCandidate(line[2:_MAX_LINE], mid))
        elif line == "a=end-of-candidates":
            complete = True
        elif line.startswith("a=ice-ufrag:"):
            user = line.removeprefix("a=ice-ufrag:")
        elif line.startswith("a=ice-pwd:"):
            password = line.removeprefix("a=ice-pwd:")
        if user is not None and password is not None:
            credentials[mid] = IceCredentials(user, password)
    users = find_ice_users(text)
    # One for each section: they are kept for as long as the session lasts.
    check_limit(f"the fragment has {len(users)} ice-ufrags", len(users), "sections", limits)
    if not (users or candidates or complete):
        raise InvalidCandidate(
            "the SDP fragment has no candidate, no end of them, and no ice-ufrag"
        )
    return Fragment(users, tuple(candidates), complete, credentials)


def link_headers(servers: Sequence[IceServer]) -> list[str]:
    """Return ICE servers as values of ``Link`` headers (RFC 9725 4.6)."""
    links = []
    for server in servers:
        for url in server.urls:
            link = f'<{url}>; rel="ice-server"'
            if server.username is not None and server.credential is not None:
                username, credential = _quote(server.username), _quote(server.credential)
                link += f"; username={username}; credential={credential}"
                link += '; credential-type="password"'
            links.append(link)
    return links


def problem_body(status: int, error: FastRTCError) -> dict[str, object]:
    """Return the problem details (RFC 9457) of a request that failed."""
    body: dict[str, object] = {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": str(error),
    }
    if isinstance(error, AdmissionError):
        body |= {"limit": error.limit, "active": error.active}
    return body


def accepts(header: str | None, media_type: str) -> bool:
    """Return whether an ``Accept`` header admits a media type (RFC 9110 12.5.1)."""
    if header is None or not header.strip():
        return True
    main = media_type.partition("/")[0]
    for item in header.split(","):
        name, *parameters = (part.strip().lower() for part in item.split(";"))
        weights = [p.partition("=")[2] for p in parameters if p.startswith("q=")]
        refused = any(re.fullmatch(r"0(\.0*)?", weight) for weight in weights)
        if name in ("*/*", f"{main}/*", media_type) and not refused:
            return True
    return False


def _quote(text: str) -> str:
    if not _QUOTABLE.fullmatch(text):
        raise ValueError("credentials of an ICE server must be printable ASCII to be in a header")
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
