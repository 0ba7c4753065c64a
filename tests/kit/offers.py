"""Builders of offers, and offers broken at random."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass

from fastrtc_anyio._media.media_plan import Modality, Mode

SHA = ":".join(["AB"] * 32)
ICE = ("a=ice-ufrag:abcd", f"a=ice-pwd:{'x' * 22}")
DTLS = (f"a=fingerprint:sha-256 {SHA}", "a=setup:actpass")
TRANSPORT = (*ICE, *DTLS, "a=rtcp-mux")
OPUS = ("a=rtpmap:111 opus/48000/2", "a=fmtp:111 minptime=10;useinbandfec=1")
VP8 = ("a=rtpmap:96 VP8/90000", "a=rtcp-fb:96 nack", "a=rtcp-fb:96 nack pli")
SAVPF = "UDP/TLS/RTP/SAVPF"


@dataclass(frozen=True)
class Offer:
    """An offer to a stream."""

    sdp: str
    answer: tuple[str, ...] | str
    """The expected use of each section: its direction in the answer, ``application``, or
    ``rejected`` for port 0. Or a pattern of the error."""
    modality: Modality = "audio"
    mode: Mode = "send-receive"


def describe(*sections: list[str], session: tuple[str, ...] = (), bundle: str | None = "") -> str:
    """Write a description. With ``bundle=""`` all mids are in one BUNDLE group."""
    if bundle == "":
        mids = [line[6:] for lines in sections for line in lines if line.startswith("a=mid:")]
        bundle = " ".join(mids)
    group = [f"a=group:BUNDLE {bundle}"] if bundle else []
    head = ["v=0", "o=- 42 2 IN IP4 127.0.0.1", "s=-", "t=0 0", *group, *session]
    return "\r\n".join([*head, *(line for lines in sections for line in lines), ""])


def section(
    media: str,
    mid: str | None = "0",
    *lines: str,
    direction: str | None = "sendrecv",
    transport: tuple[str, ...] = TRANSPORT,
) -> list[str]:
    """Write a section; ``media`` is its m= line without ``m=``."""
    return [
        f"m={media}",
        "c=IN IP4 0.0.0.0",
        *transport,
        *([] if mid is None else [f"a=mid:{mid}"]),
        *lines,
        *([] if direction is None else [f"a={direction}"]),
    ]


def audio(mid: str | None = "0", direction: str | None = "sendrecv", *more: str) -> list[str]:
    return section(f"audio 9 {SAVPF} 111", mid, *OPUS, *more, direction=direction)


def video(mid: str = "1", direction: str = "sendrecv", *more: str) -> list[str]:
    return section(f"video 9 {SAVPF} 96", mid, *VP8, *more, direction=direction)


def data(mid: str = "2") -> list[str]:
    lines = ("a=sctp-port:5000", "a=max-message-size:262144")
    media = "application 9 UDP/DTLS/SCTP webrtc-datachannel"
    return section(media, mid, *lines, direction=None, transport=(*ICE, *DTLS))


def h264(fmtp: str | None, mid: str = "0", direction: str = "sendonly") -> list[str]:
    lines = ["a=rtpmap:106 H264/90000", "a=rtcp-fb:106 nack pli"]
    if fmtp is not None:
        lines.append(f"a=fmtp:106 {fmtp}")
    return section(f"video 9 {SAVPF} 106", mid, *lines, direction=direction)


def h264_profile(profile: str, mode: int = 1) -> list[str]:
    return h264(f"level-asymmetry-allowed=1;packetization-mode={mode};profile-level-id={profile}")


def bundle_only(lines: list[str]) -> list[str]:
    """Omit the transport of a section (RFC 9143 6): port 0, and no ICE or DTLS attributes."""
    media, kept = lines[0].split(" ", 2), [line for line in lines[1:] if line not in TRANSPORT]
    return [" ".join([media[0], "0", media[2]]), kept[0], "a=bundle-only", "a=rtcp-mux", *kept[1:]]


def mutate(offers: Sequence[Offer], seed: int) -> Offer:
    """Break one of ``offers``: lines dropped, repeated, cut, swapped, moved; numbers replaced."""
    chance = random.Random(seed)
    offer = chance.choice(offers)
    lines = offer.sdp.splitlines()
    for _ in range(chance.choice((1, 1, 2, 4))):
        i, j = chance.randrange(len(lines)), chance.randrange(len(lines))
        match chance.randrange(6):
            case 0:
                lines[i] = ""
            case 1:
                lines.insert(i, lines[j])
            case 2:
                lines[i] = lines[i][: chance.randrange(len(lines[i]) + 1)]
            case 3:
                lines[i], lines[j] = lines[j], lines[i]
            case 4:
                number = str(chance.choice((0, -1, 127, 300, 65_536, 10**20)))
                lines[i] = re.sub(r"\d+", number, lines[i], count=chance.choice((0, 1)))
            case _:
                at = chance.randrange(len(lines[i]) + 1)
                lines[i] = lines[i][:at] + chance.choice(" :;=/\0\u00e9,*") + lines[i][at + 1 :]
    return Offer("\r\n".join([*lines, ""]), "", offer.modality, offer.mode)
