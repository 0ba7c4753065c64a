"""Offers of many clients, written from the RFCs and from what the clients send."""

from __future__ import annotations

from .offers import (
    DTLS,
    ICE,
    OPUS,
    SAVPF,
    SHA,
    VP8,
    Offer,
    audio,
    bundle_only,
    data,
    describe,
    h264,
    h264_profile,
    section,
    video,
)

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
    "Firefox: video of several codecs, extensions in one direction": Offer(
        describe(
            section(
                f"video 9 {SAVPF} 120 124 121 125 99 100 123 122 119",
                "0",
                "a=extmap:3 urn:ietf:params:rtp-hdrext:sdes:mid",
                "a=extmap:6/recvonly http://www.webrtc.org/experiments/rtp-hdrext/playout-delay",
                *(
                    "a=extmap-allow-mixed",
                    "a=fmtp:120 max-fs=12288;max-fr=60",
                    "a=fmtp:124 apt=120",
                ),
                *("a=fmtp:121 max-fs=12288;max-fr=60", "a=fmtp:125 apt=121", "a=fmtp:100 apt=99"),
                *("a=rtcp-fb:120 nack", "a=rtcp-fb:120 nack pli", "a=rtcp-fb:120 ccm fir"),
                *("a=rtcp-fb:120 goog-remb", "a=rtpmap:120 VP8/90000", "a=rtpmap:124 rtx/90000"),
                *("a=rtpmap:121 VP9/90000", "a=rtpmap:125 rtx/90000", "a=rtpmap:99 AV1/90000"),
                *("a=rtpmap:100 rtx/90000", "a=rtpmap:123 ulpfec/90000", "a=rtpmap:122 red/90000"),
                *("a=rtpmap:119 rtx/90000", "a=fmtp:119 apt=122"),
                *("a=ssrc:1 cname:{c}", "a=ssrc:2 cname:{c}", "a=ssrc-group:FID 1 2"),
            )
        ),
        ("sendrecv",),
        "video",
    ),
    "GStreamer, max-bundle: port 0, and attributes all the same": Offer(
        describe(
            section(
                f"audio 9 {SAVPF} 111",
                "audio0",
                *("a=rtcp-rsize", "a=rtpmap:111 OPUS/48000/2", "a=rtcp-fb:111 transport-cc"),
                *("a=fmtp:111 sprop-stereo=0;sprop-maxcapturerate=48000", "a=rtcp-mux-only"),
            ),
            section(f"video 0 {SAVPF} 96", "video1", "a=bundle-only", "a=framerate:30", *VP8),
        ),
        ("sendrecv", "sendrecv"),
        "audio-video",
    ),
    "ffmpeg over WHIP: both kinds, passive, old feedback": Offer(
        describe(
            audio("0", "sendonly", "a=msid:FFmpeg audio", "a=ssrc:1 cname:FFmpeg"),
            h264("profile-level-id=64001f;packetization-mode=1;level-asymmetry-allowed=1", "1"),
            session=("a=extmap-allow-mixed", "a=msid-semantic: WMS"),
        ).replace("a=setup:actpass", "a=setup:passive"),
        ("recvonly", "recvonly"),
        "audio-video",
        "send",
    ),
    "Linphone: SAVPF without a transport, rtcp-mux, no BUNDLE": Offer(
        describe(
            section(
                "audio 7078 RTP/SAVPF 96 0 8 97",
                None,
                *("a=rtpmap:96 opus/48000/2", "a=fmtp:96 useinbandfec=1"),
                *("a=rtpmap:97 telephone-event/48000", "a=rtcp:7078", "a=rtcp-fb:* trr-int 5000"),
            ),
            bundle=None,
        ),
        ("sendrecv",),
    ),
    "JsSIP: a browser's offer with candidates of several components and TCP": Offer(
        describe(
            audio(
                "0",
                "sendrecv",
                "a=candidate:1 1 udp 2113937151 127.0.0.1 9 typ host generation 0 ufrag abcd",
                "a=candidate:1 2 udp 2113937150 127.0.0.1 9 typ host",
                "a=candidate:2 1 tcp 1518280447 127.0.0.1 9 typ host tcptype active",
                "a=candidate:3 1 udp 1 7d1b8e5c.local 9 typ host",
                *("a=candidate:x", "a=end-of-candidates", "a=remote-candidates:1 127.0.0.1 9"),
            )
        ),
        ("sendrecv",),
    ),
    "TCP/DTLS/SCTP, and no a=sctp-port": Offer(
        describe(
            audio(),
            section(
                "application 9 TCP/DTLS/SCTP webrtc-datachannel",
                "1",
                direction=None,
                transport=(*ICE, *DTLS),
            ),
        ),
        ("sendrecv", "application"),
    ),
    "UDP/TLS/RTP/SAVP": Offer(
        describe(section("audio 9 UDP/TLS/RTP/SAVP 111", "0", *OPUS)), ("sendrecv",)
    ),
    "protocol and attributes in another case, spaces around lines": Offer(
        describe(audio())
        .replace(SAVPF, "udp/tls/rtp/savpf")
        .replace("a=setup:actpass", "a=Setup:ACTPASS")
        .replace("sha-256", "SHA-256")
        .replace("\r\n", "  \r\n\r\n"),
        ("sendrecv",),
    ),
    "two payload types of Opus, and linear PCM": Offer(
        describe(
            section(
                f"audio 9 {SAVPF} 10 109 111",
                "0",
                *OPUS,
                *("a=rtpmap:109 opus/48000/2", "a=fmtp:109 stereo=1", "a=rtpmap:10 L16/44100/2"),
            )
        ),
        ("sendrecv",),
    ),
    "H.264 under a payload type below 64": Offer(
        describe(
            section(
                f"video 9 {SAVPF} 39 40",
                "0",
                *(
                    "a=rtpmap:39 H264/90000",
                    "a=fmtp:39 packetization-mode=1;profile-level-id=4d001f",
                ),
                *("a=rtpmap:40 rtx/90000", "a=fmtp:40 apt=39"),
            )
        ),
        ("sendrecv",),
        "video",
    ),
    "H.264 in mode 0, both directions: only received": Offer(
        describe(h264("packetization-mode=0;profile-level-id=42e01f", "0", "sendrecv")),
        ("recvonly",),
        "video",
    ),
    "three audio sections": Offer(
        describe(audio("0"), audio("1"), audio("2")), ("sendrecv", "inactive", "inactive")
    ),
    "one-way sections before one in both directions": Offer(
        describe(audio("0", "sendonly"), audio("1", "recvonly"), audio("2")),
        ("inactive", "inactive", "sendrecv"),
    ),
    "one-way sections of both kinds": Offer(
        describe(
            audio("0", "sendonly"),
            video("1", "recvonly"),
            audio("2", "recvonly"),
            video("3", "sendonly"),
        ),
        ("recvonly", "sendonly", "sendonly", "recvonly"),
        "audio-video",
    ),
    "two BUNDLE groups": Offer(
        describe(audio("0"), video("1"), session=("a=group:BUNDLE 1",), bundle="0"),
        ("sendrecv", "sendrecv"),
        "audio-video",
    ),
    "two data channel sections": Offer(
        describe(audio(), data("1"), data("2")), ("sendrecv", "application", "rejected")
    ),
    "two data channel sections, of which the second tags the BUNDLE group": Offer(
        describe(audio(), data("1"), data("2"), bundle="2 0 1"),
        ("sendrecv", "rejected", "application"),
    ),
    "a data channel tags the BUNDLE group": Offer(
        describe(data("0"), bundle_only(audio("1"))), ("application", "sendrecv")
    ),
    "a disabled section is first in the BUNDLE group": Offer(
        describe([f"m=video 0 {SAVPF} 96", *video("0")[1:]], audio("1")), ("rejected", "sendrecv")
    ),
    "an unused section without an encryption key": Offer(
        describe(audio(), section("video 9 RTP/AVP 96", "1", *VP8, transport=()), bundle="0"),
        ("sendrecv", "rejected"),
    ),
    "a player of audio and video": Offer(
        describe(audio("0", "recvonly"), video("1", "recvonly")),
        ("sendonly", "sendonly"),
        "audio-video",
        "receive",
    ),
    # Refused, with the section or line and the reason.
    "media in the wrong direction for a stream that only receives": Offer(
        describe(audio("0", "recvonly")),
        r"section 0 \(audio, mid 0\) is recvonly; it must be sendrecv or sendonly",
        "audio",
        "send",
    ),
    "media in the wrong direction for a stream that only sends": Offer(
        describe(audio("0", "sendonly")),
        "is sendonly; it must be sendrecv or recvonly",
        "audio",
        "receive",
    ),
    "H.264 in mode 0 for a stream that only sends": Offer(
        describe(h264("packetization-mode=0;profile-level-id=42e01f", "0", "recvonly")),
        "section 0 .* cannot send",
        "video",
        "receive",
    ),
    "video that cannot be decoded, for a stream of audio and video": Offer(
        describe(audio(), AV1),
        r"section 1 \(video, mid 1\) needs one of the codecs VP8, H264; got AV1",
        "audio-video",
    ),
    "disabled by port 0": Offer(
        describe([f"m=audio 0 {SAVPF} 111", *audio()[1:]]), "section 0 .* is disabled by port 0"
    ),
    "bundle-only without a BUNDLE group": Offer(
        describe(bundle_only(audio()), bundle=None), "a=bundle-only, but is in no BUNDLE group"
    ),
    "SRTP keys in the description, no DTLS": Offer(
        describe(
            section(
                "audio 9 RTP/SAVPF 0",
                "0",
                "a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:WVNfX19zZW1jdGwgKCkgewkyMjA7fQp9Cn",
                transport=(*ICE, "a=rtcp-mux"),
            )
        ),
        "section 0 .* needs a=fingerprint",
    ),
    "only a fingerprint that is too weak": Offer(
        describe(audio()).replace("sha-256", "md5"), "a=fingerprint of sha-256, .*; got md5"
    ),
    "a mid that is no token": Offer(
        describe(audio("a b"), bundle=None), r"^line \d+: a=mid must be a token"
    ),
    "one mid in two sections": Offer(
        describe(audio("0"), video("0"), bundle="0"), "a=mid must differ"
    ),
    "one payload type for two codecs": Offer(
        describe(audio("0", "sendrecv", "a=rtpmap:111 PCMU/8000")), r"line \d+: .* 111 twice"
    ),
    "a port that is no port": Offer(
        describe(section(f"audio 70000 {SAVPF} 111", "0", *OPUS)), r"^line 6: m= must be"
    ),
    "no formats": Offer(describe(["m=audio 9 RTP/SAVPF"], bundle=None), r"^line 5: m= must be"),
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
