"""What `open_call` offers beside a handler's audio: voices, keys, messages, warnings."""

from __future__ import annotations

import inspect
import warnings
from typing import Any

import anyio
import numpy as np
import pytest

from fastrtc_anyio import AsyncStreamHandler, EnergyVad, ReplyOnPause, get_silero_model
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
async def test_other_characters_are_no_keys(open_call: OpenCall, keys: str) -> None:
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


async def test_object_without_json_is_an_error(open_call: OpenCall) -> None:
    async with open_call(Listener()) as call:
        with pytest.raises(TypeError):
            call.send_message({"data": object()})


def parrot(**options: Any) -> ReplyOnPause:
    async def answer(audio: Any) -> Any:
        yield audio

    return ReplyOnPause(answer, **options)


async def call_with_a_tone(open_call: OpenCall) -> None:
    async with open_call(parrot()) as call:
        await call.speak(tone(440, 48_000, 1))
        await anyio.sleep(2)


async def test_tone_is_not_speech_to_silero(open_call: OpenCall) -> None:
    with pytest.warns(NoSpeechWarning, match=r"no speech in 1\.0 s of audio .*spoken\(\)"):
        await call_with_a_tone(open_call)


@pytest.mark.parametrize(
    ("handler", "audio"),
    [
        (parrot(), spoken()),
        (parrot(model=EnergyVad()), (48_000, speech_like(48_000, 1))),
        (parrot(), (48_000, np.zeros((1, 48_000), np.int16))),  # nothing was said
        (Listener(), (48_000, tone(440, 48_000, 1))),  # no turns
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
