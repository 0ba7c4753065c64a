"""Choose the sections of an offer that a connection uses, and present them to aiortc.

aiortc sees only these sections, written anew from the parsed value: never a line of the client's.
:mod:`.answer` then describes every section of the offer to the client.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal

from fastrtc_anyio._media.media_plan import Direction, MediaPlan, as_direction
from fastrtc_anyio.errors import InvalidOffer

from .codecs import list_usable, present, sort_for_sending
from .requests import IceCandidate
from .sdp import Description, Format, Section, Source
from .sections import find_bundle, find_problem, share_transport, supported_fingerprints

Kind = Literal["audio", "video"]

_EXTENSIONS = (
    "urn:ietf:params:rtp-hdrext:sdes:mid",
    "urn:ietf:params:rtp-hdrext:ssrc-audio-level",
    "http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time",
)
"""RTP header extensions that aiortc knows."""
SCTP_PORT = 5000
_MESSAGE_SIZE = 65_536
"""RFC 8841 6.1: the maximum size of a message to a client that names none."""


@dataclass(frozen=True)
class Use:
    """A section that carries media of the connection."""

    index: int
    """Position in the client's offer."""
    kind: Kind
    receives: bool
    """Whether the server receives in this section."""
    sends: bool
    formats: tuple[Format, ...]
    """Formats in use. The first is the one that the server sends."""

    @property
    def direction(self) -> Direction:
        """Direction of the server's media."""
        return as_direction(sends=self.sends, receives=self.receives)


@dataclass(frozen=True)
class Negotiation:
    """The outcome of negotiating an offer."""

    offer: Description
    """The client's offer. Sections of its BUNDLE group have the transport of the tagged section."""
    uses: tuple[Use, ...]
    channel: int | None
    """Position of the section of the data channels."""
    bundle: tuple[str, ...]
    """The mids that share a transport, that of the tagged section first."""
    problems: tuple[str | None, ...]
    """For each section of the offer, why it cannot be used."""

    @property
    def presented(self) -> tuple[int, ...]:
        """Positions of the sections that aiortc sees."""
        positions = [use.index for use in self.uses]
        return tuple(sorted(positions if self.channel is None else [*positions, self.channel]))

    def mid(self, index: int) -> str:
        """Return the mid of a section for aiortc, which requires one."""
        mid = self.offer.sections[index].mid
        if mid is not None:
            return mid
        made, taken = f"section-{index}", [section.mid for section in self.offer.sections]
        while made in taken:
            made += "-"
        return made

    def is_bundled(self, index: int) -> bool:
        """Return whether a section shares the transport of the BUNDLE group."""
        return self.offer.sections[index].mid in self.bundle

    def could_be_used(self, index: int) -> bool:
        """Return whether a section of audio or video has no problem."""
        return self.offer.sections[index].has_rtp and self.problems[index] is None

    def usable(self, index: int) -> tuple[Format, ...]:
        """Return the formats of a section that can be received."""
        return list_usable(self.offer.sections[index])

    def present(self) -> Description:
        """Return the offer for aiortc."""
        formats = {use.index: use.formats for use in self.uses}
        sections = [
            _present(self.offer.sections[i], self.mid(i), formats.get(i, ()))
            for i in self.presented
        ]
        mids = tuple(self.mid(i) for i in self.presented if self.is_bundled(i))
        return Description(
            tuple(_drop_clashes(sections)), (mids,) if mids else (), self.offer.ice_lite
        )

    def route(self, candidate: IceCandidate) -> IceCandidate | None:
        """Return a candidate for aiortc's section; None if it belongs to no transport in use.

        In a BUNDLE group the candidates of the tagged section count (RFC 9143 10).
        """
        sections = self.offer.sections
        index = candidate.sdp_mline_index
        if candidate.sdp_mid is not None:
            mids = [section.mid for section in sections]
            index = mids.index(candidate.sdp_mid) if candidate.sdp_mid in mids else index
        if index is None or not 0 <= index < len(sections):
            return None
        if self.is_bundled(index):
            if sections[index].mid != self.bundle[0]:
                return None
            index = next((i for i in self.presented if self.is_bundled(i)), -1)
        if index not in self.presented:
            return None
        return IceCandidate(candidate.candidate, self.mid(index), self.presented.index(index))

    def described_candidates(self) -> tuple[list[IceCandidate], bool]:
        """Return the candidates in the offer for aiortc, and whether they are complete."""
        transports = [section.transport for section in self.offer.sections]
        routed = [
            self.route(IceCandidate(text, None, i))
            for i, transport in enumerate(transports)
            for text in transport.candidates
        ]
        return [one for one in routed if one], any(one.complete for one in transports)


def negotiate(offer: Description, plan: MediaPlan, video_codec: str | None = None) -> Negotiation:
    """Choose the sections of a client's offer.

    For each kind of media in the plan, one section in both directions is used, or else two in one
    direction each. A client may offer one of two directions.

    Args:
        offer: the client's offer.
        plan: media that the connection carries.
        video_codec: the codec to send, if the client offers it.

    Raises:
        InvalidOffer: no section offers a direction of a kind in the plan.
    """
    bundle = find_bundle(offer)
    offer = share_transport(offer, bundle)
    problems = tuple(find_problem(section, bundle) for section in offer.sections)
    uses = [
        use
        for kind in ("audio", "video")
        for use in _choose(offer, problems, kind, plan, video_codec)
    ]
    channels = [
        i
        for i, section in enumerate(offer.sections)
        if section.kind == "application" and problems[i] is None
    ]
    # One section has the data channels (RFC 8829 5.2.1). A tagged section cannot be rejected.
    channels.sort(key=lambda i: offer.sections[i].mid not in bundle[:1])
    return Negotiation(offer, tuple(uses), channels[0] if channels else None, bundle, problems)


def check_answer(offer: Description, answer: Description) -> Negotiation:
    """Check a client's answer to an offer of this side, which must use all of its media.

    Raises:
        InvalidOffer: the answer has other sections, or rejects one with audio or video.
    """
    kinds = [[section.kind for section in one.sections] for one in (offer, answer)]
    if kinds[0] != kinds[1]:
        raise InvalidOffer(
            f"the answer must have the sections of the offer: {', '.join(kinds[0])}; "
            f"got {', '.join(kinds[1])[:100] or 'none'}"
        )
    sections = tuple(
        replace(section, mid=section.mid or asked.mid)
        for section, asked in zip(answer.sections, offer.sections, strict=True)
    )
    bundle = find_bundle(replace(answer, sections=sections))
    answer = share_transport(replace(answer, sections=sections), bundle)
    for i, section in enumerate(answer.sections):
        problem = find_problem(section, bundle)
        if problem is None and section.mid != offer.sections[i].mid:
            problem = f"must have the mid {offer.sections[i].mid}"
        if problem is None and section.transport.setup not in ("active", "passive"):
            problem = "needs a=setup:active or passive"
        if problem is not None:
            raise InvalidOffer(f"the answer cannot be used: {answer.name(i)} {problem}")
    uses = [
        Use(i, kind, section.sends, section.receives, list_usable(section))
        for i, section in enumerate(answer.sections)
        for kind in ("audio", "video")
        if section.kind == kind
    ]
    channel = kinds[0].index("application") if "application" in kinds[0] else None
    return Negotiation(answer, tuple(uses), channel, bundle, (None,) * len(sections))


@dataclass(frozen=True)
class _Fit:
    """A section that can be used, and its formats for each direction."""

    index: int
    receivable: tuple[Format, ...]
    """Empty if the client does not offer to send."""
    sendable: tuple[Format, ...]


def _choose(
    offer: Description,
    problems: tuple[str | None, ...],
    kind: Kind,
    plan: MediaPlan,
    video_codec: str | None,
) -> Iterable[Use]:
    """Choose one section of a kind, or two, and return their use."""
    receive, send = plan.receives(kind), plan.sends(kind)
    if not receive and not send:
        return ()
    fits = []
    for i, section in enumerate(offer.sections):
        if section.kind == kind and problems[i] is None:
            formats = list_usable(section)
            preferred = video_codec if kind == "video" else None
            fits.append(
                _Fit(
                    i,
                    formats if section.sends and receive else (),
                    sort_for_sending(formats, preferred) if section.receives and send else (),
                )
            )
    both = [fit for fit in fits if fit.receivable and fit.sendable]
    if both:
        return [Use(both[0].index, kind, True, True, both[0].sendable)]
    inward = [Use(f.index, kind, True, False, f.receivable) for f in fits if f.receivable]
    outward = [Use(f.index, kind, False, True, f.sendable) for f in fits if f.sendable]
    if not inward and not outward:
        raise InvalidOffer(_explain(offer, problems, kind, receive=receive, send=send))
    return [*inward[:1], *outward[:1]]


def _explain(
    offer: Description, problems: tuple[str | None, ...], kind: Kind, *, receive: bool, send: bool
) -> str:
    """Return why no section of a kind can be used."""
    wanted = ["sendrecv", *["sendonly"] * receive, *["recvonly"] * send]
    reasons = []
    for i, section in enumerate(offer.sections):
        if section.kind == kind:
            problem = problems[i]
            if problem is None and section.direction in wanted:
                problem = "has only formats that this server cannot send"
            if problem is None:
                problem = f"is {section.direction}; it must be {' or '.join(wanted)}"
            reasons.append(f"{offer.name(i)} {problem}")
    if not reasons:
        return f"the offer has no {kind} section; this stream needs one"
    return f"the offer has no {kind} section that this stream can use: {'; '.join(reasons[:4])}"


def _present(section: Section, mid: str, formats: tuple[Format, ...]) -> Section:
    """Return a section in the form of which aiortc 1.16 accepts every line."""
    transport = replace(
        section.transport,
        fingerprints=supported_fingerprints(section.transport),
        setup=section.transport.setup or "actpass",  # RFC 8829 5.2.1: every offer has it
        candidates=(),
        complete=False,
    )
    bare = Section(section.kind, 9, "", (), mid, transport=transport)
    if not section.has_rtp:
        return replace(
            bare,
            protocol="UDP/DTLS/SCTP",
            tokens=("webrtc-datachannel",),
            transport=replace(transport, rtcp_mux=False),
            sctp_port=SCTP_PORT if section.sctp_port is None else section.sctp_port,
            max_message_size=(
                _MESSAGE_SIZE if section.max_message_size is None else section.max_message_size
            ),
        )
    return replace(
        bare,
        protocol="UDP/TLS/RTP/SAVPF",
        tokens=tuple(str(one.payload_type) for one in formats),
        direction=section.direction,
        formats=tuple(present(one) for one in formats),
        extensions=tuple(item for item in section.extensions if item[1] in _EXTENSIONS),
        sources=(sources := _list_sources(section)),
        retransmissions=((sources[0].ssrc, sources[1].ssrc),) if len(sources) == 2 else (),
    )


def _list_sources(section: Section) -> tuple[Source, ...]:
    """Return the first source, and the source of its retransmissions if it has one.

    aiortc 1.16 takes the second of two sources for retransmissions, without its group.
    """
    first = section.sources[:1]
    repeated = dict(reversed(section.retransmissions)).get(first[0].ssrc) if first else None
    return (*first, *(one for one in section.sources if one.ssrc == repeated))


def _drop_clashes(sections: Iterable[Section]) -> Iterable[Section]:
    """Drop header extensions with a number that means another in an earlier section.

    The sections of a BUNDLE group share the numbers (RFC 9143 12); aiortc keeps one table.
    """
    uris: dict[int, str] = {}
    for section in sections:
        kept = tuple(
            (number, uri)
            for number, uri in section.extensions
            if uris.setdefault(number, uri) == uri
        )
        yield replace(section, extensions=kept)
