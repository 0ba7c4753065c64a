from __future__ import annotations

import gc
import threading
import warnings
from typing import Any

import anyio
import numpy as np
import pytest

from fastrtc_anyio import (
    AsyncAudioVideoStreamHandler,
    AsyncStreamHandler,
    AudioFrame,
    AudioVideoStreamHandler,
    HandlerContractError,
    Played,
    Stream,
    StreamHandler,
    StreamHandlerBase,
    WebRTCData,
)
from fastrtc_anyio._core.gate import Gate
from fastrtc_anyio._driver import check_handler
from fastrtc_anyio._media.av_frames import from_av, to_av
from fastrtc_anyio.testing import tone, tone_snr


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


def test_defaults_are_fastrtcs(handler: StreamHandlerBase) -> None:
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


def test_parameters_in_fastrtcs_order() -> None:
    class Positional(Plain):
        def __init__(self) -> None:
            super().__init__("stereo", 16_000, 320, 8_000, 25)

    made = Positional()
    assert made.expected_layout == "stereo"
    assert (made.output_sample_rate, made.input_sample_rate, made.fps) == (16_000, 8_000, 25)


def test_a_frame_size_other_than_20_ms_is_deprecated_and_has_no_effect() -> None:
    with pytest.warns(UserWarning, match=r"24000 Hz is 480 samples; got 960"):
        made = _make(output_frame_size=960)
    assert made.output_frame_size == 480
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert _make(output_frame_size=480).output_frame_size == 480


@pytest.mark.parametrize("name", ["output_sample_rate", "input_sample_rate"])
@pytest.mark.parametrize("rate", [11_025, 7_950, 48_050, 96_000])
def test_rates_that_make_no_whole_frames_are_refused(name: str, rate: int) -> None:
    with pytest.raises(ValueError, match=rf"{name}.*{rate}"):
        _make(**{name: rate})


@pytest.mark.parametrize("rate", [8_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000])
def test_rates_that_make_whole_frames_are_taken(rate: int) -> None:
    made = _make(output_sample_rate=rate, input_sample_rate=rate)
    assert made.output_frame_size * 50 == rate


def test_a_layout_nobody_knows_is_refused() -> None:
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
def test_abstract_methods(base: type[StreamHandlerBase], names: set[str]) -> None:
    assert base.__abstractmethods__ == names
    with pytest.raises(TypeError):
        base()


def test_set_args(handler: StreamHandlerBase) -> None:
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


def test_before_the_session_starts(handler: StreamHandlerBase) -> None:
    for name in ("loop", "portal"):
        with pytest.raises(RuntimeError, match=f"{type(handler).__name__}.{name} exists once"):
            getattr(handler, name)
    assert handler.clear_queue() == Played(0, 0.0)
    handler.send_message_sync("nobody hears this")


async def test_send_message_before_the_session_starts_does_nothing() -> None:
    await Async().send_message("nobody hears this")


def test_phone_mode_can_be_written(handler: StreamHandlerBase) -> None:
    handler.phone_mode = True
    assert handler.phone_mode


async def test_a_telephone_has_no_args_to_wait_for() -> None:
    made = Async()
    made.phone_mode = True
    await made.wait_for_args()
    assert made.args_set.is_set()


def test_resample_keeps_a_tone_a_tone() -> None:
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
def test_copy_must_make_a_new_handler_of_the_class(copies: object) -> None:
    made = WrongCopies()
    made.copies = copies
    stream = Stream(made, modality="audio")
    with pytest.raises(HandlerContractError, match=r"WrongCopies.copy\(\) must return a new"):
        stream._service.make_driver()


def test_a_factory_must_make_a_handler() -> None:
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
def test_methods_of_the_wrong_kind_are_refused(wrong: StreamHandlerBase, message: str) -> None:
    with pytest.raises(HandlerContractError, match=message):
        check_handler(wrong)


@pytest.mark.parametrize("bad", [42, None, "handler", object(), lambda x: None])
def test_what_is_no_handler_is_refused(bad: Any) -> None:
    with pytest.raises(TypeError, match="handler must be"):
        Stream(bad, modality="audio")


class TestGate:
    async def test_set_wakes_all_who_wait(self) -> None:
        gate, passed = Gate(), []

        async def wait(i: int) -> None:
            await gate.wait()
            passed.append(i)

        async with anyio.create_task_group() as tg:
            for i in range(3):
                tg.start_soon(wait, i)
            await anyio.wait_all_tasks_blocked()
            assert passed == []
            gate.set()
        assert sorted(passed) == [0, 1, 2]
        assert gate.is_set()
        await gate.wait()

    async def test_it_can_be_closed_again(self) -> None:
        gate = Gate()
        gate.set()
        gate.clear()
        assert not gate.is_set()
        with anyio.move_on_after(1) as scope:
            await gate.wait()
        assert scope.cancelled_caught

    async def test_any_thread_may_open_it(self) -> None:
        gate = Gate()
        async with anyio.create_task_group() as tg:
            tg.start_soon(gate.wait)
            await anyio.wait_all_tasks_blocked()
            thread = threading.Thread(target=gate.set)
            thread.start()
            with anyio.fail_after(3600):
                await gate.wait()
            thread.join()

    def test_one_that_is_never_used_leaves_nothing(self) -> None:
        gate = Gate()
        gate.set()
        del gate
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            gc.collect()

    async def test_a_cancelled_wait_leaves_nothing(self) -> None:
        gate = Gate()
        with anyio.move_on_after(1):
            await gate.wait()
        assert gate._waiting == []


def _make(**options: Any) -> Plain:
    class Made(Plain):
        def __init__(self) -> None:
            super().__init__(**options)

    return Made()
