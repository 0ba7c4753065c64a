"""Requests, SDP, messages, configurations and early candidates, as text and JSON."""

from __future__ import annotations

import json
import re
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import example, given
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
from fastrtc_anyio._signaling.messages import dump_json, encode_message, load_json, mend_text
from fastrtc_anyio._signaling.requests import (
    MAX_ID_LENGTH,
    CandidateRequest,
    IceCandidate,
    OfferRequest,
    failure_body,
    parse_request,
)
from fastrtc_anyio.limits import MessageRate

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


@pytest.mark.parametrize("depth", [4, 100, *range(900, 1000)])
def test_short_repr_of_any_json_is_at_most_80_characters(depth: int) -> None:
    for text in ("[" * depth + "]" * depth, "9" * depth, f'"{"x" * depth}"', "1e400", "null"):
        try:
            value = json.loads(text)
        except RecursionError:
            continue
        assert 0 < len(short_repr(value)) <= 80


any_text = st.text(st.characters(exclude_categories=()))


@given(any_text)
@example("\ud83d\ude00")
@example("\ude00\ud83d")
@example("\ud83d")
@example("a\ud83db\U0001f600\ude00")
def test_mended_text_is_utf8_and_differs_in_surrogates_only(text: str) -> None:
    mended = mend_text(text)
    assert mended.encode().decode() == mended == mend_text(mended)
    joined = re.sub("[\ud800-\udbff][\udc00-\udfff]", lambda pair: mend_text(pair[0]), text)
    assert len(mended) == len(joined)
    for before, after in zip(joined, mended, strict=True):
        assert after == ("\ufffd" if "\ud800" <= before <= "\udfff" else before)


def test_halves_of_a_character_are_joined() -> None:
    assert mend_text("ha \ud83d\ude00 ha \ud83d") == "ha \U0001f600 ha \ufffd"


@given(json_values)
def test_json_for_clients_has_no_surrogate_and_no_nan(value: object) -> None:
    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    try:
        text = dump_json(value)
    except ValueError:
        assert re.search("NaN|Infinity", json.dumps(value))
        return
    text.encode()
    json.loads(text, parse_constant=refuse)


@given(st.sampled_from(["error", "warning", "log", "end_stream"]), st.none() | any_text)
def test_messages_are_json_with_type_and_reason(kind: str, data: str | None) -> None:
    encode_message(kind, data).encode()
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


@given(st.lists(st.integers(0, 20), max_size=30))
def test_early_candidates_of_many_ids_replace_those_of_the_same_client(ids: list[int]) -> None:
    early = EarlyCandidates(RequestLimits(early_clients=4))
    candidate = IceCandidate("1", "0")
    early.add("one", candidate, 0.0, client="other")
    early.add("two", candidate, 0.0)
    for number in ids:
        early.add(str(number), candidate, 0.0, client="flooding")
    assert early.take("one", 0.0) == [candidate]
    assert early.take("two", 0.0) == [candidate]
    if ids:
        assert early.take(str(ids[-1]), 0.0)


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


def test_json_with_too_many_parts_is_not_parsed() -> None:
    assert load_json("[" + "{}," * 9998 + "0]") is not None
    for text in (
        "[" + "{}," * 10_000 + "0]",
        "[" + "[]," * 10_000 + "0]",
        "[" + '"",' * 10_001 + "0]",
        b"[" * 300_000,
        "[" * 9_999,
        "9" * 5000,
        "\ud800",
    ):
        with pytest.raises(ValueError, match=r".") as info:
            load_json(text)
        assert not isinstance(info.value, RecursionError)


@given(st.one_of(st.text(), st.binary()))
def test_any_text_is_json_or_value_error(text: str | bytes) -> None:
    with suppress(ValueError):
        load_json(text)


def test_message_rate_is_averaged_over_ten_seconds() -> None:
    now = 0.0
    rate = MessageRate(RequestLimits(messages_per_second=5), lambda: now)
    for _ in range(50):
        rate.count()
    with pytest.raises(LimitExceeded, match=r"5 messages per second .*messages_per_second"):
        rate.count()
    now = 1.0
    for _ in range(5):
        rate.count()
    with pytest.raises(LimitExceeded):
        rate.count()
    now = 1000.0
    for _ in range(50):
        rate.count()
    with pytest.raises(LimitExceeded) as info:
        rate.count()
    assert info.value.status_hint == 429
