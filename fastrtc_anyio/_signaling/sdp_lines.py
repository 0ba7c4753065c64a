"""The lines of a session description, and the section that they make.

An optional attribute that is malformed is ignored. A line without which the rest would be misread
raises :class:`Malformed`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import cast, get_args

from fastrtc_anyio._core.options import short_repr
from fastrtc_anyio._media.media_plan import Direction

from .sdp import FEEDBACK, Description, Fingerprint, Format, Section, Source, Transport

MAX_FORMATS = 128
"""Payload types have 7 bits (RFC 3550 5.1)."""
_MAX_BUNDLES = 32
_MAX_FINGERPRINTS = 32
_MAX_SOURCES = 64
"""Sources of a section that are read. Senders describe up to six."""
_MAX_PARAMETERS = 64
"""H.264, which has most, has 25 (RFC 6184 8.1)."""

# No two neighbours in these patterns match the same character: the time to match a line is
# proportional to its length.
_MEDIA = re.compile(
    r"([!-~]{1,64})\s+(\d{1,5})(?:/\d+)?\s+([!-~]{1,64})\s+([!-~][\t -~]*)", re.ASCII
)
_TOKEN = re.compile(r"[!#-'*+\-.0-9A-Z^-~]{1,128}")
_SECRET = re.compile(r"[!-~]{1,256}")
_PAYLOAD_TYPE = re.compile(r"(\d{1,2}|1[01]\d|12[0-7])", re.ASCII)
_CODEC = re.compile(r"([!-.0-~]{1,64})/(\d{1,6})(?:/(\d{1,2}))?", re.ASCII)
_FINGERPRINT = re.compile(r"([!-~]{1,32})\s+([0-9A-Fa-f]{2}(?::[0-9A-Fa-f]{2}){0,127})")
_EXTENSION = re.compile(r"(\d{1,5})(?:/\w+)?\s+([!-~]{1,256})(?:\s.*)?", re.ASCII)
_SOURCE = re.compile(r"(\d{1,10})\s+cname:([!-~]{1,256})", re.ASCII)
_RETRANSMISSION = re.compile(r"FID\s+(\d{1,10})\s+(\d{1,10})", re.ASCII)
_PARAMETER = re.compile(r"([!-:<>-~]{1,256})(?:=([ -:<-~]{0,1024}))?")
_ADDRESS = re.compile(r"IN\s+IP[46]\s+([0-9A-Fa-f.:]{1,45})")
_DIRECTIONS = get_args(Direction)
_SETUP = ("actpass", "active", "passive", "holdconn")
_STATIC = {0: ("PCMU", 8000, None), 8: ("PCMA", 8000, None), 9: ("G722", 8000, None)}
"""Payload types that need no ``a=rtpmap`` (RFC 3551 6)."""


class Malformed(Exception):
    """A line that cannot be ignored."""


@dataclass
class Draft:
    """The lines of a section, or those before the first section."""

    media: tuple[str, int, str, tuple[str, ...]] = ("", 0, "", ())
    origin: str = Description(()).origin
    host: str | None = None
    mid: str | None = None
    direction: str | None = None
    bundles: list[tuple[str, ...]] = field(default_factory=list)
    bundle_only: bool = False
    ice_lite: bool = False
    ufrag: str | None = None
    password: str | None = None
    fingerprints: dict[Fingerprint, None] = field(default_factory=dict)
    setup: str | None = None
    rtcp_mux: bool = False
    candidates: list[str] = field(default_factory=list)
    complete: bool = False
    codecs: dict[int, tuple[str, int, int | None] | None] = field(default_factory=dict)
    parameters: dict[int, list[tuple[str, str | None]]] = field(default_factory=dict)
    feedback: dict[tuple[str, str], None] = field(default_factory=dict)
    extensions: dict[int, str] = field(default_factory=dict)
    sources: dict[int, str] = field(default_factory=dict)
    retransmissions: dict[tuple[int, int], None] = field(default_factory=dict)
    msid: str | None = None
    sctp_port: int | None = None
    max_message_size: int | None = None


def parse_media(value: str) -> Draft:
    """Begin a section with the rest of its ``m=`` line."""
    match = _MEDIA.fullmatch(value)
    if match is None or int(match[2]) > 65_535:
        raise Malformed(
            "m= must be a media type, a port from 0 to 65535, a protocol and formats; "
            f"got {short_repr(value)}"
        )
    formats = tuple(match[4].split())
    if len(formats) > MAX_FORMATS:
        raise Malformed(f"m= must have at most {MAX_FORMATS} formats; got {len(formats)}")
    return Draft(media=(match[1], int(match[2]), match[3], formats))


def parse_line(draft: Draft, line: str) -> None:
    """Add a line to a section. Unknown lines are ignored."""
    if line.startswith("a="):
        name, _, value = line[2:].partition(":")
        name = name.strip().lower()
        if name in _DIRECTIONS:
            draft.direction = name
        elif (parse := _ATTRIBUTES.get(name)) is not None:
            parse(draft, value.strip())
    elif line.startswith("c=") and (match := _ADDRESS.match(line[2:])):
        draft.host = match[1]
    elif line.startswith("o=") and re.fullmatch(r"[!-~]+( [!-~]+){5}", line[2:]):
        draft.origin = line[2:]


def _mid(draft: Draft, value: str) -> None:
    if not _TOKEN.fullmatch(value):
        raise Malformed(
            f"a=mid must be a token of 1 to 128 characters (RFC 5888 4); got {short_repr(value)}"
        )
    if draft.mid is not None:
        raise Malformed(f"a section must have one a=mid; got {draft.mid} and {value}")
    draft.mid = value


def _group(draft: Draft, value: str) -> None:
    semantics, *mids = value.split()[:MAX_FORMATS] or [""]
    if semantics == "BUNDLE" and mids and len(draft.bundles) < _MAX_BUNDLES:
        draft.bundles.append(tuple(dict.fromkeys(mids)))


def _ufrag(draft: Draft, value: str) -> None:
    draft.ufrag = _check_secret("a=ice-ufrag", value)


def _password(draft: Draft, value: str) -> None:
    draft.password = _check_secret("a=ice-pwd", value)


def _check_secret(name: str, value: str) -> str:
    # RFC 8839 5.4 allows letters, digits, "+" and "/", and no fewer than 4 and 22: some clients
    # send base64 with its padding, or hyphens.
    if not _SECRET.fullmatch(value):
        raise Malformed(
            f"{name} must be 1 to 256 printable ASCII characters; got {short_repr(value)}"
        )
    return value


def _fingerprint(draft: Draft, value: str) -> None:
    match = _FINGERPRINT.fullmatch(value)
    if match is None:
        raise Malformed(
            "a=fingerprint must be a hash function and pairs of hexadecimal digits "
            f"(RFC 8122 5); got {short_repr(value)}"
        )
    if len(draft.fingerprints) == _MAX_FINGERPRINTS:
        raise Malformed(f"a section must have at most {_MAX_FINGERPRINTS} a=fingerprint")
    draft.fingerprints[Fingerprint(match[1].lower(), match[2].upper())] = None


def _setup(draft: Draft, value: str) -> None:
    if value.lower() not in _SETUP:
        raise Malformed(f"a=setup must be one of {', '.join(_SETUP)}; got {short_repr(value)}")
    draft.setup = value.lower()


def _rtpmap(draft: Draft, value: str) -> None:
    number, _, codec = value.partition(" ")
    if _PAYLOAD_TYPE.fullmatch(number) is None:
        raise Malformed(f"a=rtpmap needs a payload type, 0 to 127; got {short_repr(number)}")
    # A packet could belong to either codec.
    if int(number) in draft.codecs:
        raise Malformed(f"a=rtpmap names the payload type {number} twice in a section")
    match = _CODEC.fullmatch(codec.strip())
    draft.codecs[int(number)] = match and (
        match[1],
        int(match[2]),
        int(match[3]) if match[3] else None,
    )


def _fmtp(draft: Draft, value: str) -> None:
    number, _, text = value.partition(" ")
    if _PAYLOAD_TYPE.fullmatch(number):
        known = draft.parameters.setdefault(int(number), [])
        for item in text.split(";", _MAX_PARAMETERS)[: _MAX_PARAMETERS - len(known)]:
            if match := _PARAMETER.fullmatch(item.strip()):
                known.append((match[1], match[2]))


def _rtcp_fb(draft: Draft, value: str) -> None:
    number, _, kind = value.partition(" ")
    kind = " ".join(kind.split())
    if kind in FEEDBACK:
        draft.feedback[number, kind] = None


def _extmap(draft: Draft, value: str) -> None:
    match = _EXTENSION.fullmatch(value)
    if match and 0 < int(match[1]) < 256:
        draft.extensions.setdefault(int(match[1]), match[2])


def _ssrc(draft: Draft, value: str) -> None:
    full = len(draft.sources) == _MAX_SOURCES
    if not full and (match := _SOURCE.fullmatch(value)) and int(match[1]) < 1 << 32:
        draft.sources.setdefault(int(match[1]), match[2])


def _ssrc_group(draft: Draft, value: str) -> None:
    full = len(draft.retransmissions) == _MAX_SOURCES
    if not full and (match := _RETRANSMISSION.fullmatch(value)):
        pair = (int(match[1]), int(match[2]))
        if max(pair) < 1 << 32:
            draft.retransmissions[pair] = None


def _msid(draft: Draft, value: str) -> None:
    if re.fullmatch(r"[!-~]{1,128}( [!-~]{1,128})?", value):
        draft.msid = value


def _candidate(draft: Draft, value: str) -> None:
    draft.candidates.append(f"candidate:{value}")


def _number(name: str, limit: int) -> Callable[[Draft, str], None]:
    def parse(draft: Draft, value: str) -> None:
        if re.fullmatch(r"\d{1,20}", value, re.ASCII) and int(value) <= limit:
            setattr(draft, name, int(value))

    return parse


def _flag(name: str) -> Callable[[Draft, str], None]:
    return lambda draft, _: setattr(draft, name, True)


_ATTRIBUTES: Mapping[str, Callable[[Draft, str], None]] = {
    "bundle-only": _flag("bundle_only"),
    "candidate": _candidate,
    "end-of-candidates": _flag("complete"),
    "extmap": _extmap,
    "fingerprint": _fingerprint,
    "fmtp": _fmtp,
    "group": _group,
    "ice-lite": _flag("ice_lite"),
    "ice-pwd": _password,
    "ice-ufrag": _ufrag,
    "max-message-size": _number("max_message_size", (1 << 64) - 1),
    "mid": _mid,
    "msid": _msid,
    "rtcp-fb": _rtcp_fb,
    "rtcp-mux": _flag("rtcp_mux"),
    "rtcp-mux-only": _flag("rtcp_mux"),
    "rtpmap": _rtpmap,
    "sctp-port": _number("sctp_port", 65_535),
    "setup": _setup,
    "ssrc": _ssrc,
    "ssrc-group": _ssrc_group,
}


def make_section(draft: Draft, session: Draft) -> Section:
    """Make a section. The attributes of the session are defaults (RFC 8866 5.13)."""
    kind, port, protocol, tokens = draft.media
    has_rtp = kind in ("audio", "video")
    sctp_port = draft.sctp_port
    if protocol.upper().endswith("/SCTP") and _is_port(tokens[0]):
        sctp_port = int(tokens[0])  # draft-ietf-mmusic-sctp-sdp-06
    return Section(
        kind=kind,
        port=port,
        protocol=protocol,
        tokens=tokens,
        mid=draft.mid,
        direction=cast(Direction, draft.direction or session.direction or "sendrecv"),
        host=draft.host or session.host or "0.0.0.0",
        bundle_only=draft.bundle_only,
        transport=Transport(
            ufrag=draft.ufrag or session.ufrag,
            password=draft.password or session.password,
            fingerprints=tuple(draft.fingerprints or session.fingerprints),
            setup=draft.setup or session.setup,
            rtcp_mux=draft.rtcp_mux or session.rtcp_mux,
            candidates=tuple(draft.candidates),
            complete=draft.complete,
        ),
        formats=_list_formats(draft) if has_rtp else (),
        extensions=tuple(draft.extensions.items()),
        sources=tuple(Source(*item) for item in draft.sources.items()),
        retransmissions=tuple(draft.retransmissions),
        msid=draft.msid,
        sctp_port=sctp_port,
        max_message_size=draft.max_message_size,
    )


def _is_port(text: str) -> bool:
    return re.fullmatch(r"\d{1,5}", text, re.ASCII) is not None and int(text) < 65_536


def _list_formats(draft: Draft) -> tuple[Format, ...]:
    """Return the formats of the ``m=`` line that have a codec, in its order."""
    formats: dict[int, Format] = {}
    for token in draft.media[3]:
        if _PAYLOAD_TYPE.fullmatch(token) is None:
            continue
        number = int(token)
        # Static payload types need no a=rtpmap, so a broken one leaves them as they are.
        codec = draft.codecs.get(number) or _STATIC.get(number)
        if codec is not None:
            formats[number] = Format(
                number,
                *codec,
                parameters=tuple(draft.parameters.get(number, ())),
                feedback=tuple(
                    kind
                    for kind in FEEDBACK
                    if not {(token, kind), ("*", kind)}.isdisjoint(draft.feedback)
                ),
            )
    return tuple(formats.values())
