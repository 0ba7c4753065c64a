"""Negotiation: sections by direction, codecs, transports, candidates, and the client's form."""

from __future__ import annotations

import itertools
from contextlib import suppress
from dataclasses import replace

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from fastrtc_anyio._media.media_plan import MediaPlan
from fastrtc_anyio._signaling.answer import describe_local, restore_answer
from fastrtc_anyio._signaling.codecs import limit_bitrate, list_usable, sort_for_sending
from fastrtc_anyio._signaling.offer import Negotiation, check_answer, negotiate
from fastrtc_anyio._signaling.requests import IceCandidate
from fastrtc_anyio._signaling.sdp import Description, Section, Source
from fastrtc_anyio._signaling.sdp_parser import parse_description
from fastrtc_anyio.errors import InvalidOffer
from tests.kit import jsep
from tests.kit.offer_corpus import OFFERS
from tests.kit.offers import (
    DTLS,
    ICE,
    audio,
    bundle_only,
    data,
    describe,
    h264,
    mutate,
    section,
    video,
)

FEC = (("useinbandfec", "1"),)
plans = st.builds(MediaPlan, *[st.booleans()] * 4).filter(lambda plan: plan.audio or plan.video)
AUDIO = MediaPlan()
VIDEO = MediaPlan(False, False, True, True)
BOTH = MediaPlan(True, True, True, True)


def negotiated(
    *sections: list[str], plan: MediaPlan = AUDIO, bundle: str | None = ""
) -> Negotiation:
    return negotiate(parse_description(describe(*sections, bundle=bundle)), plan)


def local_answer(negotiation: Negotiation) -> Description:
    """Return what aiortc answers: each section, with its transport and in the other direction."""
    sections = [
        replace(
            one,
            transport=replace(
                one.transport,
                ufrag="server",
                setup="passive" if one.transport.setup == "active" else "active",
                candidates=("candidate:1 1 udp 1 127.0.0.1 5 typ host",),
                complete=True,
            ),
            port=5,
            sources=(Source(1, "server"),) if one.has_rtp else (),
        )
        for one in negotiation.present().sections
    ]
    return Description(tuple(sections))


def restored(negotiation: Negotiation) -> str:
    return str(restore_answer(negotiation, local_answer(negotiation), FEC, 1000))


@given(st.lists(st.sampled_from(jsep.DIRECTIONS), max_size=5), st.booleans(), st.booleans())
def test_sections_are_chosen_by_direction(offered: list[str], receive: bool, send: bool) -> None:
    assume(receive or send)
    sections = [audio(str(i), direction) for i, direction in enumerate(offered)]
    to_us = [i for i, d in enumerate(offered) if receive and d in ("sendrecv", "sendonly")]
    from_us = [i for i, d in enumerate(offered) if send and d in ("sendrecv", "recvonly")]
    both = [i for i in to_us if i in from_us]
    plan = MediaPlan(receive, send)
    if not to_us and not from_us:
        with pytest.raises(InvalidOffer, match="no audio section") as caught:
            negotiated(*sections, plan=plan)
        for i, direction in enumerate(offered[:4]):
            assert f"section {i} (audio, mid {i}) is {direction}" in str(caught.value)
        return
    negotiation = negotiated(*sections, plan=plan)
    found = {(use.index, use.receives, use.sends) for use in negotiation.uses}
    if both:
        assert found == {(both[0], True, True)}
    else:
        wanted = {(i, True, False) for i in to_us[:1]} | {(i, False, True) for i in from_us[:1]}
        assert found == wanted
    answered = jsep.check_answer(describe(*sections), restored(negotiation))
    assert sum(direction != "inactive" for direction in answered) == len(found)


@given(st.integers(0, 10**9), plans)
def test_any_offer_has_a_valid_answer_or_is_refused(seed: int, plan: MediaPlan) -> None:
    offer = mutate(list(OFFERS.values()), seed)
    with suppress(InvalidOffer):
        negotiation = negotiate(parse_description(offer.sdp), plan)
        jsep.check_answer(offer.sdp, restored(negotiation))


@given(st.integers(0, 10**9), plans)
def test_presenting_a_presented_offer_changes_nothing(seed: int, plan: MediaPlan) -> None:
    offer = mutate(list(OFFERS.values()), seed)
    with suppress(InvalidOffer):
        presented = negotiate(parse_description(offer.sdp), plan).present()
        assert parse_description(str(presented)) == presented
        assert negotiate(presented, plan).present() == presented


def test_bundle_only_sections_get_the_transport_of_the_tagged_section() -> None:
    negotiation = negotiated(audio(), bundle_only(video()), bundle_only(data()), plan=BOTH)
    presented = negotiation.present()
    assert len({one.transport.ufrag for one in presented.sections}) == 1
    assert all(one.transport.fingerprints and one.port for one in presented.sections)
    assert presented.bundles == (("0", "1", "2"),)


def test_tagged_section_without_use_stays_and_lends_its_transport() -> None:
    first = section("video 9 RTP/SAVPF 49", "v", "a=rtpmap:49 H265/90000")
    sections = (first, bundle_only(audio("a")))
    negotiation = negotiated(*sections)
    assert [one.mid for one in negotiation.present().sections] == ["a"]
    answer = restored(negotiation)
    assert jsep.check_answer(describe(*sections), answer) == ("inactive", "sendrecv")
    assert "a=group:BUNDLE v a\r\n" in answer
    assert "a=rtpmap:49 H265/90000\r\n" in answer


def test_group_without_use_is_rejected() -> None:
    sections = (audio(), section("video 9 RTP/SAVPF 49", "v", "a=rtpmap:49 H265/90000"))
    answer = restored(negotiated(*sections, bundle="v"))
    assert jsep.check_answer(describe(*sections, bundle="v"), answer) == ("sendrecv", "rejected")
    assert "BUNDLE" not in answer


def test_candidates_of_the_transport_in_use_are_routed() -> None:
    negotiation = negotiated(video("v"), audio("a"), data("d"), audio("x"), bundle="v a d")

    def route(mid: str | None, index: int | None = None) -> tuple[str | None, int | None] | None:
        routed = negotiation.route(IceCandidate("c", mid, index))
        return None if routed is None else (routed.sdp_mid, routed.sdp_mline_index)

    assert negotiation.presented == (1, 2)
    assert route("v") == route(None, 0) == route("other", 0) == ("a", 0)
    # Bundled, unused, unknown.
    assert route("a") is route("d") is route("x") is route(None, 4) is route("other") is None
    apart = negotiated(video("v"), audio("a"), data("d"), bundle=None)
    assert apart.route(IceCandidate("c", "d")) == IceCandidate("c", "d", 1)
    assert apart.route(IceCandidate("c", "v")) is None


def test_described_candidates_belong_to_sections_in_use() -> None:
    line = "a=candidate:{} 1 udp 1 127.0.0.1 5 typ host"
    sections = [audio("0", "sendrecv", line.format("a")), video("1", "sendrecv", line.format("v"))]
    candidates, complete = negotiated(*sections).described_candidates()
    assert [(c.candidate[:11], c.sdp_mline_index) for c in candidates] == [("candidate:a", 0)]
    assert not complete
    ended = [*sections[0], "a=end-of-candidates"]
    assert negotiated(ended).described_candidates()[1]


def h264_lines(*parameters: tuple[int, str]) -> list[str]:
    lines = [f"a=rtpmap:{n} H264/90000" for n, _ in parameters]
    lines += [f"a=fmtp:{n} {text}" for n, text in parameters if text]
    media = f"video 9 RTP/SAVPF {' '.join(str(n) for n, _ in parameters)}"
    return section(media, "0", *lines)


@pytest.mark.parametrize("profile", ["42", "4d", "64", "6e", "7a", "f4", "2c", "58"])
@pytest.mark.parametrize("flags", ["00", "e0", "0c", "10"])
def test_h264_profiles_that_libavcodec_decodes_are_usable(profile: str, flags: str) -> None:
    text = f"packetization-mode=1;profile-level-id={profile}{flags}1f"
    (one,) = parse_description(describe(h264(text))).sections
    usable = list_usable(one)
    assert bool(usable) == (profile != "58" or flags == "e0")
    intra = profile == "2c" or (profile in ("6e", "7a", "f4") and flags == "10")
    assert bool(sort_for_sending(usable, None)) == (bool(usable) and not intra)


@pytest.mark.parametrize(
    "text", ["packetization-mode=2", "profile-level-id=42e0", "profile-level-id=xyzxyz"]
)
def test_h264_that_cannot_be_depacketized_or_is_malformed_is_unusable(text: str) -> None:
    with pytest.raises(InvalidOffer, match=r"section 0 .* codecs VP8, H264; got H264"):
        negotiated(h264_lines((96, text)), plan=VIDEO)


def test_format_that_is_sent_has_exactly_the_profile_of_the_encoder() -> None:
    high, baseline = "packetization-mode=1;profile-level-id=640c1f", "packetization-mode=1"
    offered = [(96, high), (97, "packetization-mode=0"), (98, f"{baseline};x=1")]
    for order in itertools.permutations(offered):
        (use,) = negotiated(h264_lines(*order), plan=VIDEO).uses
        assert use.formats[0].payload_type == 98
        assert use.formats[1].payload_type == 96
    (use,) = negotiated(h264_lines(*offered), plan=MediaPlan(False, False, True, False)).uses
    assert [one.payload_type for one in use.formats] == [96, 97, 98]  # the client's order


def test_preferred_codec_is_sent_with_its_retransmissions() -> None:
    lines = ["a=rtpmap:96 VP8/90000", "a=rtpmap:97 rtx/90000", "a=fmtp:97 apt=96"]
    lines += ["a=rtpmap:98 H264/90000", "a=fmtp:98 packetization-mode=1"]
    lines += ["a=rtpmap:99 rtx/90000", "a=fmtp:99 apt=98"]
    offer = parse_description(describe(section("video 9 RTP/SAVPF 96 97 98 99", "0", *lines)))
    (use,) = negotiate(offer, VIDEO, "H264").uses
    assert [one.payload_type for one in use.formats] == [98, 99, 96, 97]
    (use,) = negotiate(offer, VIDEO).uses
    assert [one.payload_type for one in use.formats] == [96, 97, 98, 99]


@pytest.mark.parametrize(
    ("number", "codec"),
    [
        *((111, "opus/16000/2"), (111, "opus/48000/6"), (0, "PCMU/16000"), (0, "PCMU/8000/2")),
        *((72, "opus/48000/2"), (111, "opus"), (111, "x/1"), (111, "VP8/90000")),
    ],
)
def test_codec_at_another_rate_or_with_more_channels_is_unusable(number: int, codec: str) -> None:
    with pytest.raises(InvalidOffer, match="codecs opus, G722, PCMU, PCMA; got"):
        negotiated(section(f"audio 9 RTP/SAVPF {number}", "0", f"a=rtpmap:{number} {codec}"))


@pytest.mark.parametrize(
    ("codec", "value", "limit"),
    [
        *(("opus/48000/2", str(value), value) for value in (6000, 24_000, 510_000)),
        *(("opus/48000/2", text, None) for text in ("5999", "510001", "-6000", "2e4", "٢" * 5)),
        *(("OPUS/48000/2", "20000", 20_000), ("G722/8000", "20000", None)),
    ],
)
def test_bitrate_of_opus_is_limited_by_valid_values(
    codec: str, value: str, limit: int | None
) -> None:
    lines = (f"a=rtpmap:111 {codec}", f"a=fmtp:111 minptime=10;maxaveragebitrate={value}")
    (use,) = negotiated(section("audio 9 RTP/SAVPF 111", "0", *lines)).uses
    assert limit_bitrate(use.formats[0]) == limit


def test_answer_keeps_parameters_that_are_negotiated_and_no_others() -> None:
    lines = ["a=rtpmap:96 h264/90000", "a=rtcp-fb:96 nack", "a=rtcp-fb:96 ccm fir"]
    text = "profile-level-id=4d0020;packetization-mode=1;sprop-parameter-sets=Z00=;max-fs=1"
    lines.append(f"a=fmtp:96 {text}")
    answer = restored(negotiated(audio(), section("video 9 RTP/SAVPF 96", "1", *lines), plan=BOTH))
    assert "a=rtpmap:96 h264/90000\r\n" in answer
    assert "a=fmtp:96 profile-level-id=4d0020;packetization-mode=1\r\n" in answer
    assert "a=fmtp:111 useinbandfec=1\r\n" in answer
    assert "a=rtcp-fb:96 nack\r\n" in answer
    assert "ccm fir" not in answer


def test_data_channel_of_the_old_form_is_answered_in_it() -> None:
    old = section("application 9 DTLS/SCTP 5001", "1", transport=(*ICE, *DTLS), direction=None)
    negotiation = negotiated(audio(), old)
    assert negotiation.present().sections[1].sctp_port == 5001
    local = local_answer(negotiation)
    sections = (local.sections[0], replace(local.sections[1], sctp_port=5000))
    answer = str(restore_answer(negotiation, replace(local, sections=sections), FEC, 1000))
    assert "m=application 5 DTLS/SCTP 5000\r\n" in answer
    assert "a=sctpmap:5000 webrtc-datachannel 65535\r\n" in answer
    assert "a=max-message-size:1000\r\n" in answer


def test_source_of_retransmissions_is_the_one_in_its_group() -> None:
    lines = [f"a=ssrc:{n} cname:c" for n in (1, 2, 3)]
    offer = negotiated(video("0", "sendrecv", *lines, "a=ssrc-group:FID 1 3"), plan=VIDEO)
    assert [one.ssrc for one in offer.present().sections[0].sources] == [1, 3]
    offer = negotiated(video("0", "sendrecv", *lines), plan=VIDEO)
    assert [one.ssrc for one in offer.present().sections[0].sources] == [1]


def test_number_of_a_header_extension_means_one_thing() -> None:
    mid, level = (
        "urn:ietf:params:rtp-hdrext:sdes:mid",
        "urn:ietf:params:rtp-hdrext:ssrc-audio-level",
    )
    time = "http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time"
    negotiation = negotiated(
        audio("0", "sendrecv", f"a=extmap:1 {level}", f"a=extmap:2/sendrecv {mid}", "a=extmap:3 x"),
        video("1", "sendrecv", f"a=extmap:1 {time}", f"a=extmap:2 {mid}"),
        plan=BOTH,
    )
    presented = [one.extensions for one in negotiation.present().sections]
    assert presented == [((1, level), (2, mid)), ((2, mid),)]


OURS = parse_description(describe(audio(), data("1")))


def answer_to_ours(*sections: list[str]) -> Negotiation:
    text = describe(*sections).replace("a=setup:actpass", "a=setup:active")
    return check_answer(OURS, parse_description(text))


def test_answer_to_our_offer_is_presented_like_an_offer() -> None:
    negotiation = answer_to_ours(audio(), bundle_only(data("1")))
    assert negotiation.presented == (0, 1)
    assert all(one.transport.ufrag == "abcd" for one in negotiation.present().sections)
    assert negotiation.channel == 1
    no_mids = answer_to_ours(audio(None), data("1"))
    assert no_mids.present().sections[0].mid == "0"


@pytest.mark.parametrize(
    ("sections", "error"),
    [
        (
            [audio()],
            "the sections of the offer: audio, application; got audio",
        ),
        ([data("0"), audio("1")], "got application, audio"),
        ([audio("7"), data("1")], r"section 0 \(audio, mid 7\) must have the mid 0"),
        (
            [["m=audio 0 RTP/SAVPF 0"], data("1")],
            "section 0 .* is disabled by port 0",
        ),
    ],
)
def test_answer_that_does_not_fit_our_offer_is_refused(
    sections: list[list[str]], error: str
) -> None:
    with pytest.raises(InvalidOffer, match=error):
        answer_to_ours(*sections)


def test_answer_without_a_role_is_refused() -> None:
    with pytest.raises(InvalidOffer, match=r"section 0 .* needs a=setup:active or passive"):
        check_answer(OURS, parse_description(describe(audio(), data("1"))))


def test_our_offer_declares_opus_parameters_and_message_size() -> None:
    text = str(describe_local(OURS, FEC, 1000))
    assert "a=fmtp:111 useinbandfec=1\r\n" in text
    assert "a=max-message-size:1000\r\n" in text


def test_section_without_a_mid_is_answered_without_one() -> None:
    negotiation = negotiated(audio(None), audio("section-0", "inactive"), bundle=None)
    (presented,) = negotiation.present().sections
    assert presented.mid not in (None, "section-0")
    (first, _) = parse_description(restored(negotiation)).sections
    assert isinstance(first, Section)
    assert first.mid is None
