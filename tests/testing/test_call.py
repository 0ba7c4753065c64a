"""Features of `open_call` besides a handler's audio: voices, keys, messages, warnings."""

from __future__ import annotations

import inspect
import warnings
from typing import Any, cast

import anyio
import numpy as np
import pytest
from anyio.lowlevel import checkpoint

from fastrtc_anyio import (
    AsyncStreamHandler,
    EnergyVad,
    ReplyOnPause,
    Session,
    SileroVadOptions,
    Stream,
    UnsupportedFormat,
    get_silero_model,
)
from fastrtc_anyio.testing import (
    NoSpeechWarning,
    OpenCall,
    open_call,
    speech_like,
    spoken,
    tone,
)
from fastrtc_anyio.testing.recordings import RECORDINGS


class Listener(AsyncStreamHandler):
    """Records what arrives, and sends messages."""

    def __init__(self) -> None:
        super().__init__()
        self.keys: list[str] = []
        self.texts: list[str] = []
        self.rates: set[int] = set()

    async def receive(self, frame: tuple[int, Any]) -> None:
        self.rates.add(frame[0])

    async def emit(self) -> None:
        await anyio.sleep_forever()

    def on_dtmf(self, digit: str) -> None:
        self.keys.append(digit)

    async def on_message(self, message: str) -> None:
        self.texts.append(message)
        await self.send_message("no JSON")
        await self.send_message("[1]")
        await self.send_message('{"type": "other"}')
        await self.send_message('{"type": "answer", "data": {"text": "ä"}}')

    def copy(self) -> Listener:
        return Listener()


@pytest.mark.parametrize("text", RECORDINGS)
def test_silero_accepts_each_recording(text: str) -> None:
    rate, samples = spoken(text)
    stream = get_silero_model().new_stream()
    assert rate == 16_000
    assert samples.dtype == np.int16
    assert samples.shape[0] == 1
    windows = range(0, samples.shape[1] - 511, 512)
    found = [stream.probability(samples[:, start : start + 512]) > 0.5 for start in windows]
    assert sum(found) * 0.032 > 0.3


def test_text_of_recording_ignores_case_and_punctuation() -> None:
    assert np.array_equal(spoken("what TIME is it")[1], spoken("What time is it?")[1])
    assert np.array_equal(spoken()[1], spoken("hello how are you today")[1])


def test_each_recording_is_a_new_array() -> None:
    spoken()[1][:] = 0
    assert spoken()[1].any()


def test_unknown_text_lists_the_recorded_ones() -> None:
    with pytest.raises(ValueError, match=r"text must be one of 'Hello, .*'Stop\.'; got 'Bonjour'"):
        spoken("Bonjour")


async def test_keys_arrive_one_by_one(open_call: OpenCall) -> None:
    handler = Listener()
    async with open_call(handler, phone=True) as call:
        call.press("5")
        call.press("*#")
        await anyio.sleep(0.1)
    assert handler.keys == ["5", "*", "#"]


@pytest.mark.parametrize("keys", ["", "x", "12 3", "\u0661"])
async def test_other_characters_are_not_keys(open_call: OpenCall, keys: str) -> None:
    async with open_call(Listener()) as call:
        with pytest.raises(ValueError, match="keys must be characters of '0123456789"):
            call.press(keys)


async def test_telephone_has_8_khz_and_no_messages(open_call: OpenCall) -> None:
    class Caller(Listener):
        async def start_up(self) -> None:
            await self.send_message("{}")

    handler = Caller()
    async with open_call(handler, phone=True) as call:
        await call.speak(np.repeat(tone(440, 48_000, 0.5), 2, axis=0))
        assert call.session.audio_out.sample_rate == 8_000
        with anyio.move_on_after(1) as waiting:
            await call.client.receive_message()
    assert waiting.cancelled_caught
    assert handler.phone_mode


async def test_messages_are_objects_or_texts(open_call: OpenCall) -> None:
    handler = Listener()
    async with open_call(handler) as call:
        call.send_message({"type": "greeting", "data": "ä"})
        assert await call.receive_message() == {"type": "other"}
        assert await call.receive_message("answer") == {"type": "answer", "data": {"text": "ä"}}
        call.send_message("text")
        await call.receive_message("answer")
    assert handler.texts == ['{"type": "greeting", "data": "ä"}', "text"]


async def test_waiting_for_a_message_ends_with_the_call(open_call: OpenCall) -> None:
    async with open_call(Listener()) as call:
        call.client.hang_up()
        with pytest.raises(anyio.EndOfStream):
            await call.receive_message("never")


@pytest.mark.parametrize(
    ("act", "error", "message"),
    [
        (lambda call: call.speak(None), UnsupportedFormat, "samples must be .*; got None"),
        (lambda call: call.speak(spoken), UnsupportedFormat, "samples must be .*; got <function"),
        (
            lambda call: call.speak((np.zeros(960, np.int16), 48_000)),
            UnsupportedFormat,
            r"sample rate must be .*; got int16 array of shape \(960,\)",
        ),
        (lambda call: call.speak(np.zeros(960, np.int16), 0), UnsupportedFormat, "rate .* got 0"),
        (lambda call: call.press(5), TypeError, "keys must be a str; got 5"),
        (lambda call: call.send_message(None), TypeError, "message must be .*; got None"),
        (
            lambda call: call.session.messages.send_nowait({"a": 1}),
            TypeError,
            "message must be a str; got {'a': 1}",
        ),
        (lambda call: call.session.send_outputs(5), TypeError, "outputs must be .*; got 5"),
    ],
)
async def test_wrong_argument_is_an_error_that_shows_it(
    open_call: OpenCall, act: Any, error: type[Exception], message: str
) -> None:
    async with open_call(Listener()) as call:
        with pytest.raises(error, match=message):
            await as_coroutine(act, call)


async def as_coroutine(function: Any, *args: Any) -> None:
    result = function(*args)
    if inspect.isawaitable(result):
        await result
    await checkpoint()


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"modality": "sound"}, ValueError, "modality must be one of .*; got 'sound'"),
        ({"limits": 5}, TypeError, "limits must be a Limits or None; got 5"),
        ({"inputs": "a"}, TypeError, "inputs must be a tuple; got 'a'"),
        ({"uplink": 0.1}, TypeError, r"uplink must be a LinkFaults or None; got 0\.1"),
        ({"thread_limit": 0}, ValueError, "thread_limit must be a number above 0 s; got 0"),
        ({"output_buffer_s": 0}, ValueError, "output_buffer_s must be .*; got 0"),
        ({"handler": Stream(Listener, modality="audio")}, TypeError, r"pass stream\.handler"),
        ({"handler": None}, TypeError, "handler must be .*; got None"),
    ],
)
async def test_wrong_option_is_an_error_that_shows_it(
    open_call: OpenCall, options: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        await call_with_nothing(open_call, **{"handler": Listener(), **options})


async def call_with_nothing(open_call: OpenCall, handler: Any, **options: Any) -> None:
    async with open_call(handler, **options):
        await checkpoint()


@pytest.mark.parametrize("samples", [np.full(4_800, 0.5, np.float32), np.ones(4_800, np.int16)])
async def test_flat_and_float_audio_is_spoken(open_call: OpenCall, samples: Any) -> None:
    async with open_call(Listener()) as call:
        await call.speak(samples)
        assert call.session.statistics().audio_in.received == 5  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: spoken(cast(Any, 5)), TypeError, "text must be a str or None; got 5"),
        (lambda: tone(cast(Any, "a"), 48_000, 1), TypeError, "frequency must be a number; got 'a'"),
        (lambda: tone(440, 0, 1), ValueError, "sample_rate must be .*; got 0"),
        (lambda: speech_like(48_000, -1), ValueError, "seconds must be .*; got -1"),
    ],
)
def test_wrong_argument_of_a_signal_is_an_error_that_shows_it(
    make: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        make()


async def test_object_without_json_is_an_error(open_call: OpenCall) -> None:
    async with open_call(Listener()) as call:
        with pytest.raises(TypeError):
            call.send_message({"data": object()})


def parrot(**options: Any) -> ReplyOnPause:
    async def answer(audio: Any) -> Any:
        yield audio

    return ReplyOnPause(answer, **options)


async def call_with_a_tone(open_call: OpenCall, handler: Any) -> None:
    async with open_call(handler) as call:
        await call.speak(tone(440, 48_000, 1))
        await anyio.sleep(2)


class Deaf:
    """A model that never detects speech."""

    sample_rate, window, blocking = 16_000, 512, False

    def new_stream(self) -> Any:
        return self

    def probability(self, window: Any) -> float:
        return 0.3


class Impatient(ReplyOnPause):
    def determine_pause(self, audio: Any, sampling_rate: int, state: Any) -> bool:
        return False


async def take_turns(session: Session) -> None:
    async for utterance in session.utterances():
        await utterance.reply(utterance.audio)


@pytest.mark.parametrize(
    ("handler", "message"),
    [
        (parrot(), r"SileroVad detected no speech in 1\.0 s .* not take tones .*spoken\(\)"),
        (take_turns, "SileroVad detected no speech"),
        (parrot(model=EnergyVad(quietest_dbfs=0)), r"EnergyVad detected .*No probability .* 0\.5"),
        (
            parrot(model=Deaf(), model_options=SileroVadOptions(threshold=0.4)),
            r"Deaf detected .*No probability .* 0\.4 or more",
        ),
        (Impatient(parrot().fn), r"Impatient\.determine_pause .* state\.started_talking"),
    ],
)
async def test_sound_without_speech_is_a_warning_that_names_the_detector(
    open_call: OpenCall, handler: Any, message: str
) -> None:
    with pytest.warns(NoSpeechWarning, match=message):
        await call_with_a_tone(open_call, handler)


@pytest.mark.parametrize(
    ("handler", "audio"),
    [
        (parrot(), spoken()),
        (parrot(model=EnergyVad()), (48_000, speech_like(48_000, 1))),
        (parrot(), (48_000, np.zeros((1, 48_000), np.int16))),  # the client sends silence
        (Listener(), (48_000, tone(440, 48_000, 1))),  # no turns
        (take_turns, spoken()),
    ],
)
async def test_no_warning(open_call: OpenCall, handler: Any, audio: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        async with open_call(handler) as call:
            await call.speak(audio)


async def test_error_of_the_handler_comes_without_the_warning(open_call: OpenCall) -> None:
    class Broken(ReplyOnPause):
        async def start_up(self) -> None:
            raise OSError("broken")

    async def answer(audio: Any) -> Any:
        yield audio

    with pytest.raises(OSError, match="broken"):
        async with open_call(Broken(answer)) as call:
            await call.speak(tone(440, 48_000, 0.1))


def test_type_has_the_arguments_of_the_function() -> None:
    function, protocol = inspect.signature(open_call), inspect.signature(OpenCall.__call__)
    assert [*protocol.parameters.values()][1:] == [*function.parameters.values()]
