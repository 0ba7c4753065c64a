"""Framings: any text decodes to an event or the documented error; encoded events decode back."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fastrtc_anyio import InvalidMessage
from fastrtc_anyio._media.frames import Int16Array
from fastrtc_anyio._signaling.messages import DIGITS, encode_message, parse_digit
from fastrtc_anyio._wire.any_carrier import TelephoneFraming
from fastrtc_anyio._wire.events import (
    Clear,
    Event,
    Framing,
    KeyPressed,
    Malformed,
    Mark,
    Media,
    Other,
    Ping,
    Pong,
    Start,
    Stop,
    Text,
)
from fastrtc_anyio._wire.fastrtc import FastRTCFraming
from fastrtc_anyio._wire.payload import MULAW_8K, AudioEncoding, PayloadCodec
from fastrtc_anyio._wire.plivo import PlivoFraming
from fastrtc_anyio._wire.telnyx import TelnyxFraming
from fastrtc_anyio._wire.twilio import TwilioFraming
from fastrtc_anyio.testing.strategies import pcm, sample_rates

FRAMINGS = [FastRTCFraming, TwilioFraming, TelnyxFraming, PlivoFraming, TelephoneFraming]
KINDS = get_args(Event)

ALAW_8K = AudioEncoding("alaw", 8_000)
PCM_8K, PCM_16K = AudioEncoding("pcm16", 8_000), AudioEncoding("pcm16", 16_000)
L16_16K = AudioEncoding("l16", 16_000)

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=10,
)
WORDS = [
    "event", "start", "media", "mark", "dtmf", "stop", "connected", "clear", "ping", "payload",
    "streamSid", "stream_id", "streamId", "sequenceNumber", "sequence_number", "chunk", "track",
    "name", "digit", "mediaFormat", "media_format", "encoding", "sampleRate", "sample_rate",
    "customParameters", "websocket_id", "playedStream", "playAudio", "callId", "timestamp",
]  # fmt: skip
likely = st.sampled_from([*WORDS, "AAAA", "audio/x-mulaw", "PCMU", "mulaw", "pcm16", "1", 8000])
messages = st.dictionaries(
    st.sampled_from(WORDS),
    likely | json_values | st.dictionaries(st.sampled_from(WORDS), likely | json_values),
)
names = st.text(min_size=1, max_size=128)


@pytest.mark.parametrize("framing", FRAMINGS)
@settings(max_examples=50)
@given(st.lists(st.text() | (json_values | messages).map(json.dumps), min_size=1, max_size=3))
@example(["[" * 100_000])
@example(['{"event": "start", "websocket_id": %s}' % ("9" * 400)])
@example(['{"event": "start", "sample_rate": %s}' % ("9" * 400)])
@example(['{"event": "start", "start": %s}' % ("9" * 400)])
@example(['{"event": "start"}', '{"event": "media", "media": {"payload": %s}}' % ("9" * 400)])
@example(["1" * 5_000])
@example(['{"event": "start", "start": {"streamSid": "\\ud800", "mediaFormat": NaN}}'])
@example(['{"event": "media", "media": {"payload": "\\u00e9"}}'])
def test_any_text_decodes_to_an_event_or_invalid_message(framing: Any, texts: list[str]) -> None:
    read: Framing = framing()
    for text in texts:
        try:
            assert isinstance(read.decode(text), KINDS)
        except InvalidMessage as exc:
            message = str(exc)
        else:
            continue
        assert 0 < len(message) < 400


def starts(encodings: list[AudioEncoding], parameters: Any) -> st.SearchStrategy[Start]:
    return st.builds(Start, names, st.sampled_from(encodings), st.text(max_size=40), parameters)


def with_mulaw_out(start: Start) -> Start:
    """Add the encoding of the audio to Telnyx, which is mu-law for every call."""
    return replace(start, encoding_out=None if start.encoding == MULAW_8K else MULAW_8K)


numbers = st.integers(0, 2**50)
media = st.builds(Media, st.binary(max_size=400)) | st.builds(
    Media, st.binary(max_size=400), numbers, st.none() | numbers
)
marks = st.builds(Mark, names)
keys = st.sampled_from(DIGITS).map(KeyPressed)
plain: st.SearchStrategy[Event] = st.sampled_from([Clear(), Stop()])
anything = st.dictionaries(st.text(max_size=10), st.text(max_size=10), max_size=3)
headers: st.SearchStrategy[dict[str, str]] = st.text(min_size=1).map(
    lambda text: {"extra_headers": text}
) | st.just({})


@pytest.mark.parametrize(
    ("framing", "begin"),
    [
        (TwilioFraming, starts([MULAW_8K], anything)),
        (TelnyxFraming, starts([MULAW_8K, ALAW_8K], anything).map(with_mulaw_out)),
        (PlivoFraming, starts([MULAW_8K, PCM_8K, PCM_16K], headers)),
    ],
)
@given(data=st.data())
def test_events_of_carriers_decode_to_the_encoded_event(
    framing: Any, begin: Any, data: st.DataObject
) -> None:
    write: Framing = framing()
    for read in (framing(), TelephoneFraming()):
        start = data.draw(begin)
        assert read.decode(write.encode(start) or "") == start
        for event in data.draw(st.lists(media | marks | keys | plain)):
            assert read.decode(write.encode(event) or "") == event
        assert write.encode(Ping()) is None


@given(
    st.builds(Media, st.binary(max_size=400))
    | st.sampled_from([Ping(), Pong(), Stop()])
    | st.builds(
        Start,
        st.none() | names,
        st.none() | st.builds(AudioEncoding, st.sampled_from(["mulaw", "pcm16"]), sample_rates()),
    )
    | st.text().filter(lambda text: not text.startswith("{")).map(Text)
    | json_values.map(json.dumps).filter(lambda text: '"event"' not in text).map(Text)
)
def test_events_of_fastrtc_decode_to_the_encoded_event(event: Any) -> None:
    framing = FastRTCFraming()
    text = framing.encode(event)
    assert text is not None
    assert framing.decode(text) == event
    assert framing.encode(Mark("a")) is None
    assert framing.encode(Clear()) is None


def cut(data: bytes, sizes: list[int]) -> list[bytes]:
    """Cut bytes into pieces of these sizes, and the rest."""
    ends = np.cumsum([0, *sizes])
    return [data[a:b] for a, b in zip(ends, [*ends[1:], len(data)], strict=True)]


@pytest.mark.parametrize("codec", ["pcm16", "l16", "mulaw", "alaw"])
@pytest.mark.parametrize("order", [">i2", "<i2"])
@given(samples=pcm(1), sizes=st.lists(st.integers(0, 9), max_size=20))
def test_payloads_cut_anywhere_decode_to_the_samples(
    codec: Any, order: str, samples: Int16Array, sizes: list[int]
) -> None:
    encoding = AudioEncoding(codec, 8_000)
    whole, pieces = (PayloadCodec(encoding, encoding) for _ in range(2))
    for one in (whole, pieces):  # speech, which shows the order of L16
        one.decode(np.round(1000 * np.sin(np.arange(320) / 10)).astype(order).tobytes())
    sent = whole.encode(samples)
    expected = whole.decode(sent)
    if encoding.sample_bytes == 2:
        assert (expected == samples).all()
    heard = [pieces.decode(piece) for piece in cut(sent, sizes)]
    assert (np.concatenate(heard, axis=1) == expected).all()
    assert not pieces.has_rest


@given(st.integers(1, 9), st.integers(1, 3), st.integers(4, 8))
def test_samples_stay_whole_behind_lost_payloads_of_equal_size(
    size: int, lost: int, at: int
) -> None:
    sent = np.arange(1000, 1100, dtype="<i2").tobytes()
    pieces = [sent[i : i + size] for i in range(0, len(sent), size)]
    codec = PayloadCodec(PCM_8K, PCM_8K)
    before = [codec.decode(piece) for piece in pieces[:at]]
    after = [codec.decode(pieces[at + lost], lost)]
    after += [codec.decode(piece) for piece in pieces[at + lost + 1 :]]
    heard = np.concatenate([*before, *after], axis=1)[0]
    assert set(heard) <= set(range(1000, 1100))
    assert heard.size >= (len(sent) - (lost + 1) * size) // 2 - 1


@pytest.mark.parametrize(
    ("framing", "message", "error"),
    [
        (TwilioFraming, "no", "the message is not JSON"),
        (TwilioFraming, "[]", 'must be a JSON object with a string "event"'),
        (TwilioFraming, '{"event": "start", "start": {}}', '"streamSid" must be a string'),
        (TwilioFraming, '{"event": "media", "sequenceNumber": "x"}', '"media" must be an object'),
        (PlivoFraming, '{"event": "media", "media": {}}', "must be a base64 string; got None"),
        (TelnyxFraming, '{"event": "start", "stream_id": "a", "start": {"media_format": '
         '{"encoding": "OPUS", "sample_rate": 16000}}}', "must be PCMU or PCMA"),
        (PlivoFraming, '{"event": "start", "start": {"streamId": "a", "mediaFormat": '
         '{"encoding": "audio/x-l16", "sampleRate": 44100}}}', "must be audio/x-mulaw"),
        (TelephoneFraming, '{"event": "start", "start": {}}', "(Twilio)"),
        (FastRTCFraming, '{"event": "start", "sample_rate": 44101}', "48000 Hz; got 44101"),
    ],
)  # fmt: skip
def test_errors_state_the_given_value(framing: Any, message: str, error: str) -> None:
    with pytest.raises(InvalidMessage) as caught:
        framing().decode(message)
    assert error in str(caught.value)


@pytest.mark.parametrize(
    ("framing", "message", "why"),
    [
        (TwilioFraming, {"event": "dtmf", "dtmf": {"digit": "10"}}, "got '10'"),
        (TwilioFraming, {"event": "dtmf"}, '"dtmf" must be an object; got None'),
        (TelnyxFraming, {"event": "mark", "mark": {"name": 7}}, '"name" must be a string'),
        (PlivoFraming, {"event": "playedStream"}, '"name" must be a string'),
    ],
)
def test_events_with_a_malformed_field_are_malformed(framing: Any, message: Any, why: str) -> None:
    event = framing().decode(json.dumps(message))
    assert isinstance(event, Malformed)
    assert why in event.why


@pytest.mark.parametrize("number", ["x", -1, True, 2**60, 1.5, None, [], "9" * 400])
def test_audio_with_malformed_numbers_is_audio(number: Any) -> None:
    media = {"chunk": number, "timestamp": number, "payload": "AAAA"}
    message = {"event": "media", "sequenceNumber": number, "media": media}
    assert TwilioFraming().decode(json.dumps(message)) == Media(bytes(3))


@pytest.mark.parametrize("order", [">i2", "<i2"])
@given(samples=pcm(1), level=st.integers(1, 12))
def test_telnyx_byte_order_is_detected_from_the_audio(
    order: str, samples: Int16Array, level: int
) -> None:
    speech = np.round(2**level * np.sin(np.arange(320) / 10)).astype(np.int16)
    start = TelnyxFraming("L16").decode(TelnyxFraming().encode(Start("a", L16_16K)) or "")
    assert isinstance(start, Start)
    assert start.encoding == L16_16K
    codec = PayloadCodec(L16_16K, L16_16K)
    for sound in (speech, samples[0, :0]):
        assert (codec.decode(sound.astype(order).tobytes()) == sound).all()
    assert codec.encode(samples) == samples[0].astype(order).tobytes()


def test_telnyx_start_has_both_encodings_if_they_differ() -> None:
    start = TelnyxFraming("PCMA").decode(TelnyxFraming().encode(Start("a", MULAW_8K)) or "")
    assert isinstance(start, Start)
    assert (start.encoding, start.encoding_out) == (MULAW_8K, ALAW_8K)


def test_message_of_another_stream_is_rejected() -> None:
    write, read = TwilioFraming(), TwilioFraming()
    read.decode(write.encode(Start("MZ1")) or "")
    write.stream_id = "MZ2"
    with pytest.raises(InvalidMessage, match="got 'MZ2' after 'MZ1'"):
        read.decode(write.encode(Media(b"", 1)) or "")


def test_outbound_media_is_ignored() -> None:
    text = '{"event": "media", "media": {"track": "outbound", "payload": ""}}'
    assert isinstance(TwilioFraming().decode(text), Other)


@given(st.text())
@example('{"type": "dtmf", "data": 5}')
@example('{"type": "dtmf", "data": "55"}')
@example('"dtmf')
def test_parse_digit_ignores_other_messages(text: str) -> None:
    assert parse_digit(text) is None


def test_parse_digit_reads_encoded_keys() -> None:
    assert [parse_digit(encode_message("dtmf", digit)) for digit in DIGITS] == list(DIGITS)
