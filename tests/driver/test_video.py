"""Video through complete sessions in memory: all kinds of handlers, modalities and modes."""

from __future__ import annotations

import time
from typing import Any

import anyio
import anyio.lowlevel
import numpy as np
import pytest

from fastrtc_anyio import (
    AdditionalOutputs,
    AsyncAudioVideoStreamHandler,
    AudioVideoStreamHandler,
    CloseReason,
    CloseStream,
    EmitType,
    HandlerContractError,
    Session,
    Stream,
    VideoEmitType,
    VideoStreamHandler,
)
from fastrtc_anyio.testing import Call, open_call, tone
from tests.kit.handlers import Quiet

BLUE, RED = (255, 0, 0), (0, 0, 255)


def flat(color: Any = BLUE, height: int = 48, width: int = 64) -> Any:
    return np.full((height, width, 3), color, np.uint8)


async def show(call: Call, count: int = 10, fps: float = 30) -> None:
    """Send pictures at the rate of a camera."""
    for _ in range(count):
        call.client.send_video(flat())
        await anyio.sleep(1 / fps)


def seen(call: Call) -> list[Any]:
    return [frame.to_ndarray() for frame in call.client.seen]


class AsyncBoth(AsyncAudioVideoStreamHandler):
    """Echo audio and video, with blue and red exchanged."""

    def __init__(self, video_format: Any = "bgr24", **options: Any) -> None:
        super().__init__(**options)
        self.video_format = video_format
        self.audio: list[Any] = []
        self.pictures: list[Any] = []
        self.got: list[Any] = []

    async def receive(self, frame: Any) -> None:
        self.audio.append(frame)

    async def emit(self) -> EmitType:
        return self.audio.pop(0) if self.audio else None

    async def video_receive(self, frame: Any) -> None:
        self.got.append(frame)
        self.pictures.append(frame[..., ::-1] if isinstance(frame, np.ndarray) else frame)

    async def video_emit(self) -> VideoEmitType:
        return self.pictures.pop(0) if self.pictures else None

    def copy(self) -> AsyncBoth:
        return AsyncBoth(self.video_format)


class Both(AudioVideoStreamHandler):
    """:class:`AsyncBoth` with plain functions."""

    def __init__(self, video_format: Any = "bgr24") -> None:
        super().__init__()
        self.video_format = video_format
        self.audio: list[Any] = []
        self.pictures: list[Any] = []
        self.got: list[Any] = []

    def receive(self, frame: Any) -> None:
        self.audio.append(frame)

    def emit(self) -> EmitType:
        return self.audio.pop(0) if self.audio else None

    def video_receive(self, frame: Any) -> None:
        self.got.append(frame)
        self.pictures.append(frame[..., ::-1] if isinstance(frame, np.ndarray) else frame)

    def video_emit(self) -> VideoEmitType:
        return self.pictures.pop(0) if self.pictures else None

    def copy(self) -> Both:
        return Both(self.video_format)


@pytest.mark.parametrize("kind", [Both, AsyncBoth])
@pytest.mark.parametrize("modality", ["video", "audio", "audio-video"])
@pytest.mark.parametrize("mode", ["send-receive", "receive", "send"])
async def test_media_flow_in_every_modality_and_mode(kind: Any, modality: Any, mode: Any) -> None:
    handler = kind()
    async with open_call(handler, modality=modality, mode=mode) as call:
        async with anyio.create_task_group() as tg:
            tg.start_soon(call.speak, tone(440, 48_000, 0.5))
            tg.start_soon(show, call)
        await anyio.sleep(0.2)
    talks, sends = mode != "receive", mode != "send"
    assert bool(handler.got) == (modality != "audio" and talks)
    assert np.any(call.heard) == (modality != "video" and talks and sends)
    assert bool(call.client.seen) == (modality != "audio" and talks and sends)
    if call.client.seen:
        assert np.array_equal(seen(call)[-1], flat(RED))


@pytest.mark.parametrize("kind", [Both, AsyncBoth])
@pytest.mark.parametrize(
    ("video_format", "dtype", "shape", "first"),
    [
        ("bgr24", np.uint8, (48, 64, 3), (255, 0, 0)),
        ("rgb24", np.uint8, (48, 64, 3), (0, 0, 255)),
        ("gray", np.uint8, (48, 64), 29),
        ("float32", np.float32, (48, 64, 3), (1, 0, 0)),
    ],
)
async def test_video_format_determines_dtype_and_shape(
    kind: Any, video_format: Any, dtype: Any, shape: Any, first: Any
) -> None:
    handler = kind(video_format)
    async with open_call(handler) as call:
        await show(call)
    picture = handler.got[-1]
    assert picture.dtype == dtype
    assert picture.shape == shape
    assert np.allclose(picture[0, 0], first)
    assert np.any(seen(call)[-1])


@pytest.mark.parametrize("kind", [Both, AsyncBoth])
async def test_video_format_frame_passes_pyav_frames(kind: Any) -> None:
    import av

    handler = kind("frame")
    async with open_call(handler) as call:
        await show(call)
    assert isinstance(handler.got[-1], av.VideoFrame)
    assert np.array_equal(seen(call)[-1], flat())


def flip(frame: Any) -> Any:
    return frame[::-1]


async def flip_async(frame: Any) -> Any:
    return frame[::-1]


class Flipper:
    def method(self, frame: Any) -> Any:
        return frame[::-1]

    def __call__(self, frame: Any) -> Any:
        return frame[::-1]


@pytest.mark.parametrize("function", [flip, flip_async, Flipper().method, Flipper()])
async def test_filter_may_be_a_function_method_or_callable_object(function: Any) -> None:
    picture = np.arange(48 * 64 * 3, dtype=np.uint8).reshape(48, 64, 3)
    async with open_call(function, modality="video") as call:
        call.client.send_video(picture)
        await anyio.sleep(0.1)
        await call.client.receive_video()
    assert np.array_equal(seen(call)[0], picture[::-1])


async def test_filter_waits_for_required_inputs() -> None:
    got: list[Any] = []

    def scale(frame: Any, factor: float, name: str = "none") -> Any:
        got.append((factor, name))
        return frame

    async with open_call(scale, modality="video") as call:
        assert "send_input" in await call.client.receive_message()
        await show(call)
        assert got == []
        handler: Any = call.session.driver
        handler.handler.set_args([0.5])
        await show(call)
        handler.handler.set_args([0.7, "x"])
        await show(call)
    assert got[0] == (0.5, "none")
    assert got[-1] == (0.7, "x")


@pytest.mark.parametrize("skip_frames", [True, False])
async def test_slow_filter_gets_the_latest_picture(skip_frames: bool) -> None:
    numbers: list[int] = []

    async def slow(frame: Any) -> Any:
        numbers.append(int(frame[0, 0, 0]))
        await anyio.sleep(0.34)
        return frame

    async with open_call(VideoStreamHandler(slow, skip_frames=skip_frames)) as call:
        for number in range(100):
            call.client.send_video(flat((number, 0, 0)))
            await anyio.sleep(0.1)
    assert numbers[:4] == [0, 3, 6, 10]
    counted = call.session.statistics().video_in
    assert counted is not None
    assert counted.received == 100
    assert counted.received == len(numbers) + counted.dropped + counted.buffered
    assert 0 < counted.latency <= 0.1


async def test_plain_filter_does_not_block_the_event_loop() -> None:
    """In FastRTC, a slow filter of one session stalled all sessions (D9)."""

    def slow(frame: Any) -> Any:
        time.sleep(0.05)  # real time: the virtual clock stands still
        return frame

    async with open_call(slow, modality="video") as call, anyio.create_task_group() as tg:
        tg.start_soon(show, call, 5)
        turns = 0
        while call.client.pictures < 5:
            turns += 1
            await anyio.lowlevel.checkpoint()
            if turns % 100 == 0:
                await anyio.sleep(0.001)
    assert turns > 100


@pytest.mark.parametrize("fps", [5, 30, 60])
async def test_generator_is_paced_at_the_frame_rate(fps: int) -> None:
    def pictures() -> Any:
        while True:
            yield flat(RED)

    async with open_call(VideoStreamHandler(pictures, fps), mode="receive") as call:
        await anyio.sleep(2)
        assert abs(call.client.pictures - 2 * fps) <= 1


@pytest.mark.parametrize("asynchronous", [True, False])
async def test_exhausted_generator_ends_the_session_after_its_last_picture(
    asynchronous: bool,
) -> None:
    closed = []

    async def count_async(step: int = 1) -> Any:
        try:
            for i in range(10):
                yield flat((i * step, 0, 0))
        finally:
            closed.append(True)

    def count(step: int = 1) -> Any:
        try:
            for i in range(10):
                yield flat((i * step, 0, 0))
        finally:
            closed.append(True)

    function: Any = count_async if asynchronous else count
    async with open_call(function, modality="video", mode="receive", inputs=(2,)) as call:
        await call.ended.wait()
    assert [int(picture[0, 0, 0]) for picture in seen(call)] == [2 * i for i in range(10)]
    assert call.session.closed is not None
    assert call.session.closed.reason is CloseReason.HANDLER_CLOSED
    assert closed == [True]


@pytest.mark.parametrize("asynchronous", [True, False])
async def test_generator_is_closed_when_the_client_hangs_up(asynchronous: bool) -> None:
    closed = []

    async def endless_async() -> Any:
        try:
            while True:
                yield (24_000, np.ones((1, 480), np.int16))
        finally:
            closed.append(True)

    def endless() -> Any:
        try:
            while True:
                yield (24_000, np.ones((1, 480), np.int16))
        finally:
            closed.append(True)

    function: Any = endless_async if asynchronous else endless
    async with open_call(function, mode="receive") as call:
        await anyio.sleep(1)
        call.client.hang_up()
        await call.ended.wait()
    assert closed == [True]
    assert np.count_nonzero(call.heard) > 40_000


async def test_close_stream_is_sent_after_the_last_picture() -> None:
    class Last(AsyncBoth):
        async def video_emit(self) -> VideoEmitType:
            return (flat(RED), CloseStream("that was all"))

    async with open_call(Last()) as call:
        text = await call.client.receive_message()
        await call.ended.wait()
    assert "that was all" in text
    assert np.array_equal(seen(call)[-1], flat(RED))


async def test_picture_with_additional_outputs() -> None:
    def label(frame: Any) -> Any:
        return frame, AdditionalOutputs(int(frame[0, 0, 0]))

    async with open_call(label, modality="video") as call:
        call.client.send_video(flat((7, 0, 0)))
        assert "fetch_output" in await call.client.receive_message()
        assert (await call.session.outputs.latest()).args == (7,)


@pytest.mark.parametrize(
    ("picture", "message"),
    [
        (np.zeros((4, 4, 3), np.int64), "int64"),
        (np.full((4, 4, 3), np.nan, np.float32), "NaN"),
        (np.zeros((3, 4, 4), np.uint8), r"\(3, 4, 4\)"),
        (np.zeros((0, 4, 3), np.uint8), "got 4 x 0"),
        ("picture", "a picture must be .*; got 'picture'"),
    ],
)
async def test_invalid_picture_ends_the_session_with_a_reason(picture: Any, message: str) -> None:
    with pytest.raises(HandlerContractError, match=message):
        async with open_call(lambda frame: picture, modality="video") as call:
            call.client.send_video(flat())
            await call.ended.wait()


async def test_session_has_only_the_streams_of_its_mode() -> None:
    async def look(session: Session) -> None:
        with pytest.raises(HandlerContractError, match=r"session\.audio_in does not exist"):
            _ = session.audio_in
        with pytest.raises(HandlerContractError, match=r"session\.video_out does not exist"):
            _ = session.video_out
        async for frame in session.video_in:
            session.messages.send_nowait(f"{frame.width}x{frame.height}")

    async with open_call(look, modality="video", mode="send") as call:
        call.client.send_video(flat())
        assert await call.client.receive_message() == "64x48"


def serve(session: Session) -> None: ...
async def twice(frame: Any, times: int) -> Any: ...
def no_generator(*inputs: Any) -> Any: ...


@pytest.mark.parametrize(
    ("handler", "modality", "mode", "message"),
    [
        (Quiet(), "video", "send-receive", "derive from AudioVideoStreamHandler"),
        (Quiet, "audio-video", "send-receive", "derive from AudioVideoStreamHandler"),
        (flip, "video", "receive", 'mode "send-receive" or "send"'),
        (flip, "audio-video", "send-receive", "handler must be"),
        (flip, "audio", "send-receive", "handler must be"),
        (twice, "audio", "send-receive", "handler must be"),
        (VideoStreamHandler(flip), "audio", "send-receive", 'modality "video"'),
        (42, "audio", "send-receive", "got 42"),
    ],
)
def test_handler_for_another_modality_or_mode_is_refused(
    handler: Any, modality: Any, mode: Any, message: str
) -> None:
    with pytest.raises(TypeError, match=message):
        Stream(handler, modality=modality, mode=mode)


def test_sessions_share_the_function_unchanged() -> None:
    """FastRTC wrapped a shared callable again for every connection (D5)."""
    before = dict(vars(flip))
    stream = Stream(flip, modality="video")
    drivers: list[Any] = [stream._service.make_driver() for _ in range(3)]
    assert all(driver.handler.callable is flip for driver in drivers)
    assert vars(flip) == before


@pytest.mark.parametrize("fps", [10, 20, 30, 60])
@pytest.mark.parametrize("takes", [0.0, 0.02, 0.2])
async def test_filter_output_has_the_minimum_age(fps: int, takes: float) -> None:
    async def slow(frame: Any) -> Any:
        await anyio.sleep(takes)
        return frame

    ages: list[float] = []
    async with open_call(VideoStreamHandler(slow, fps=fps)) as call:
        began = anyio.current_time()

        async def watch() -> None:
            while True:
                frame = await call.client.receive_video()
                number = int(frame.to_ndarray()[0, 0, 0])
                ages.append(anyio.current_time() - began - number / 30)

        async with anyio.create_task_group() as tg:
            tg.start_soon(watch)
            for number in range(100):
                call.client.send_video(flat((number, 0, 0)))
                await anyio.sleep_until(began + (number + 1) / 30)
            tg.cancel_scope.cancel()
    assert len(ages) >= 100 / 30 * min(fps, 30, 1 / (takes + 1 / 30)) - 3
    # A picture is up to one interval of the camera old when the filter gets it.
    assert max(ages) <= takes + 1 / 30 + 1e-6


async def measure_ages(call: Call, times: list[float]) -> list[float]:
    """Send numbered pictures at the times; return the age of each picture that came back."""
    ages: list[float] = []
    began = anyio.current_time()

    async def watch() -> None:
        while True:
            frame = await call.client.receive_video()
            ages.append(anyio.current_time() - began - times[int(frame.to_ndarray()[0, 0, 0])])

    async with anyio.create_task_group() as tg:
        tg.start_soon(watch)
        for number, time_ in enumerate(times):
            await anyio.sleep_until(began + time_)
            call.client.send_video(flat((number, 0, 0)))
        await anyio.sleep(0.1)
        tg.cancel_scope.cancel()
    return ages


def camera(held_back: int, fps: float = 30) -> list[float]:
    """Return the times of 200 pictures, the first few of which the network holds back."""
    release = (held_back + 9) / fps
    return [max(i / fps, release + 0.002 * (i - 10)) if i >= 10 else i / fps for i in range(200)]


@pytest.mark.parametrize("takes", [0.0, 0.01])
@pytest.mark.parametrize("held_back", [1, 3, 8])
@pytest.mark.parametrize("fps", [30, 30.2, 45, 60])
async def test_filter_gets_new_pictures_after_the_network_held_some_back(
    takes: float, held_back: int, fps: float
) -> None:
    async def work(frame: Any) -> Any:
        await anyio.sleep(takes)
        return frame

    async with open_call(VideoStreamHandler(work)) as call:
        ages = await measure_ages(call, camera(held_back, fps))
    # The last picture may wait for another.
    assert max(ages[30:-1]) <= takes + 0.125 / 30 + 1e-6
    assert len(ages) >= 200 * min(1, 30 / fps) - held_back - 12


@pytest.mark.parametrize("held_back", [1, 3])
async def test_session_function_shows_pictures_at_once_after_the_network_held_some_back(
    held_back: int,
) -> None:
    async def echo(session: Session) -> None:
        async for frame in session.video_in:
            await session.video_out.send(frame)

    async with open_call(echo, modality="video") as call:
        ages = await measure_ages(call, camera(held_back))
    assert len(ages) == 200
    assert max(ages) <= 1e-6


async def test_filter_shows_the_last_picture_of_a_client_that_stops() -> None:
    async with open_call(VideoStreamHandler(flip_async)) as call:
        # Faster than the filter's rate, so that the last picture has to wait.
        ages = await measure_ages(call, [i / 48 for i in range(40)])
        assert int(seen(call)[-1][0, 0, 0]) == 39
    assert max(ages) <= 2 / 30


class Talks(Both):
    """Emit endless audio and five pictures."""

    shown = 0

    def emit(self) -> EmitType:
        return (24_000, np.ones(2400, np.int16))

    def video_emit(self) -> VideoEmitType:
        self.shown += 1
        return (flat(RED), CloseStream("enough")) if self.shown == 5 else flat()


class AsyncTalks(AsyncBoth):
    shown = 0

    async def emit(self) -> EmitType:
        return Talks.emit(self)  # type: ignore[arg-type]

    async def video_emit(self) -> VideoEmitType:
        return Talks.video_emit(self)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", [Talks, AsyncTalks])
async def test_close_stream_from_video_emit_ends_endless_audio(kind: Any) -> None:
    async with open_call(kind(), output_buffer_s=0.5) as call:
        with anyio.fail_after(5):
            await call.ended.wait()
    assert call.session.closed is not None
    assert call.session.closed.message == "enough"
    assert np.array_equal(seen(call)[-1], flat(RED))
    out = call.session.statistics().audio_out
    assert out is not None
    assert out.played == out.sent


@pytest.mark.parametrize("wrong", ["trigger", "format", "init"])
def test_handler_with_invalid_methods_or_settings_is_refused(wrong: str) -> None:
    class Handler(AsyncBoth):
        def __init__(self) -> None:
            if wrong != "init":
                super().__init__("RGB" if wrong == "format" else "bgr24")

        if wrong == "trigger":

            async def trigger_response(self) -> None: ...

    message = {
        "trigger": r"trigger_response must be a plain function",
        "format": "video_format must be one of .* got 'RGB'",
        "init": r"must call super\(\).__init__\(\) first",
    }
    with pytest.raises(HandlerContractError, match=message[wrong]):
        Stream(Handler, modality="audio-video")._service.make_driver()


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"time_limit": -1}, ValueError, "time_limit must be a number above 0 s, or None; got"),
        ({"time_limit": "60"}, TypeError, "time_limit must be a number above 0 s, or None; got"),
        ({"limits": {"idle": 3}}, TypeError, "limits must be a Limits"),
        ({"opus": {"bitrate": 1}}, TypeError, "opus must be an OpusOptions"),
        ({"video": "H264"}, TypeError, "video must be a VideoOptions"),
        (
            {"input_buffer_s": 0},
            ValueError,
            "input_buffer_s must be a number above 0 seconds; got 0",
        ),
    ],
)
def test_invalid_stream_settings_are_refused(options: Any, error: Any, message: str) -> None:
    with pytest.raises(error, match=message):
        Stream(flip, modality="video", **options)


def test_invalid_filter_arguments_are_refused() -> None:
    with pytest.raises(TypeError, match="must be a function; got 3"):
        VideoStreamHandler(3)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="fps must be a number above 0 and at most 240; got '30'"):
        VideoStreamHandler(flip, fps="30")  # type: ignore[arg-type]
