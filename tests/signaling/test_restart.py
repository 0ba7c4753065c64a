"""Offers and fragments for ICE restarts: what counts as one, and what is answered."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastrtc_anyio._media.media_plan import MediaPlan
from fastrtc_anyio._signaling.answer import restore_answer
from fastrtc_anyio._signaling.offer import Negotiation, negotiate
from fastrtc_anyio._signaling.restart import (
    IceCredentials,
    read_restart,
    refresh_answer,
    remote_credentials,
    write_fragment,
)
from fastrtc_anyio._signaling.sdp import Description, Transport
from fastrtc_anyio._signaling.sdp_parser import parse_description
from fastrtc_anyio._signaling.whip import parse_fragment
from fastrtc_anyio.errors import InvalidOffer

OFFER = "\r\n".join(
    [
        "v=0",
        "o=- 1 2 IN IP4 127.0.0.1",
        "s=-",
        "t=0 0",
        "a=group:BUNDLE 0 1",
        "a=fingerprint:sha-256 " + ":".join(["AB"] * 32),
        "a=setup:actpass",
        "m=audio 9 UDP/TLS/RTP/SAVPF 111 0",
        "a=mid:0",
        "a=rtcp-mux",
        "a=ice-ufrag:user",
        "a=ice-pwd:aaaaaaaaaaaaaaaaaaaaaa",
        "a=rtpmap:111 opus/48000/2",
        "m=application 9 UDP/DTLS/SCTP webrtc-datachannel",
        "a=mid:1",
        "a=sctp-port:5000",
        "a=ice-ufrag:user",
        "a=ice-pwd:aaaaaaaaaaaaaaaaaaaaaa",
        "",
    ]
)
NEW = OFFER.replace(":user", ":other").replace("a" * 22, "b" * 22)
ICE_CHARS = "abcXYZ019+/"


def first_negotiation() -> tuple[Negotiation, Description]:
    before = negotiate(parse_description(OFFER), MediaPlan.of("audio", "send-receive"))
    transport = Transport(
        "mine", "m" * 22, candidates=("candidate:1 1 udp 9 127.0.0.1 9 typ host",)
    )
    local = Description(
        tuple(
            replace(section, transport=transport, direction="sendrecv")
            for section in before.present().sections
        ),
        origin="- 7 3 IN IP4 0.0.0.0",
    )
    return before, restore_answer(before, local, (), 1000)


@given(
    user=st.text(ICE_CHARS, min_size=4, max_size=40).filter(lambda text: text != "user"),
    password=st.text(ICE_CHARS, min_size=22, max_size=40).filter(lambda text: text != "a" * 22),
)
def test_offer_with_new_credentials_is_a_restart(user: str, password: str) -> None:
    before, answer = first_negotiation()
    sdp = OFFER.replace(":user", f":{user}").replace("a" * 22, password)
    after = read_restart(before, answer, parse_description(sdp))
    assert after is not None
    assert set(remote_credentials(after).values()) == {IceCredentials(user, password)}
    again = read_restart(after, answer, parse_description(sdp))
    assert again is None  # the same offer twice


@pytest.mark.parametrize(
    "sdp",
    [
        OFFER,
        NEW.replace("b" * 22, "a" * 22),
        NEW.replace(":other", ":user"),
        NEW.replace("AB:AB", "AB:AC", 1),
        NEW.partition("m=application")[0].replace("BUNDLE 0 1", "BUNDLE 0"),
    ],
)
def test_other_offers_are_not_restarts(sdp: str) -> None:
    before, answer = first_negotiation()
    assert read_restart(before, answer, parse_description(sdp)) is None


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("a=rtcp-mux", "a=rtcp-mux\r\na=recvonly", "must be sendrecv; got recvonly"),
        ("111 opus", "111 red", "must have opus as payload type 111"),
        ("a=mid:0", "a=mid:7", r"section 0 \(audio, mid 7\) must be section 0 \(audio, mid 0\)"),
        ("b" * 22, "b" * 21, "RFC 8839 5.4"),
        (":other", ":o_th", "RFC 8839 5.4"),
    ],
)
def test_restart_that_changes_the_media_is_refused(old: str, new: str, message: str) -> None:
    before, answer = first_negotiation()
    sdp = NEW.replace(old, new).replace("BUNDLE 0 1", "BUNDLE 1")
    with pytest.raises(InvalidOffer, match=message):
        read_restart(before, answer, parse_description(sdp))


def test_further_section_is_refused() -> None:
    before, answer = first_negotiation()
    more = NEW + "m=video 9 UDP/TLS/RTP/SAVPF 96\r\na=mid:2\r\na=rtpmap:96 VP8/90000\r\n"
    with pytest.raises(InvalidOffer, match="must have 2 sections; got 3"):
        read_restart(before, answer, parse_description(more))


def test_answer_to_a_restart_differs_in_credentials_and_version_only() -> None:
    _, answer = first_negotiation()
    local = IceCredentials("fresh", "f" * 22)
    fresh = refresh_answer(answer, local)
    assert fresh.origin == "- 7 4 IN IP4 0.0.0.0"
    text = str(fresh).replace("fresh", "mine").replace("f" * 22, "m" * 22).replace("7 4", "7 3")
    assert text == str(answer)
    fragment = parse_fragment(write_fragment(fresh))
    assert fragment.credentials == {None: local}
    assert [one.sdp_mid for one in fragment.candidates] == ["0"]


def test_fragment_may_have_credentials_in_each_section() -> None:
    user, password = "a=ice-ufrag:four", "a=ice-pwd:" + "p" * 22
    fragment = parse_fragment("\r\n".join(["m=audio 9 RTP 0", "a=mid:0", user, password, ""]))
    assert fragment.credentials == {"0": IceCredentials("four", "p" * 22)}
    assert parse_fragment(f"{user}\r\n").credentials == {}
