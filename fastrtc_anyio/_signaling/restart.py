"""ICE restarts: offers and fragments with new credentials for a connection that goes on.

Only ICE starts again (RFC 8445 9): sections, codecs, directions and certificates stay.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

from fastrtc_anyio.errors import InvalidOffer

from .offer import Negotiation
from .sdp import Description, Section
from .sections import find_bundle, share_transport

_ICE_CHARS = re.compile(r"[a-zA-Z0-9+/]+", re.ASCII)


@dataclass(frozen=True)
class IceCredentials:
    """Credentials of one side in one ICE generation (RFC 8839 5.4)."""

    ufrag: str
    password: str

    @property
    def is_valid(self) -> bool:
        """Whether the lengths and the characters are those of RFC 8839 5.4."""
        lengths = 4 <= len(self.ufrag) <= 256 and 22 <= len(self.password) <= 256
        return lengths and _ICE_CHARS.fullmatch(self.ufrag + self.password) is not None


Remote = Mapping[str | None, IceCredentials]
"""A client's credentials by mid; those for all sections have the key None."""


def read_restart(
    before: Negotiation, answer: Description, offer: Description
) -> Negotiation | None:
    """Return the negotiation of a client's offer for an ICE restart.

    None if the offer is none: its certificates are others, or its credentials are the same.

    Args:
        before: negotiation of the client's previous offer.
        answer: the answer to that.
        offer: the client's further offer.

    Raises:
        InvalidOffer: the offer changes more than the credentials.
    """
    offer = share_transport(offer, find_bundle(offer))
    used = before.presented
    if len(offer.sections) <= max(used):
        return None
    for i in used:
        old, new = before.offer.sections[i].transport, offer.sections[i].transport
        same = set(old.fingerprints) == set(new.fingerprints)
        if not same or old.ufrag == new.ufrag or old.password == new.password:
            return None
    after = replace(before, offer=offer)
    credentials = remote_credentials(after)
    if any(not one.is_valid for one in credentials.values()):
        raise InvalidOffer("an ICE restart needs a=ice-ufrag and a=ice-pwd as in RFC 8839 5.4")
    _check_media(before.offer, answer, offer)
    return after


def remote_credentials(negotiation: Negotiation) -> Remote:
    """Return the client's credentials by aiortc's mids."""
    found: dict[str | None, IceCredentials] = {}
    for i in negotiation.presented:
        transport = negotiation.offer.sections[i].transport
        found[negotiation.mid(i)] = IceCredentials(transport.ufrag or "", transport.password or "")
    return found


def refresh_answer(answer: Description, local: IceCredentials) -> Description:
    """Return an earlier answer with new credentials, and the next version (RFC 8829 5.3.1)."""
    user, session, version, rest = answer.origin.split(" ", 3)
    sections = tuple(
        section
        if section.transport.ufrag is None
        else replace(
            section,
            transport=replace(section.transport, ufrag=local.ufrag, password=local.password),
        )
        for section in answer.sections
    )
    origin = f"{user} {session} {int(version) + 1} {rest}"
    return replace(answer, sections=sections, origin=origin)


def write_fragment(answer: Description) -> str:
    """Return credentials and candidates of an answer as an SDP fragment (RFC 8840 9)."""
    transports = [(s, s.transport) for s in answer.sections if s.transport.ufrag is not None]
    lines = []
    for _, transport in transports[:1]:
        lines += [f"a=ice-ufrag:{transport.ufrag}", f"a=ice-pwd:{transport.password}"]
    for section, transport in transports:
        if transport.candidates:
            lines.append(f"m={section.kind} 9 {section.protocol} {' '.join(section.tokens[:1])}")
            lines.append(f"a=mid:{section.mid}")
            lines += [f"a={candidate}" for candidate in transport.candidates]
            lines += ["a=end-of-candidates"] if transport.complete else []
    return "\r\n".join([*lines, ""])


def _check_media(before: Description, answer: Description, offer: Description) -> None:
    """Raise InvalidOffer if a section that is in use has changed, or their number has."""
    counts = len(before.sections), len(offer.sections)
    if counts[0] != counts[1]:
        raise _refusal(f"the offer must have {counts[0]} sections; got {counts[1]}")
    pairs = zip(before.sections, answer.sections, offer.sections, strict=True)
    for i, (old, answered, new) in enumerate(pairs):
        name = offer.name(i)
        if (old.kind, old.mid) != (new.kind, new.mid):
            raise _refusal(f"{name} must be {before.name(i)}")
        if answered.port == 0:  # rejected: the client may have disabled it
            continue
        if new.has_rtp and old.direction != new.direction:
            raise _refusal(f"{name} must be {old.direction}; got {new.direction}")
        missing = _formats(answered) - _formats(new)
        if new.has_rtp and missing:
            number, codec = min(missing)
            raise _refusal(f"{name} must have {codec} as payload type {number}")


def _formats(section: Section) -> set[tuple[int, str]]:
    return {(one.payload_type, one.name.lower()) for one in section.formats}


def _refusal(text: str) -> InvalidOffer:
    return InvalidOffer(
        f"an ICE restart cannot change the media: {text}. To change them, begin another session"
    )
