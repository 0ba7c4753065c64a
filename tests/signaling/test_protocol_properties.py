"""Requests, SDP, messages, configurations and early candidates, as text and JSON."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastrtc_anyio import (
    AdmissionError,
    InvalidCandidate,
    InvalidOffer,
    LimitExceeded,
    RequestLimits,
    RtcConfiguration,
)
from fastrtc_anyio._core.options import short_repr
from fastrtc_anyio._sessions.early import EarlyCandidates
from fastrtc_anyio._signaling.ice import IceServer
from fastrtc_anyio._signaling.messages import encode_message
from fastrtc_anyio._signaling.requests import (
    MAX_ID_LENGTH,
    CandidateRequest,
    IceCandidate,
    OfferRequest,
    failure_body,
    parse_request,
)
from fastrtc_anyio._signaling.sdp import (
    check_sections,
    keep_feedback,
    set_message_size,
    set_opus_parameters,
    split_candidates,
)

LIMITS = RequestLimits()

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
def test_any_json_is_a_request_or_raises_short_error(body: object) -> None:
    try:
        request = parse_request(body, LIMITS)
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
        ({"type": "offer", "sdp": "v" * 524_289}, LimitExceeded, "has 524289"),
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
        (
            {
                "type": "ice-candidate",
                "webrtc_id": "x",
                "candidate": {"candidate": "c", "sdpMid": "x" * 129},
            },
            InvalidCandidate,
            "at most 128 characters, or null; got 'xxx",
        ),
    ],
)
def test_invalid_request_error_shows_value(
    body: object, error: type[Exception], message: str
) -> None:
    with pytest.raises(error) as caught:
        parse_request(body, LIMITS)
    assert message in str(caught.value)


@pytest.mark.parametrize("candidate", [None, {"candidate": ""}, {"candidate": None}])
def test_empty_candidate_is_end_of_candidates(candidate: object) -> None:
    body = {"type": "ice-candidate", "webrtc_id": "x", "candidate": candidate}
    assert parse_request(body, LIMITS) == CandidateRequest(None, "x")


def test_candidate_request_is_parsed() -> None:
    inner = {"candidate": "candidate:1 1 udp 1 127.0.0.1 9 typ host", "sdpMid": "0"}
    body = {"type": "ice-candidate", "webrtc_id": "x", "candidate": inner}
    assert parse_request(body, LIMITS) == CandidateRequest(
        IceCandidate(inner["candidate"], "0"), "x"
    )


def test_failure_body_has_the_form_of_fastrtc() -> None:
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


def test_opus_parameters_keep_other_parameters() -> None:
    changed = set_opus_parameters(SDP, stereo=True, inband_fec=True)
    assert "a=fmtp:111 minptime=10;stereo=1;sprop-stereo=1;useinbandfec=1" in changed
    assert changed.count("a=fmtp:") == 1
    assert [line for line in changed.split("\r\n") if "fmtp" not in line] == [
        line for line in SDP.split("\r\n") if "fmtp" not in line
    ]
    assert set_opus_parameters(SDP, stereo=False, inband_fec=False) == SDP


def test_opus_parameters_add_missing_fmtp_line() -> None:
    bare = SDP.replace("a=fmtp:111 minptime=10;stereo=0\r\n", "")
    changed = set_opus_parameters(bare, stereo=True, inband_fec=False)
    assert "a=rtpmap:111 opus/48000/2\r\na=fmtp:111 stereo=1;sprop-stereo=1\r\n" in changed


def test_bundle_of_missing_sections_and_too_many_sections_are_rejected() -> None:
    bundled = SDP.replace("v=0", "v=0\r\na=group:BUNDLE 0 1")
    with pytest.raises(InvalidOffer, match=r"\['0', '1'\]"):
        check_sections(bundled, LIMITS)
    section = "m=audio 9 UDP/TLS/RTP/SAVPF 0\r\na=mid:1\r\n"
    check_sections(bundled + "a=mid:0\r\n" + section, LIMITS)
    with pytest.raises(InvalidOffer, match=r"\['0'\]"):  # the second a=mid replaces the first
        check_sections(bundled + "a=mid:0\r\na=mid:1\r\n" + section, LIMITS)
    check_sections(SDP, LIMITS)
    with pytest.raises(LimitExceeded, match="has 102 sections; at most 32"):
        check_sections(SDP + "m=audio 9 UDP/TLS/RTP/SAVPF 0\r\n" * 100, LIMITS)


def test_sdp_with_too_many_lines_is_rejected() -> None:
    """aiortc splits SDP with ``str.splitlines``, so each of its separators counts as a line end."""
    for end in ("\r\n", "\n", "\r", "\x0b", "\x0c", "\x1c", "\x85", "\u2028"):
        sources = end.join(f"a=ssrc:{i} cname:c" for i in range(LIMITS.lines))
        with pytest.raises(LimitExceeded, match=r"at most 2000 .*\(RequestLimits\.lines\)"):
            check_sections(SDP + sources, LIMITS)
        candidate = "a=candidate:1 1 udp 1 127.0.0.1 1000 typ host"
        assert len(split_candidates(SDP + end.join([candidate] * 200))[1]) > 200


@pytest.mark.parametrize(
    ("payload_types", "error"),
    [
        (["96", "96"], "names the payload type 96 twice"),
        (["128"], "0 to 127; got '128'"),
        (["\u0661"], "0 to 127; got"),
        (["x" * 1000], "0 to 127; got 'xxx"),
    ],
)
def test_invalid_payload_types_are_rejected(payload_types: list[str], error: str) -> None:
    lines = "".join(f"a=rtpmap:{one} VP8/90000\r\n" for one in payload_types)
    with pytest.raises(InvalidOffer, match=error) as info:
        check_sections(SDP + lines, LIMITS)
    assert len(str(info.value)) < 200
    section = "m=video 9 UDP/TLS/RTP/SAVPF 96\r\na=rtpmap:96 VP8/90000\r\n"
    check_sections(SDP + section * 2, LIMITS)


def test_unsupported_and_repeated_rtcp_feedback_is_removed() -> None:
    known = "m=video 9 UDP/TLS/RTP/SAVPF 96\r\na=rtcp-fb:96 nack pli\r\na=rtcp-fb:* nack\r\n"
    others = "".join(f"a=rtcp-fb:* x{i}\r\n" for i in range(3)) + "a=rtcp-fb:* nack\r\n"
    assert keep_feedback((known + others) * 2) == known * 2


@given(st.text() | st.just(SDP))
def test_set_opus_parameters_is_idempotent(sdp: str) -> None:
    once = set_opus_parameters(sdp, stereo=True, inband_fec=False)
    assert set_opus_parameters(once, stereo=True, inband_fec=False) == once


def test_split_candidates_returns_each_with_its_section() -> None:
    rest, candidates, complete = split_candidates(SDP)
    assert "candidate" not in rest
    assert complete
    assert [c.sdp_mline_index for c in candidates] == [0, 0, 1]
    assert candidates[0].candidate == "candidate:1 1 udp 1 127.0.0.1 1000 typ host"
    assert rest.count("m=") == 2


@pytest.mark.parametrize("depth", [4, 100, *range(900, 1000)])
def test_short_repr_of_any_json_is_at_most_80_characters(depth: int) -> None:
    for text in ("[" * depth + "]" * depth, "9" * depth, f'"{"x" * depth}"', "1e400", "null"):
        try:
            value = json.loads(text)
        except RecursionError:
            continue
        assert 0 < len(short_repr(value)) <= 80


@given(st.sampled_from(["error", "warning", "log", "end_stream"]), json_values)
def test_messages_are_json_with_type_and_reason(kind: str, data: object) -> None:
    message = json.loads(encode_message(kind, data))
    assert message["type"] == kind
    assert ("message" in message) == (kind in ("error", "warning"))
    assert "reason" not in message
    assert json.loads(encode_message(kind, data, reason="idle")) == {**message, "reason": "idle"}


def test_rtc_configuration_is_parsed_from_w3c_form() -> None:
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
def test_invalid_rtc_configuration_raises_value_error(value: dict[str, object], error: str) -> None:
    with pytest.raises(ValueError, match=error):
        RtcConfiguration.parse(value)


def test_set_message_size_replaces_the_maximum() -> None:
    sdp = SDP + "a=max-message-size:65536\r\na=sctp-port:5000\r\n"
    assert set_message_size(sdp, 1000) == sdp.replace("65536", "1000")
    assert set_message_size(SDP, 1000) == SDP


@given(
    st.lists(
        st.tuples(st.sampled_from("abcd"), st.booleans(), st.sampled_from([0.0, 0.4, 2.0])),
        max_size=40,
    )
)
def test_early_candidates_are_kept_in_order_and_bounded(
    steps: list[tuple[str, bool, float]],
) -> None:
    limits = RequestLimits(candidates=3, early_clients=2, early_seconds=1)
    early = EarlyCandidates(limits)
    model: dict[str, tuple[float, list[IceCandidate | None]]] = {}
    now = 0.0
    for number, (client, take, pause) in enumerate(steps):
        now += pause
        since, kept = model.get(client, (now, []))
        if now - since > 1:
            since, kept = now, []
        if take:
            assert early.take(client, now) == kept
            model.pop(client, None)
            continue
        candidate = IceCandidate(str(number), "0")
        model.pop(client, None)
        model[client] = (since, kept)  # newest last, the oldest client is evicted
        if len(model) > 2:
            del model[next(iter(model))]
        if len(kept) == 3:
            with pytest.raises(LimitExceeded, match=r"3 candidates .*RequestLimits\.candidates"):
                early.add(client, candidate, now)
        else:
            early.add(client, candidate, now)
            kept.append(candidate)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"body_bytes": 0}, ValueError, "RequestLimits.body_bytes must be an int above 0; got 0"),
        (
            {"body_bytes": 1.5},
            TypeError,
            "body_bytes must be an int above 0; got 1.5",
        ),
        ({"candidates": True}, TypeError, "must be an int above 0; got True"),
        ({"body_seconds": None}, TypeError, "must be a number above 0; got None"),
        ({"body_seconds": float("nan")}, ValueError, "must be a number above 0; got nan"),
    ],
)
def test_invalid_request_limits_raise_with_name_and_value(
    options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=re.escape(message)):
        RequestLimits(**options)
