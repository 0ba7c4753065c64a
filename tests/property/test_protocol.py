from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastrtc_anyio import AdmissionError, InvalidCandidate, InvalidOffer, RtcConfiguration
from fastrtc_anyio.protocol.ice import IceServer
from fastrtc_anyio.protocol.messages import encode_message
from fastrtc_anyio.protocol.sdp import check_sections, set_opus_parameters, split_candidates
from fastrtc_anyio.protocol.signaling import (
    MAX_ID_LENGTH,
    MAX_SDP_LENGTH,
    CandidateRequest,
    IceCandidate,
    OfferRequest,
    failure_body,
    parse_request,
)

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=10,
)
bodies = st.fixed_dictionaries(
    {},
    optional={
        "type": st.sampled_from(["offer", "ice-candidate", "answer"]) | json_values,
        "sdp": json_values,
        "webrtc_id": json_values,
        "candidate": json_values
        | st.fixed_dictionaries(
            {},
            optional={
                "candidate": json_values,
                "sdpMid": json_values,
                "sdpMLineIndex": json_values,
            },
        ),
    },
)


@given(json_values | bodies)
def test_any_json_is_a_request_or_the_documented_error(body: object) -> None:
    try:
        request = parse_request(body)
    except (InvalidOffer, InvalidCandidate) as exc:
        said = str(exc)
    else:
        assert isinstance(request, OfferRequest | CandidateRequest)
        return
    assert 0 < len(said) < 300


@pytest.mark.parametrize(
    ("body", "error", "message"),
    [
        ([], InvalidOffer, "must be a JSON object; got list"),
        (None, InvalidOffer, "got null"),
        ({"type": "bye"}, InvalidOffer, "got 'bye'"),
        ({"type": "offer"}, InvalidOffer, '"sdp" must be a session description; got None'),
        ({"type": "offer", "sdp": " "}, InvalidOffer, "got ' '"),
        ({"type": "offer", "sdp": "v" * (MAX_SDP_LENGTH + 1)}, InvalidOffer, "has 262145"),
        ({"type": "offer", "sdp": "v=0", "webrtc_id": 7}, InvalidOffer, "got 7"),
        (
            {"type": "offer", "sdp": "v=0", "webrtc_id": "x" * (MAX_ID_LENGTH + 1)},
            InvalidOffer,
            "1 to 128 characters",
        ),
        ({"type": "ice-candidate"}, InvalidCandidate, '"webrtc_id"'),
        (
            {"type": "ice-candidate", "webrtc_id": "x", "candidate": 5},
            InvalidCandidate,
            "object or null; got int",
        ),
        (
            {"type": "ice-candidate", "webrtc_id": "x", "candidate": {"candidate": "c"}},
            InvalidCandidate,
            '"sdpMid" or "sdpMLineIndex"; got neither',
        ),
    ],
)
def test_errors_say_what_was_got(body: object, error: type[Exception], message: str) -> None:
    with pytest.raises(error) as caught:
        parse_request(body)
    assert message in str(caught.value)


@pytest.mark.parametrize("candidate", [None, {"candidate": ""}, {"candidate": None}])
def test_the_end_of_candidates(candidate: object) -> None:
    body = {"type": "ice-candidate", "webrtc_id": "x", "candidate": candidate}
    assert parse_request(body) == CandidateRequest(None, "x")


def test_a_candidate() -> None:
    inner = {"candidate": "candidate:1 1 udp 1 127.0.0.1 9 typ host", "sdpMid": "0"}
    body = {"type": "ice-candidate", "webrtc_id": "x", "candidate": inner}
    assert parse_request(body) == CandidateRequest(IceCandidate(inner["candidate"], "0"), "x")


def test_the_limit_is_told_as_fastrtc_does() -> None:
    assert failure_body(AdmissionError(2, 2)) == {
        "status": "failed",
        "meta": {
            "error": "concurrency_limit_reached",
            "limit": 2,
            "message": "the limit of 2 concurrent sessions is reached (2 active)",
        },
    }
    assert failure_body(InvalidOffer("no")) == {"status": "failed", "meta": {"error": "no"}}


SDP = "\r\n".join(
    [
        "v=0",
        "m=audio 9 UDP/TLS/RTP/SAVPF 111 0",
        "a=rtpmap:111 opus/48000/2",
        "a=fmtp:111 minptime=10;stereo=0",
        "a=rtpmap:0 PCMU/8000",
        "a=candidate:1 1 udp 1 127.0.0.1 1000 typ host",
        "a=candidate:2 1 udp 1 127.0.0.1 1001 typ host",
        "a=end-of-candidates",
        "m=application 9 UDP/DTLS/SCTP webrtc-datachannel",
        "a=candidate:3 1 udp 1 127.0.0.1 1002 typ host",
        "",
    ]
)


def test_opus_parameters_are_added_beside_those_that_are_there() -> None:
    changed = set_opus_parameters(SDP, stereo=True, inband_fec=True)
    assert "a=fmtp:111 minptime=10;stereo=1;sprop-stereo=1;useinbandfec=1" in changed
    assert changed.count("a=fmtp:") == 1
    assert [line for line in changed.split("\r\n") if "fmtp" not in line] == [
        line for line in SDP.split("\r\n") if "fmtp" not in line
    ]
    assert set_opus_parameters(SDP, stereo=False, inband_fec=False) == SDP


def test_opus_parameters_are_added_where_there_are_none() -> None:
    bare = SDP.replace("a=fmtp:111 minptime=10;stereo=0\r\n", "")
    changed = set_opus_parameters(bare, stereo=True, inband_fec=False)
    assert "a=rtpmap:111 opus/48000/2\r\na=fmtp:111 stereo=1;sprop-stereo=1\r\n" in changed


def test_a_bundle_of_sections_that_are_not_there_is_refused() -> None:
    bundled = SDP.replace("v=0", "v=0\r\na=group:BUNDLE 0 1")
    with pytest.raises(InvalidOffer, match=r"\['0', '1'\]"):
        check_sections(bundled)
    check_sections(bundled + "a=mid:0\r\na=mid:1\r\n")
    check_sections(SDP)
    with pytest.raises(InvalidOffer, match="has 102 sections; at most 32"):
        check_sections(SDP + "m=audio 9 UDP/TLS/RTP/SAVPF 0\r\n" * 100)


@given(st.text() | st.just(SDP))
def test_set_opus_parameters_is_idempotent(sdp: str) -> None:
    once = set_opus_parameters(sdp, stereo=True, inband_fec=False)
    assert set_opus_parameters(once, stereo=True, inband_fec=False) == once


def test_candidates_are_taken_out_with_their_sections() -> None:
    rest, candidates, complete = split_candidates(SDP)
    assert "candidate" not in rest
    assert complete
    assert [c.sdp_mline_index for c in candidates] == [0, 0, 1]
    assert candidates[0].candidate == "candidate:1 1 udp 1 127.0.0.1 1000 typ host"
    assert rest.count("m=") == 2


@given(st.sampled_from(["error", "warning", "log", "end_stream"]), json_values)
def test_messages_are_json(kind: str, data: object) -> None:
    message = json.loads(encode_message(kind, data))
    assert message["type"] == kind
    assert ("message" in message) == (kind in ("error", "warning"))


def test_an_rtc_configuration_from_its_w3c_form() -> None:
    parsed = RtcConfiguration.parse(
        {
            "iceServers": [
                {"urls": "stun:a"},
                {"urls": ["turn:b", "turn:c"], "username": "u", "credential": "p"},
            ],
            "iceTransportPolicy": "relay",
        }
    )
    assert parsed.ice_servers == (
        IceServer(("stun:a",)),
        IceServer(("turn:b", "turn:c"), "u", "p"),
    )
    assert parsed.ice_transport_policy == "relay"
    assert RtcConfiguration.parse(parsed) is parsed
    assert RtcConfiguration.parse(None) == RtcConfiguration()


@pytest.mark.parametrize(
    ("value", "error"),
    [
        ({"iceservers": []}, "got also iceservers"),
        ({"iceServers": [{}]}, 'a mapping with "urls"'),
        ({"iceTransportPolicy": "some"}, "got 'some'"),
        ({"addresses": ["localhost"]}, "localhost"),
    ],
)
def test_a_wrong_rtc_configuration_is_told(value: dict[str, object], error: str) -> None:
    with pytest.raises(ValueError, match=error):
        RtcConfiguration.parse(value)
