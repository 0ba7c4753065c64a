"""Handler classes on their own: settings, inputs, and checks before a session starts."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest

from fastrtc_anyio import (
    AsyncAudioVideoStreamHandler,
    AsyncStreamHandler,
    AudioFrame,
    AudioVideoStreamHandler,
    HandlerContractError,
    Played,
    ReplyOnPause,
    Stream,
    StreamHandler,
    StreamHandlerBase,
    WebRTCData,
)
from fastrtc_anyio._driver import HandlerDriver, check_handler
from fastrtc_anyio._media.av_frames import from_av, to_av
from fastrtc_anyio.speech.energy import EnergyVad
from fastrtc_anyio.testing import tone, tone_snr


def answer(audio: Any) -> Any:
    yield audio


class Plain(StreamHandler):
    def receive(self, frame: Any) -> None: ...
    def emit(self) -> None: ...
    def copy(self) -> Plain:
        return Plain()


class Async(AsyncStreamHandler):
    async def receive(self, frame: Any) -> None: ...
    async def emit(self) -> None: ...
    def copy(self) -> Async:
        return Async()


@pytest.fixture(params=[Plain, Async])
def handler(request: pytest.FixtureRequest) -> StreamHandlerBase:
    made: StreamHandlerBase = request.param()
    return made


def test_handler_defaults_are_fastrtcs(handler: StreamHandlerBase) -> None:
    assert handler.expected_layout == "mono"
    assert handler.output_sample_rate == 24_000
    assert handler.output_frame_size == 480
    assert handler.input_sample_rate == 48_000
    assert handler.fps == 30
    assert handler.channel is None
    assert handler.latest_args == []
    assert handler.phone_mode is False
    assert not handler.args_set.is_set()
    assert not handler.channel_set.is_set()


def test_handler_parameters_have_fastrtcs_order() -> None:
    class Positional(Plain):
        def __init__(self) -> None:
            super().__init__("stereo", 16_000, 320, 8_000, 25)

    made = Positional()
    assert made.expected_layout == "stereo"
    assert (made.output_sample_rate, made.input_sample_rate, made.fps) == (16_000, 8_000, 25)


def test_output_frame_size_is_deprecated_and_has_no_effect() -> None:
    with pytest.warns(UserWarning, match=r"24000 Hz is 480 samples; got 960"):
        made = _make(output_frame_size=960)
    assert made.output_frame_size == 480
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert _make(output_frame_size=480).output_frame_size == 480


@pytest.mark.parametrize(
    ("handler", "channels"),
    [
        (Plain(), (1, 1)),
        (Plain("stereo", input_sample_rate=16_000), (2, 2)),
        # A conversation listens in mono. Its answers may be in stereo.
        (ReplyOnPause(answer, expected_layout="stereo", model=EnergyVad()), (2, 1)),
    ],
)
def test_driver_asks_for_the_format_of_the_handler(
    handler: StreamHandlerBase, channels: tuple[int, int]
) -> None:
    needs = HandlerDriver(handler).needs
    assert (needs.channels, needs.input_channels) == channels
    assert needs.sample_rate == handler.output_sample_rate
    assert needs.input_sample_rate == handler.input_sample_rate


@pytest.mark.parametrize("name", ["output_sample_rate", "input_sample_rate"])
@pytest.mark.parametrize("rate", [11_025, 7_950, 48_050, 96_000])
def test_sample_rates_without_whole_frames_are_refused(name: str, rate: int) -> None:
    with pytest.raises(ValueError, match=rf"{name}.*{rate}"):
        _make(**{name: rate})


@pytest.mark.parametrize("rate", [8_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000])
def test_sample_rates_with_whole_frames_are_accepted(rate: int) -> None:
    made = _make(output_sample_rate=rate, input_sample_rate=rate)
    assert made.output_frame_size * 50 == rate


def test_unknown_layout_is_refused() -> None:
    with pytest.raises(ValueError, match="'quad'"):
        _make(expected_layout="quad")


@pytest.mark.parametrize(
    ("base", "names"),
    [
        (StreamHandler, {"receive", "emit", "copy"}),
        (AsyncStreamHandler, {"receive", "emit", "copy"}),
        (AudioVideoStreamHandler, {"receive", "emit", "copy", "video_receive", "video_emit"}),
        (AsyncAudioVideoStreamHandler, {"receive", "emit", "copy", "video_receive", "video_emit"}),
    ],
)
def test_handler_base_classes_have_abstract_methods(
    base: type[StreamHandlerBase], names: set[str]
) -> None:
    assert base.__abstractmethods__ == names
    with pytest.raises(TypeError):
        base()


def test_set_args_sets_latest_args_and_opens_args_set(handler: StreamHandlerBase) -> None:
    handler.set_args([1, "two"])
    assert handler.latest_args == ["__webrtc_value__", 1, "two"]
    assert handler.args_set.is_set()
    handler.reset()
    assert not handler.args_set.is_set()
    handler.set_args([])
    assert handler.latest_args == ["__webrtc_value__"]
    data = WebRTCData("id", textbox="hello")
    handler.set_args([data, 3])
    assert handler.latest_args == [data, 3]
    with pytest.raises(TypeError, match=r"args must be a list; got \(1,\)"):
        handler.set_args((1,))  # type: ignore[arg-type]


def test_session_parts_are_unavailable_before_the_session_starts(
    handler: StreamHandlerBase,
) -> None:
    for name in ("loop", "portal"):
        with pytest.raises(RuntimeError, match=f"{type(handler).__name__}.{name} exists once"):
            getattr(handler, name)
    assert handler.clear_queue() == Played(0, 0.0)
    handler.send_message_sync("dropped")


async def test_send_message_before_the_session_starts_has_no_effect() -> None:
    await Async().send_message("dropped")


def test_phone_mode_is_writable(handler: StreamHandlerBase) -> None:
    handler.phone_mode = True
    assert handler.phone_mode


async def test_wait_for_args_returns_at_once_for_a_telephone() -> None:
    made = Async()
    made.phone_mode = True
    await made.wait_for_args()
    assert made.args_set.is_set()


def test_resample_preserves_a_tone_across_frames() -> None:
    made = _make(input_sample_rate=16_000)
    sent = tone(440, 48_000, 1.0)
    out = [
        from_av(frame)
        for start in range(0, sent.shape[1], 960)
        for frame in made.resample(to_av(AudioFrame(48_000, sent[:, start : start + 960])))
    ]
    assert {frame.sample_rate for frame in out} == {16_000}
    heard = np.concatenate([frame.samples[0] for frame in out])
    assert tone_snr(heard[800:-800], 440, 16_000) > 60


class WrongCopies(Plain):
    copies: Any = None

    def copy(self) -> Any:
        return self if self.copies == "self" else self.copies


@pytest.mark.parametrize("copies", ["self", None, Plain()])
def test_copy_must_return_a_new_handler_of_its_class(copies: object) -> None:
    made = WrongCopies()
    made.copies = copies
    stream = Stream(made, modality="audio")
    with pytest.raises(HandlerContractError, match=r"WrongCopies.copy\(\) must return a new"):
        stream._service.make_driver()


def test_handler_factory_must_return_a_handler() -> None:
    stream = Stream(lambda: 42, modality="audio")
    with pytest.raises(HandlerContractError, match="got 42"):
        stream._service.make_driver()


class PlainStartUp(Async):
    def start_up(self) -> None:  # type: ignore[override]
        ...


class AsyncEmit(Plain):
    async def emit(self) -> None:  # type: ignore[override]
        ...


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (PlainStartUp(), r"PlainStartUp.start_up must be a coroutine function"),
        (AsyncEmit(), r"AsyncEmit.emit must be a plain function"),
    ],
)
def test_plain_and_async_methods_in_the_wrong_class_are_refused(
    wrong: StreamHandlerBase, message: str
) -> None:
    with pytest.raises(HandlerContractError, match=message):
        check_handler(wrong)


@pytest.mark.parametrize("bad", [42, None, "handler", object(), lambda x: None])
def test_value_that_is_not_a_handler_is_refused(bad: Any) -> None:
    with pytest.raises(TypeError, match="handler must be"):
        Stream(bad, modality="audio")


def _make(**options: Any) -> Plain:
    class Made(Plain):
        def __init__(self) -> None:
            super().__init__(**options)

    return Made()
