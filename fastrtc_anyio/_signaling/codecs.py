"""Codecs of an offer that this package can use."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

from .sdp import Format, Section

CODECS: Mapping[str, Mapping[str, int]] = {
    "audio": {"opus": 48_000, "G722": 8000, "PCMU": 8000, "PCMA": 8000},
    "video": {"VP8": 90_000, "H264": 90_000},
}
"""Names and clock rates by kind."""

_CHANNELS: Mapping[str, tuple[int | None, ...]] = {"opus": (None, 1, 2)}
_NAMES = {name.lower(): name for codecs in CODECS.values() for name in (*codecs, "rtx")}
_MAX_USABLE = 32
"""Formats of a section that are used. Browsers offer up to 20."""
# RFC 5761 4: with RTP and RTCP on one port, these look like RTCP.
_RTCP_TYPES = range(64, 96)
# The profiles that libavcodec decodes: all but Extended (0x58), which has data partitioning, and
# the scalable and multiview extensions.
_H264_DECODABLE = (0x42, 0x4D, 0x64, 0x6E, 0x7A, 0xF4, 0x2C)
# An encoder here makes Constrained Baseline, in packetization mode 1.
_H264_DEFAULT = "42e01f"


def codec_name(one: Format) -> str:
    """Return the name of a usable codec in the case of :data:`CODECS`, or ``rtx``."""
    return _NAMES[one.name.lower()]


def list_usable(section: Section) -> tuple[Format, ...]:
    """Return the formats that can be received, in the order of the offer.

    Retransmissions (RFC 4588) follow the format that they repeat. There are about
    :data:`_MAX_USABLE` at most: each costs lines in the answer and work in aiortc.
    """
    repeating: dict[tuple[str | None, int], Format] = {}
    for one in section.formats:
        if one.name.lower() == "rtx" and one.payload_type not in _RTCP_TYPES:
            repeating.setdefault((one.get("apt"), one.clock_rate), one)
    usable: list[Format] = []
    for one in section.formats:
        if len(usable) >= _MAX_USABLE:
            break
        if _is_usable(section.kind, one):
            usable.append(one)
            if repeat := repeating.get((str(one.payload_type), one.clock_rate)):
                usable.append(repeat)
    return tuple(usable)


def sort_for_sending(formats: Sequence[Format], preferred: str | None) -> tuple[Format, ...]:
    """Put a format that can be sent first. Empty if there is none.

    H.264 goes to a format of exactly the profile that the encoder makes, if there is one.
    """
    media = [one for one in formats if codec_name(one) != "rtx"]
    order = {one.payload_type: _sending_order(one, preferred) for one in media}
    if not order or min(order.values())[0]:
        return ()

    def key(one: Format) -> tuple[bool, bool, bool]:
        repeated = one.get("apt") if codec_name(one) == "rtx" else None
        return order[int(repeated) if repeated else one.payload_type]

    return tuple(sorted(formats, key=key))


def present(one: Format) -> Format:
    """Return a format in the form that aiortc 1.16 accepts: its own profile of H.264.

    aiortc needs no other parameters but those of retransmissions, and cannot parse some values.
    """
    name = codec_name(one)
    parameters: tuple[tuple[str, str | None], ...] = ()
    if name == "H264":
        parameters = (("packetization-mode", "1"), ("profile-level-id", _H264_DEFAULT))
    elif name == "rtx":
        parameters = (("apt", one.get("apt")),)
    return replace(one, name=name, parameters=parameters)


def answer_format(one: Format, opus: tuple[tuple[str, str | None], ...]) -> Format:
    """Return a format as it is answered: with the parameters that are part of the negotiation.

    ``opus`` are the parameters of Opus, which describe this side (RFC 7587 7.1). For H.264 these
    are the profile and packetization mode of the offer (RFC 6184 8.2.2).
    """
    parameters: tuple[tuple[str, str | None], ...] = ()
    match codec_name(one):
        case "opus":
            parameters = opus
        case "H264":
            kept = ("level-asymmetry-allowed", "packetization-mode", "profile-level-id")
            parameters = tuple(item for item in one.parameters if item[0] in kept)
        case "rtx":
            parameters = (("apt", one.get("apt")),)
    return replace(one, parameters=parameters)


def limit_bitrate(one: Format) -> int | None:
    """Return the bits per second of Opus that the client accepts on average; None for any.

    RFC 7587 6.1: other values than these are ignored, and 7.1: a sender must not exceed the limit.
    """
    value = one.get("maxaveragebitrate") or ""
    if codec_name(one) != "opus" or re.fullmatch(r"[0-9]{4,6}", value) is None:
        return None
    return int(value) if 6000 <= int(value) <= 510_000 else None


def _is_usable(kind: str, one: Format) -> bool:
    name = _NAMES.get(one.name.lower(), "rtx")
    if CODECS.get(kind, {}).get(name) != one.clock_rate or one.payload_type in _RTCP_TYPES:
        return False
    if one.channels not in _CHANNELS.get(name, (None, 1)):
        return False
    if name != "H264":
        return True
    # Mode 2 interleaves, and needs a buffer that aiortc does not have.
    if one.get("packetization-mode") not in (None, "0", "1"):
        return False
    profile = _h264_profile(one)
    return profile is not None and (profile[0] in _H264_DECODABLE or _is_constrained(profile))


def _sending_order(one: Format, preferred: str | None) -> tuple[bool, bool, bool]:
    """Return a key for sorting: whether a format cannot be sent, is not preferred, is not exact."""
    name = codec_name(one)
    impossible = exact = False
    if name == "H264":
        profile = _h264_profile(one)
        assert profile is not None, "the format is usable"
        # To a decoder in mode 0 each NAL unit goes in one packet, which the encoder cannot do.
        # Decoders of an intra profile (H.264 A.2.8 to A.2.11) decode no other pictures.
        intra = profile[0] == 0x2C or (profile[0] > 0x64 and bool(profile[1] & 0x10))
        impossible = one.get("packetization-mode") != "1" or intra
        exact = profile[0] == 0x42 or _is_constrained(profile)
    return impossible, preferred is not None and name != preferred, name == "H264" and not exact


def _h264_profile(one: Format) -> tuple[int, int] | None:
    """Return profile_idc and the constraint flags (RFC 6184 8.1); None if they are malformed."""
    text = one.get("profile-level-id") or _H264_DEFAULT
    if re.fullmatch(r"[0-9A-Fa-f]{6}", text) is None:
        return None
    return int(text[:2], 16), int(text[2:4], 16)


def _is_constrained(profile: tuple[int, int]) -> bool:
    """Return whether a profile is Constrained Baseline, in any of its spellings (RFC 6184 8.1)."""
    needed = {0x42: 0x40, 0x4D: 0x80, 0x58: 0xC0}.get(profile[0])
    return needed is not None and profile[1] & needed == needed
