"""The framings: any text is an event or the documented error, and what is written is read back."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fastrtc_anyio import InvalidMessage
from fastrtc_anyio.media.frames import Int16Array
from fastrtc_anyio.protocol.messages import DIGITS, encode_message, parse_digit
from fastrtc_anyio.protocol.origins import check_origins, is_allowed
from fastrtc_anyio.protocol.sockets.events import (
    Clear,
    Connected,
    Event,
    Framing,
    KeyPressed,
    Mark,
    Media,
    Other,
    Ping,
    Pong,
    Start,
    Stop,
    Text,
)
from fastrtc_anyio.protocol.sockets.fastrtc import FastRTCFraming
from fastrtc_anyio.protocol.sockets.payload import MULAW_8K, AudioEncoding
from fastrtc_anyio.protocol.sockets.plivo import PlivoFraming
from fastrtc_anyio.protocol.sockets.telephone import TelephoneFraming
from fastrtc_anyio.protocol.sockets.telnyx import TelnyxFraming
from fastrtc_anyio.protocol.sockets.twilio import TwilioFraming
from fastrtc_anyio.protocol.telephone import TelephoneOptions, answer_call, is_signed, sign_request
from fastrtc_anyio.testing.strategies import pcm, sample_rates

FRAMINGS = [FastRTCFraming, TwilioFraming, TelnyxFraming, PlivoFraming, TelephoneFraming]
KINDS = Connected | Start | Media | Mark | Clear | KeyPressed | Ping | Pong | Stop | Text | Other

ALAW_8K = AudioEncoding("alaw", 8_000)
PCM_8K, PCM_16K = AudioEncoding("pcm16", 8_000), AudioEncoding("pcm16", 16_000)

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=10,
)
WORDS = [
    "event", "start", "media", "mark", "dtmf", "stop", "connected", "clear", "ping", "payload",
    "streamSid", "stream_id", "streamId", "sequenceNumber", "sequence_number", "chunk", "track",
    "name", "digit", "mediaFormat", "media_format", "encoding", "sampleRate", "sample_rate",
    "customParameters", "websocket_id", "playedStream", "playAudio", "callId",
]  # fmt: skip
likely = st.sampled_from([*WORDS, "AAAA", "audio/x-mulaw", "PCMU", "mulaw", "pcm16", "1", 8000])
messages = st.dictionaries(
    st.sampled_from(WORDS),
    likely | json_values | st.dictionaries(st.sampled_from(WORDS), likely | json_values),
)
names = st.text(min_size=1, max_size=128)


@pytest.mark.parametrize("framing", FRAMINGS)
@given(st.lists(st.text() | (json_values | messages).map(json.dumps), min_size=1, max_size=3))
@example(["[" * 100_000])
@example(["1" * 5_000])
@example(['{"event": "start", "start": {"streamSid": "\\ud800", "mediaFormat": NaN}}'])
@example(['{"event": "media", "media": {"payload": "\\u00e9"}}'])
def test_any_text_is_an_event_or_the_documented_error(framing: Any, texts: list[str]) -> None:
    read: Framing = framing()
    for text in texts:
        try:
            assert isinstance(read.decode(text), KINDS)
        except InvalidMessage as exc:
            said = str(exc)
        else:
            continue
        assert 0 < len(said) < 400


def starts(encodings: list[AudioEncoding], parameters: Any) -> st.SearchStrategy[Start]:
    return st.builds(Start, names, st.sampled_from(encodings), st.text(max_size=40), parameters)


media = st.builds(Media, st.binary(max_size=400), st.none() | st.integers(0, 2**50))
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
        (TelnyxFraming, starts([MULAW_8K, ALAW_8K], anything)),
        (PlivoFraming, starts([MULAW_8K, PCM_8K, PCM_16K], headers)),
    ],
)
@given(data=st.data())
def test_a_carriers_events_are_read_as_they_were_written(
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
def test_fastrtcs_events_are_read_as_they_were_written(event: Any) -> None:
    framing = FastRTCFraming()
    text = framing.encode(event)
    assert text is not None
    assert framing.decode(text) == event
    assert framing.encode(Mark("a")) is None
    assert framing.encode(Clear()) is None


@given(pcm(1))
def test_pcm_is_exact(samples: Int16Array) -> None:
    assert (PCM_8K.decode(PCM_8K.encode(samples)) == samples).all()


@pytest.mark.parametrize(
    ("framing", "message", "error"),
    [
        (TwilioFraming, "no", "the message is not JSON"),
        (TwilioFraming, "[]", 'must be a JSON object with a string "event"'),
        (TwilioFraming, '{"event": "dtmf", "dtmf": {"digit": "10"}}', "got '10'"),
        (TwilioFraming, '{"event": "start", "start": {}}', '"streamSid" must be a string'),
        (TwilioFraming, '{"event": "media", "sequenceNumber": "x"}', "must be a whole number"),
        (TelnyxFraming, '{"event": "start", "stream_id": "a", "start": {"media_format": '
         '{"encoding": "OPUS", "sample_rate": 16000}}}', "must be PCMU or PCMA"),
        (PlivoFraming, '{"event": "start", "start": {"streamId": "a", "mediaFormat": '
         '{"encoding": "audio/x-l16", "sampleRate": 44100}}}', "must be audio/x-mulaw"),
        (TelephoneFraming, '{"event": "start", "start": {}}', "(Twilio)"),
    ],
)  # fmt: skip
def test_errors_say_what_was_got(framing: Any, message: str, error: str) -> None:
    with pytest.raises(InvalidMessage) as caught:
        framing().decode(message)
    assert error in str(caught.value)


def test_another_stream_on_the_same_socket_is_refused() -> None:
    write, read = TwilioFraming(), TwilioFraming()
    read.decode(write.encode(Start("MZ1")) or "")
    write.stream_id = "MZ2"
    with pytest.raises(InvalidMessage, match="must be 'MZ1'; got 'MZ2'"):
        read.decode(write.encode(Media(b"", 1)) or "")


def test_what_the_caller_hears_is_not_heard_by_the_handler() -> None:
    text = '{"event": "media", "media": {"track": "outbound", "payload": ""}}'
    assert isinstance(TwilioFraming().decode(text), Other)


@given(st.text())
@example('{"type": "dtmf", "data": 5}')
@example('{"type": "dtmf", "data": "55"}')
@example('"dtmf')
def test_other_messages_are_no_keys(text: str) -> None:
    assert parse_digit(text) is None


def test_a_key_is_a_message() -> None:
    assert [parse_digit(encode_message("dtmf", digit)) for digit in DIGITS] == list(DIGITS)


# The examples of Twilio's documentation of request validation.
TOKEN = "12345"
URL = "https://mycompany.com/myapp.php?foo=1&bar=2"
FORM = [
    ("CallSid", "CA1234567890ABCDE"),
    ("Caller", "+14158675309"),
    ("Digits", "1234"),
    ("From", "+14158675309"),
    ("To", "+18005551212"),
]
SIGNATURE = "RSOYDt4T1cUTdK1PDd93/VVr8B8="


def test_twilios_own_example_of_a_signature() -> None:
    assert sign_request(TOKEN, URL, FORM) == SIGNATURE
    assert is_signed(TOKEN, SIGNATURE, URL, FORM[::-1])
    assert is_signed(TOKEN, SIGNATURE, URL.replace(".com/", ".com:443/"), FORM)
    assert not is_signed(TOKEN, SIGNATURE, URL, FORM[1:])
    assert not is_signed("54321", SIGNATURE, URL, FORM)
    assert not is_signed(TOKEN, "", URL, FORM)


@given(st.text(), st.text())
def test_any_signature_is_right_or_wrong(signature: str, path: str) -> None:
    assert not is_signed(TOKEN, signature, f"wss://example.com/{path}")


@pytest.mark.parametrize("end", ["", "/"])
def test_a_websockets_signature_with_and_without_a_slash(end: str) -> None:
    signature = sign_request(TOKEN, f"wss://example.com/handler{end}")
    assert is_signed(TOKEN, signature, "wss://example.com/handler")


def test_the_answer_to_a_call() -> None:
    url = 'wss://example.com:8443/a?b="c"'
    twilio = answer_call(url, TelephoneOptions(greeting="A & B"))
    written = 'url="wss://example.com:8443/a?b=&quot;c&quot;"'
    assert f"<Say>A &amp; B</Say><Connect><Stream {written}/>" in twilio
    assert 'bidirectionalMode="rtp"' in answer_call(url, TelephoneOptions("telnyx"))
    assert 'bidirectional="true"' in answer_call(url, TelephoneOptions("plivo"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"carrier": "bell"}, "got 'bell'"),
        ({"carrier": "plivo", "auth_token": "x"}, "auth_token is Twilio's"),
        ({"auth_token": ""}, "must not be empty"),
        ({"public_url": "example.com"}, "like https://example.com"),
    ],
)
def test_options_that_are_not_possible(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TelephoneOptions(**options)


def test_a_token_is_not_shown() -> None:
    assert "secret" not in repr(TelephoneOptions(auth_token="secret"))


@pytest.mark.parametrize(
    ("origin", "host", "allowed", "verdict"),
    [
        (None, "example.com", [], True),
        ("https://example.com", "example.com", [], True),
        ("https://example.com", "Example.com:443", [], True),
        ("http://example.com:7860", "example.com:7860", [], True),
        ("http://example.com:7860", "example.com", [], False),
        ("https://example.com.evil.org", "example.com", [], False),
        ("null", "example.com", [], False),
        ("", "", [], False),
        ("https://other.org", "example.com", ["https://OTHER.org"], True),
        ("http://other.org", "example.com", ["https://other.org"], False),
        ("null", "example.com", ["*"], True),
    ],
)
def test_origins(origin: str | None, host: str, allowed: list[str], verdict: bool) -> None:
    assert is_allowed(origin, host, check_origins(allowed)) is verdict


def test_settings_of_origins_that_are_not_possible() -> None:
    for wrong in (["example.com"], ["https://example.com/"], ["https://"]):
        with pytest.raises(ValueError, match="allowed_origins"):
            check_origins(wrong)
    with pytest.raises(TypeError, match="is a list"):
        check_origins("https://example.com")
