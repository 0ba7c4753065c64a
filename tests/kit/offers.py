"""Offers of many clients, written from the RFCs and from the clients' own offers, and broken ones.

Each offer has the modality and mode of a stream that it is for, and what that stream answers: the
direction of each section, ``rejected`` for port 0, or a pattern of the error.
"""

from __future__ import annotations

import random
import re
from dataclasses import dataclass

from fastrtc_anyio._media.media_plan import Modality, Mode

DIRECTIONS = ("sendrecv", "sendonly", "recvonly", "inactive")
SHA = ":".join(["AB"] * 32)
ICE = ("a=ice-ufrag:abcd", f"a=ice-pwd:{'x' * 22}")
DTLS = (f"a=fingerprint:sha-256 {SHA}", "a=setup:actpass")
TRANSPORT = (*ICE, *DTLS, "a=rtcp-mux")
OPUS = ("a=rtpmap:111 opus/48000/2", "a=fmtp:111 minptime=10;useinbandfec=1")
VP8 = ("a=rtpmap:96 VP8/90000", "a=rtcp-fb:96 nack", "a=rtcp-fb:96 nack pli")
SAVPF = "UDP/TLS/RTP/SAVPF"


@dataclass(frozen=True)
class Offer:
    """An offer, and its expected answer."""

    sdp: str
    answer: tuple[str, ...] | str
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


CHROMIUM_AUDIO = section(
    f"audio 9 {SAVPF} 111 63 9 0 8 13 110 126",
    "0",
    "a=rtcp:9 IN IP4 0.0.0.0",
    "a=ice-options:trickle",
    "a=extmap:1 urn:ietf:params:rtp-hdrext:ssrc-audio-level",
    "a=extmap:4 urn:ietf:params:rtp-hdrext:sdes:mid",
    "a=msid:- b3ede9e9-6adb-40f2-b82c-fb9768269779",
    "a=rtcp-rsize",
    "a=rtcp-xr:rcvr-rtt=all",
    *OPUS,
    "a=rtcp-fb:111 transport-cc",
    "a=rtpmap:63 red/48000/2",
    "a=fmtp:63 111/111",
    *("a=rtpmap:9 G722/8000", "a=rtpmap:0 PCMU/8000", "a=rtpmap:8 PCMA/8000"),
    *("a=rtpmap:13 CN/8000", "a=rtpmap:110 telephone-event/48000"),
    "a=rtpmap:126 telephone-event/8000",
    *("a=ssrc:2420106862 cname:Jw4nt4", "a=ssrc:2420106862 msid:- b3ede9e9"),
)
CHROMIUM_VIDEO = section(
    f"video 9 {SAVPF} 96 97 103 104 39 40 45 46 98 99 118 119 120",
    "1",
    "a=ice-options:trickle",
    "a=extmap:14 urn:ietf:params:rtp-hdrext:toffset",
    "a=extmap:13 urn:3gpp:video-orientation",
    "a=rtcp-rsize",
    *VP8,
    "a=rtcp-fb:96 goog-remb",
    *("a=rtpmap:97 rtx/90000", "a=fmtp:97 apt=96"),
    "a=rtpmap:103 H264/90000",
    "a=fmtp:103 level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42001f",
    *("a=rtpmap:104 rtx/90000", "a=fmtp:104 apt=103"),
    *("a=rtpmap:39 H264/90000", "a=fmtp:39 packetization-mode=0;profile-level-id=4d001f"),
    *("a=rtpmap:40 rtx/90000", "a=fmtp:40 apt=39"),
    *("a=rtpmap:45 AV1/90000", "a=fmtp:45 level-idx=5;profile=0;tier=0", "a=rtpmap:46 rtx/90000"),
    *("a=fmtp:46 apt=45", "a=rtpmap:98 VP9/90000", "a=fmtp:98 profile-id=0"),
    *("a=rtpmap:99 rtx/90000", "a=fmtp:99 apt=98", "a=rtpmap:118 red/90000"),
    *("a=rtpmap:119 rtx/90000", "a=fmtp:119 apt=118", "a=rtpmap:120 ulpfec/90000"),
    *("a=ssrc-group:FID 3 4", "a=ssrc:3 cname:Jw4nt4", "a=ssrc:4 cname:Jw4nt4"),
)
AV1 = section(f"video 9 {SAVPF} 45", "1", "a=rtpmap:45 AV1/90000")
HEVC = section(f"video 9 {SAVPF} 49", "1", "a=rtpmap:49 H265/90000")
SURROUND = section(f"audio 9 {SAVPF} 97", "1", "a=rtpmap:97 multiopus/48000/6")
TEXT = section(f"text 9 {SAVPF} 98", "1", "a=rtpmap:98 t140/1000")
PHONE = section(
    f"audio 9 {SAVPF} 0 8 101",
    None,
    *("a=rtpmap:101 telephone-event/8000", "a=fmtp:101 0-16", "a=ptime:20"),
)

OFFERS: dict[str, Offer] = {
    "Chromium, audio and data": Offer(
        describe(CHROMIUM_AUDIO, data()), ("sendrecv", "application")
    ),
    "Chromium, audio, video and data": Offer(
        describe(CHROMIUM_AUDIO, CHROMIUM_VIDEO, data()),
        ("sendrecv", "sendrecv", "application"),
        "audio-video",
    ),
    "Chromium, a video track beside the audio of an audio stream": Offer(
        describe(CHROMIUM_AUDIO, CHROMIUM_VIDEO), ("sendrecv", "inactive")
    ),
    "Chromium, max-bundle": Offer(
        describe(CHROMIUM_AUDIO, bundle_only(CHROMIUM_VIDEO)),
        ("sendrecv", "sendrecv"),
        "audio-video",
    ),
    "Firefox: session-level fingerprint and ICE options, mids in braces": Offer(
        describe(
            section(
                f"audio 9 {SAVPF} 109 9 0 8 101",
                "{a0}",
                *("a=rtpmap:109 opus/48000/2", "a=fmtp:109 maxplaybackrate=48000;stereo=1"),
                *("a=rtpmap:9 G722/8000/1", "a=rtpmap:0 PCMU/8000", "a=rtpmap:8 PCMA/8000"),
                *("a=rtpmap:101 telephone-event/8000", "a=fmtp:101 0-15"),
                *("a=msid:{s} {t}", "a=ssrc:3 cname:{c}"),
                transport=(*ICE, "a=setup:actpass", "a=rtcp-mux"),
            ),
            session=(
                f"a=fingerprint:sha-256 {SHA}",
                "a=ice-options:trickle",
                "a=msid-semantic:WMS *",
            ),
        ),
        ("sendrecv",),
    ),
    "Safari: H.264 first, several profiles": Offer(
        describe(
            section(
                f"video 9 {SAVPF} 96 98 100",
                "0",
                *(
                    "a=rtpmap:96 H264/90000",
                    "a=fmtp:96 packetization-mode=1;profile-level-id=640c1f",
                ),
                *(
                    "a=rtpmap:98 H264/90000",
                    "a=fmtp:98 packetization-mode=1;profile-level-id=42e01f",
                ),
                "a=rtpmap:100 VP8/90000",
            )
        ),
        ("sendrecv",),
        "video",
    ),
    "libwebrtc, receive only": Offer(describe(audio("0", "recvonly")), ("sendonly",)),
    "OBS over WHIP: Constrained Baseline and Opus": Offer(
        describe(audio("0", "sendonly"), h264("profile-level-id=42e01f;packetization-mode=1", "1")),
        ("recvonly", "recvonly"),
        "audio-video",
        "send",
    ),
    "ffmpeg over WHIP: H.264 High": Offer(
        describe(h264_profile("64000d")), ("recvonly",), "video", "send"
    ),
    "H.264 Main": Offer(describe(h264_profile("4d001f")), ("recvonly",), "video", "send"),
    "H.264 Constrained High": Offer(
        describe(h264_profile("640c1f")), ("recvonly",), "video", "send"
    ),
    "H.264 Baseline without constraints": Offer(
        describe(h264_profile("42001f")), ("recvonly",), "video", "send"
    ),
    "H.264 in packetization mode 0": Offer(
        describe(h264_profile("42e01f", 0)), ("recvonly",), "video", "send"
    ),
    "H.264 without fmtp": Offer(describe(h264(None)), ("recvonly",), "video", "send"),
    "GStreamer: mids video0, no msid": Offer(
        describe(video("video0", "sendonly")), ("recvonly",), "video", "send"
    ),
    "go2rtc: one section to send, another to receive": Offer(
        describe(audio("0", "sendonly"), audio("1", "recvonly")), ("recvonly", "sendonly")
    ),
    "one section to receive, another to send": Offer(
        describe(audio("0", "recvonly"), audio("1", "sendonly")), ("sendonly", "recvonly")
    ),
    "one video section to send, another to receive": Offer(
        describe(video("0", "sendonly"), video("1", "recvonly")),
        ("recvonly", "sendonly"),
        "video",
    ),
    "an inactive section before the one in use": Offer(
        describe(audio("0", "inactive"), audio("1")), ("inactive", "sendrecv")
    ),
    "a stopped section (port 0) before the one in use": Offer(
        describe([f"m=audio 0 {SAVPF} 111", *audio("0")[1:]], audio("1"), bundle="1"),
        ("rejected", "sendrecv"),
    ),
    "Asterisk: no mid, no BUNDLE, static payload types": Offer(
        describe(PHONE, bundle=None), ("sendrecv",)
    ),
    "FreeSWITCH: RTP/SAVPF": Offer(
        describe(
            section("audio 9 RTP/SAVPF 111 0", None, *OPUS, "a=rtpmap:0 PCMU/8000"), bundle=None
        ),
        ("sendrecv",),
    ),
    "Janus: ICE and DTLS at the session level": Offer(
        describe(
            section(f"audio 9 {SAVPF} 111", "audio", *OPUS, transport=("a=rtcp-mux",)),
            session=(*ICE, *DTLS, "a=ice-lite"),
        ),
        ("sendrecv",),
    ),
    "pion: upper-case codec, lower-case hash": Offer(
        describe(section(f"audio 9 {SAVPF} 111", "0", "a=rtpmap:111 OPUS/48000/2")), ("sendrecv",)
    ),
    "libdatachannel: data alone has no media for an audio stream": Offer(
        describe(data("0")), "audio"
    ),
    "door station: bundle-only sections": Offer(
        describe(audio(), bundle_only(video()), bundle_only(data())),
        ("sendrecv", "sendrecv", "application"),
        "audio-video",
    ),
    "softphone: telephone-event and comfort noise": Offer(
        describe(
            section(
                f"audio 9 {SAVPF} 8 0 13 101",
                "0",
                *("a=rtpmap:8 PCMA/8000", "a=rtpmap:0 PCMU/8000", "a=rtpmap:13 CN/8000"),
                *("a=rtpmap:101 telephone-event/8000", "a=fmtp:101 0-16"),
            )
        ),
        ("sendrecv",),
    ),
    "G.722 alone": Offer(
        describe(section(f"audio 9 {SAVPF} 9", "0", "a=rtpmap:9 G722/8000")), ("sendrecv",)
    ),
    "RED before Opus": Offer(
        describe(
            section(
                f"audio 9 {SAVPF} 63 111",
                "0",
                *("a=rtpmap:63 red/48000/2", "a=fmtp:63 111/111", *OPUS),
            )
        ),
        ("sendrecv",),
    ),
    "AV1 beside audio": Offer(describe(audio(), AV1), ("sendrecv", "rejected")),
    "HEVC first, which tags the BUNDLE group": Offer(
        describe(HEVC, audio()), ("inactive", "sendrecv")
    ),
    "surround sound beside audio": Offer(describe(audio(), SURROUND), ("sendrecv", "rejected")),
    "real-time text": Offer(describe(audio(), TEXT), ("sendrecv", "rejected")),
    "fax": Offer(
        describe(audio(), section("image 9 udptl t38", "1"), bundle="0"), ("sendrecv", "rejected")
    ),
    "data channel of an old draft": Offer(
        describe(
            audio(),
            section(
                "application 9 DTLS/SCTP 5000",
                "2",
                "a=sctpmap:5000 webrtc-datachannel 1024",
                direction=None,
                transport=(*ICE, *DTLS),
            ),
        ),
        ("sendrecv", "application"),
    ),
    "simulcast": Offer(
        describe(video("0", "sendrecv", "a=rid:h send", "a=rid:l send", "a=simulcast:send h;l")),
        ("sendrecv",),
        "video",
    ),
    "no direction": Offer(describe(audio("0", None)), ("sendrecv",)),
    "direction of the session": Offer(
        describe(audio("0", None), session=("a=recvonly",)), ("sendonly",)
    ),
    "bare line feeds": Offer(describe(audio()).replace("\r\n", "\n"), ("sendrecv",)),
    "several fingerprints, one of an old hash function": Offer(
        describe(audio("0", "sendrecv", f"a=fingerprint:sha-1 {':'.join(['CD'] * 20)}")),
        ("sendrecv",),
    ),
    "setup active": Offer(
        describe(audio()).replace("a=setup:actpass", "a=setup:active"), ("sendrecv",)
    ),
    "sections of one transport each": Offer(
        describe(audio(), video(), bundle=None), ("sendrecv", "sendrecv"), "audio-video"
    ),
    "unknown attributes and lines": Offer(
        describe(audio("0", "sendrecv", "b=AS:64", "a=x-vendor:1 2 3", "a=")), ("sendrecv",)
    ),
    # Refused, with the section or line and the reason.
    "only a codec that nothing here decodes": Offer(
        describe(section(f"audio 9 {SAVPF} 97", "0", "a=rtpmap:97 AMR-WB/16000")),
        r"section 0 \(audio.*codecs opus",
    ),
    "all sections inactive": Offer(describe(audio("0", "inactive")), "inactive"),
    "video for an audio stream": Offer(describe(video("0")), "no audio section"),
    "no fingerprint": Offer(describe(audio()).replace(f"{DTLS[0]}\r\n", ""), "a=fingerprint"),
    "no encryption": Offer(describe(section("audio 9 RTP/AVP 0", "0", transport=())), "section 0"),
    "no rtcp-mux": Offer(describe(audio()).replace("a=rtcp-mux\r\n", ""), "a=rtcp-mux"),
    "two mids in a section": Offer(describe(audio("0", "sendrecv", "a=mid:7"), bundle="0"), "line"),
    "BUNDLE of a missing section": Offer(describe(audio(), bundle="0 9"), "a=group:BUNDLE"),
    "an answer in place of a description": Offer('{"type": "offer"}', "v=0"),
}


def mutate(seed: int) -> Offer:
    """Break a valid offer: lines dropped, duplicated, truncated, swapped, numbers replaced."""
    chance = random.Random(seed)
    valid = [offer for offer in OFFERS.values() if isinstance(offer.answer, tuple)]
    offer = chance.choice(valid)
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
