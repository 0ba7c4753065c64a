"""WHIP and WHEP as text: offers, trickle fragments and headers."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastrtc_anyio._signaling.ice import IceServer
from fastrtc_anyio._signaling.requests import IceCandidate
from fastrtc_anyio._signaling.sdp_parser import parse_description
from fastrtc_anyio._signaling.whip import (
    Protocol,
    accepts,
    find_ice_users,
    has_entity_tag,
    link_headers,
    narrow_offer,
    parse_fragment,
    problem_body,
)
from fastrtc_anyio.errors import AdmissionError, InvalidCandidate, InvalidOffer, LimitExceeded
from fastrtc_anyio.limits import RequestLimits

AUDIO = "m=audio 9 UDP/TLS/RTP/SAVPF 111\r\na=mid:0\r\n"
VIDEO = "m=video 9 UDP/TLS/RTP/SAVPF 96\r\na=mid:1\r\n"
DATA = "m=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\na=mid:2\r\n"


def narrow(*sections: str, protocol: Protocol = "whip", session: str = "") -> list[str]:
    offer = parse_description(f"v=0\r\ns=-\r\n{session}" + "".join(sections))
    narrowed = narrow_offer(offer, protocol)
    assert narrow_offer(narrowed, protocol) == narrowed
    return [section.direction for section in narrowed.sections if section.has_rtp]


@pytest.mark.parametrize(
    ("given", "protocol", "direction"),
    [
        ("a=sendonly\r\n", "whip", "sendonly"),
        ("a=sendrecv\r\n", "whip", "sendonly"),
        ("", "whip", "sendonly"),  # RFC 8866 6.7: sendrecv is the default
        ("a=sendrecv\r\n", "whep", "recvonly"),
        ("a=recvonly\r\n", "whep", "recvonly"),
    ],
)
def test_offer_is_narrowed_to_one_direction(given: str, protocol: Protocol, direction: str) -> None:
    assert narrow(AUDIO + given, DATA, protocol=protocol) == [direction]


def test_session_level_direction_applies_to_every_section() -> None:
    assert narrow(AUDIO, session="a=sendonly\r\n") == ["sendonly"]


def test_section_of_opposite_direction_becomes_inactive() -> None:
    assert narrow(f"{AUDIO}a=sendonly\r\n", f"{VIDEO}a=recvonly\r\n") == ["sendonly", "inactive"]


@pytest.mark.parametrize(
    "sections", [(), (DATA,), (f"{AUDIO}a=recvonly\r\n",), (AUDIO.replace(" 9 ", " 0 "),)]
)
def test_whip_offer_without_outgoing_media_is_rejected(sections: tuple[str, ...]) -> None:
    with pytest.raises(InvalidOffer, match="this offer has none"):
        narrow(*sections)


def test_second_whip_track_of_a_kind_is_rejected() -> None:
    other = AUDIO.replace("mid:0", "mid:2")
    with pytest.raises(InvalidOffer, match="has 2 and 1"):
        narrow(f"{AUDIO}a=sendonly\r\n", f"{VIDEO}a=sendonly\r\n", f"{other}a=sendrecv\r\n")
    once = (f"{AUDIO}a=sendonly\r\n", f"{other}a=recvonly\r\n")
    assert narrow(*once).count("inactive") == 1


@pytest.mark.parametrize(
    ("header", "named"),
    [
        ('"abc"', True),
        ("*", True),
        (' "x,y" , "abc"', True),
        ('"ABC"', False),
        ('W/"abc"', False),  # RFC 9110 13.1.1: strong comparison
        ("abc", False),
        ("", False),
        ('"x", *', False),
    ],
)
def test_if_match_names_entity_tag(header: str, named: bool) -> None:
    assert has_entity_tag(header, '"abc"') is named


def test_fragment_holds_user_candidates_and_end() -> None:
    fragment = parse_fragment(
        "a=ice-ufrag:abcd\r\na=ice-pwd:secret\r\nm=audio 9 RTP/AVP 0\r\na=mid:0\r\n"
        "a=candidate:1 1 udp 1 127.0.0.1 5 typ host\r\na=end-of-candidates\r\n"
    )
    assert fragment.ice_users == {"abcd"}
    assert fragment.candidates == (IceCandidate("candidate:1 1 udp 1 127.0.0.1 5 typ host", "0"),)
    assert fragment.complete


def test_lines_that_cannot_be_used_do_not_cost_the_rest_of_a_fragment() -> None:
    long = "candidate:1 1 udp 1 127.0.0.1 6 typ host " + "x" * 5000
    fragment = parse_fragment(
        "rubbish\na=candidate:early\nm=audio 9 RTP/AVP 0\na=mid:0\n!\n\n"
        f"a=candidate:broken\na={long}\na=candidate:2 1 udp 1 127.0.0.1 5 typ host\n"
    )
    assert [(one.candidate[:40], one.sdp_mid) for one in fragment.candidates] == [
        ("candidate:early", None),
        ("candidate:broken", "0"),
        (long[:40], "0"),
        ("candidate:2 1 udp 1 127.0.0.1 5 typ host", "0"),
    ]


@given(st.text())
def test_any_text_is_a_fragment_or_raises_invalid_candidate(text: str) -> None:
    for prefix in ("", "a=mid:0\n", "m=audio\na=mid:0\na=candidate:"):
        with suppress(InvalidCandidate):
            parse_fragment(prefix + text)


def test_fragment_is_bounded() -> None:
    limits = RequestLimits(candidates=3, lines=8, sections=2)
    candidates = "a=candidate:x\n" * 8
    assert len(parse_fragment(candidates, limits).candidates) == 4
    with pytest.raises(LimitExceeded, match=r"9 lines; at most 8 .*RequestLimits\.lines"):
        parse_fragment(candidates + "\n", limits)
    with pytest.raises(LimitExceeded, match=r"3 ice-ufrags; at most 2 .*\.sections"):
        parse_fragment("a=ice-ufrag:a\na=ice-ufrag:b\na=ice-ufrag:c", limits)


def test_ice_users_of_all_sections_are_found() -> None:
    assert find_ice_users("v=0\r\na=ice-ufrag:a\r\nm=x\r\na=ice-ufrag:b\r\n") == {"a", "b"}


def test_ice_credentials_invalid_in_a_header_raise() -> None:
    with pytest.raises(ValueError, match="ASCII"):
        link_headers([IceServer(("turn:x",), "a\r\nSet-Cookie: b", "c")])


@pytest.mark.parametrize(
    ("header", "accepted"),
    [
        (None, True),
        ("", True),
        ("*/*", True),
        ("application/*;q=0.5", True),
        ("text/html, application/sdp", True),
        ("application/SDP ; charset=utf-8", True),
        ("text/html", False),
        ("application/sdp;q=0", False),
    ],
)
def test_accept_header_matches_media_type(header: str | None, accepted: bool) -> None:
    assert accepts(header, "application/sdp") is accepted


def test_problem_body_holds_status_and_limit() -> None:
    body: dict[str, Any] = problem_body(503, AdmissionError(2, 2))
    assert body["title"] == "Service Unavailable"
    assert (body["status"], body["limit"], body["active"]) == (503, 2, 2)
