"""Session descriptions as values: the lines of SDP (RFC 8866) that WebRTC needs (RFC 8829)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from fastrtc_anyio._core.options import short_repr
from fastrtc_anyio._media.media_plan import Direction


@dataclass(frozen=True)
class Fingerprint:
    """Hash of a DTLS certificate (RFC 8122 5)."""

    algorithm: str
    """Hash function, in lower case."""
    value: str
    """Pairs of upper-case hexadecimal digits, separated by colons."""


@dataclass(frozen=True)
class Transport:
    """ICE and DTLS attributes of a section (RFC 8839, RFC 8842)."""

    ufrag: str | None = None
    password: str | None = None
    fingerprints: tuple[Fingerprint, ...] = ()
    setup: str | None = None
    """``actpass``, ``active``, ``passive`` or ``holdconn``."""
    rtcp_mux: bool = False
    candidates: tuple[str, ...] = ()
    """Candidates as written, each with ``candidate:`` in front."""
    complete: bool = False
    """Whether there is an ``a=end-of-candidates``."""


@dataclass(frozen=True)
class Format:
    """A codec under one payload type."""

    payload_type: int
    name: str
    """Encoding name as written: its case is the client's."""
    clock_rate: int
    channels: int | None = None
    parameters: tuple[tuple[str, str | None], ...] = ()
    """Names and values of ``a=fmtp``."""
    feedback: tuple[str, ...] = ()
    """The ``a=rtcp-fb`` among :data:`FEEDBACK`."""

    def get(self, name: str) -> str | None:
        """Return the value of a parameter, None if it is absent."""
        return next((value for key, value in self.parameters if key == name), None)


FEEDBACK = ("nack", "nack pli", "goog-remb")
"""RTCP feedback (RFC 4585) that aiortc sends and understands."""


@dataclass(frozen=True)
class Source:
    """An RTP source (RFC 5576)."""

    ssrc: int
    cname: str


@dataclass(frozen=True)
class Section:
    """One media section: an ``m=`` line and the attributes after it."""

    kind: str
    """``audio``, ``video``, ``application``, or any other media type."""
    port: int
    protocol: str
    tokens: tuple[str, ...]
    """Formats of the ``m=`` line as written."""
    mid: str | None = None
    direction: Direction = "sendrecv"
    host: str = "0.0.0.0"
    bundle_only: bool = False
    transport: Transport = field(default_factory=Transport)
    formats: tuple[Format, ...] = ()
    """Audio and video: the formats whose codec is known."""
    extensions: tuple[tuple[int, str], ...] = ()
    """Numbers and URIs of RTP header extensions (RFC 8285)."""
    sources: tuple[Source, ...] = ()
    retransmissions: tuple[tuple[int, int], ...] = ()
    """SSRCs of a source and of its retransmissions (RFC 4588)."""
    msid: str | None = None
    sctp_port: int | None = None
    max_message_size: int | None = None

    @property
    def has_rtp(self) -> bool:
        return self.kind in ("audio", "video")

    @property
    def sends(self) -> bool:
        """Whether the author of the description offers to send."""
        return self.direction in ("sendrecv", "sendonly")

    @property
    def receives(self) -> bool:
        """Whether the author of the description offers to receive."""
        return self.direction in ("sendrecv", "recvonly")

    @property
    def disabled(self) -> bool:
        """Whether port 0 rejects the section: with ``a=bundle-only`` it does not (RFC 9143 6)."""
        return self.port == 0 and not self.bundle_only


@dataclass(frozen=True)
class Description:
    """A session description."""

    sections: tuple[Section, ...]
    bundles: tuple[tuple[str, ...], ...] = ()
    """The mids of each BUNDLE group (RFC 9143)."""
    ice_lite: bool = False
    origin: str = "- 1 1 IN IP4 0.0.0.0"

    def name(self, index: int) -> str:
        """Return words for a section, for an error message."""
        section = self.sections[index]
        mid = "no mid" if section.mid is None else f"mid {section.mid}"
        return f"section {index} ({short_repr(section.kind)[1:-1]}, {mid})"

    def __str__(self) -> str:
        lines = ["v=0", f"o={self.origin}", "s=-", "t=0 0"]
        lines += ["a=ice-lite"] if self.ice_lite else []
        lines += [f"a=group:BUNDLE {' '.join(mids)}" for mids in self.bundles]
        lines.append("a=msid-semantic:WMS *")
        for section in self.sections:
            lines += _write_section(section)
        return "\r\n".join([*lines, ""])


def _write_section(section: Section) -> Iterator[str]:
    formats = " ".join(section.tokens)
    yield f"m={section.kind} {section.port} {section.protocol} {formats}"
    yield f"c=IN {'IP6' if ':' in section.host else 'IP4'} {section.host}"
    if section.mid is not None:
        yield f"a=mid:{section.mid}"
    if section.bundle_only:
        yield "a=bundle-only"
    if section.kind != "application":
        yield f"a={section.direction}"
    yield from _write_transport(section.transport)
    yield from _write_rtp(section)
    if section.sctp_port is not None:
        if section.tokens[0].isdecimal():  # the form before RFC 8841
            yield f"a=sctpmap:{section.sctp_port} webrtc-datachannel 65535"
        else:
            yield f"a=sctp-port:{section.sctp_port}"
    if section.max_message_size is not None:
        yield f"a=max-message-size:{section.max_message_size}"


def _write_transport(transport: Transport) -> Iterator[str]:
    for candidate in transport.candidates:
        yield f"a={candidate}"
    if transport.complete:
        yield "a=end-of-candidates"
    if transport.ufrag is not None:
        yield f"a=ice-ufrag:{transport.ufrag}"
    if transport.password is not None:
        yield f"a=ice-pwd:{transport.password}"
    for fingerprint in transport.fingerprints:
        yield f"a=fingerprint:{fingerprint.algorithm} {fingerprint.value}"
    if transport.setup is not None:
        yield f"a=setup:{transport.setup}"
    if transport.rtcp_mux:
        yield "a=rtcp-mux"


def _write_rtp(section: Section) -> Iterator[str]:
    for number, uri in section.extensions:
        yield f"a=extmap:{number} {uri}"
    if section.msid is not None:
        yield f"a=msid:{section.msid}"
    for pair in section.retransmissions:
        yield f"a=ssrc-group:FID {pair[0]} {pair[1]}"
    for source in section.sources:
        yield f"a=ssrc:{source.ssrc} cname:{source.cname}"
    for one in section.formats:
        channels = "" if one.channels is None else f"/{one.channels}"
        yield f"a=rtpmap:{one.payload_type} {one.name}/{one.clock_rate}{channels}"
        for feedback in one.feedback:
            yield f"a=rtcp-fb:{one.payload_type} {feedback}"
        if one.parameters:
            shown = ";".join(k if v is None else f"{k}={v}" for k, v in one.parameters)
            yield f"a=fmtp:{one.payload_type} {shown}"
