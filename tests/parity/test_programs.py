"""FastRTC's reference programs in an in-memory call."""

from __future__ import annotations

import json
from contextlib import aclosing
from typing import Any

import anyio
import numpy as np
import pytest

from fastrtc_anyio import (
    AdditionalOutputs,
    AsyncAudioVideoStreamHandler,
    AsyncStreamHandler,
    CloseReason,
    EmitType,
    Session,
    SessionState,
    StreamHandler,
    VideoEmitType,
    VideoStreamHandler,
    Warning,
    WebRTCData,
    WebRTCError,
    get_current_context,
    wait_for_item,
)
from fastrtc_anyio.testing import Call, open_call, tone, tone_snr
from tests.kit.backends import on_asyncio
from tests.kit.handlers import Quiet
from tests.kit.measure import typical_snr

from .programs import (
    RATE,
    AsyncEchoHandler,
    FarewellHandler,
    InstructedHandler,
    MemoryStreamEchoHandler,
    PlainInstructedHandler,
    PoliteEchoHandler,
    RealtimeAPI,
    RealtimeHandler,
)


def outputs_of(call: Call) -> Any:
    """A reader of the handler's outputs that is closed at the end of the block."""
    reader: Any = call.session.outputs.read()
    return aclosing(reader)


async def messages(call: Call) -> list[dict[str, Any]]:
    """All messages to the client, up to the end of the call."""
    told = []
    try:
        while True:
            told.append(json.loads(await call.client.receive_message()))
    except anyio.EndOfStream:
        return told


async def check_echo(handler: Any) -> None:
    async with open_call(handler) as call:
        await call.speak(tone(440, 48_000, 1.0))
        await anyio.sleep(0.2)
    samples = call.heard[0]
    assert np.count_nonzero(np.abs(samples) > 1000) > 0.8 * RATE
    assert typical_snr(samples, 440, RATE) > 50
    assert call.session.closed is not None
    assert call.session.closed.reason is CloseReason.HUNG_UP


async def test_echo_with_queue() -> None:
    await check_echo(PoliteEchoHandler())


@on_asyncio
async def test_echo_with_asyncio_queue() -> None:
    await check_echo(AsyncEchoHandler())


async def test_echo_with_memory_stream() -> None:
    await check_echo(MemoryStreamEchoHandler())


async def test_asyncio_queue_under_trio_raises_error_that_names_memory_stream() -> None:
    handler = AsyncEchoHandler()
    backend = "trio" if _is_trio() else "asyncio"
    async with open_call(handler, raise_errors=False) as call:
        await anyio.sleep(1)
    if backend == "asyncio":
        assert call.session.error is None
        return
    assert isinstance(call.session.error, TypeError)
    assert "create_memory_object_stream" in str(call.session.error)
    assert any("AsyncEchoHandler.emit" in note for note in call.session.error.__notes__)


def _is_trio() -> bool:
    return hasattr(anyio.lowlevel.current_token().native_token, "run_sync_soon")


async def test_start_up_holds_service_connection_for_whole_call() -> None:
    api = RealtimeAPI()
    async with open_call(RealtimeHandler(api)) as call:
        outputs = call.session.outputs.read()
        await call.speak(tone(440, 48_000, 2.02))
        assert "disconnected" not in api.log
        await anyio.sleep(2)
    assert api.log == ["connected", *["answered"] * 4, "disconnected"]
    said = [output.args[0] async for output in outputs]
    assert said == [{"role": "assistant", "content": f"answer {n}"} for n in (1, 2, 3, 4)]
    assert np.count_nonzero(call.heard == 1000) == 4 * api.SIZE
    told = await messages(call)
    assert [message["type"] for message in told] == ["fetch_output"] * 4


@pytest.mark.parametrize("kind", [InstructedHandler, PlainInstructedHandler])
async def test_wait_for_args_returns_when_inputs_arrive(kind: Any) -> None:
    handler = kind()
    async with open_call(handler) as call:
        assert json.loads(await call.client.receive_message())["type"] == "send_input"
        assert handler.latest_args == []
        handler.set_args(["be brief", 0.3])
        message = json.loads(await call.client.receive_message())
    assert message == {"type": "log", "data": ["__webrtc_value__", "be brief", 0.3]}


async def test_text_arrives_as_webrtc_data() -> None:
    class Reader(Quiet):
        async def emit(self) -> EmitType:
            await self.wait_for_args()
            data = self.latest_args[0]
            self.reset()
            return AdditionalOutputs(
                data.webrtc_id, data.textbox, data.audio, *self.latest_args[1:]
            )

    handler = Reader()
    async with open_call(handler) as call, outputs_of(call) as outputs:
        for text in ("hello", "and again"):
            message = json.loads(await call.client.receive_message())
            while message["type"] != "send_input":
                message = json.loads(await call.client.receive_message())
            handler.set_args([WebRTCData("me", text), "more"])
            assert (await anext(outputs)).args == ("me", text, None, "more")


async def test_close_stream_sends_message_after_playout() -> None:
    async with open_call(FarewellHandler()) as call:
        await call.ended.wait()
    assert call.session.closed is not None
    assert call.session.closed.reason is CloseReason.HANDLER_CLOSED
    assert await messages(call) == [
        {"type": "end_stream", "data": "Goodbye!", "reason": "handler_closed"}
    ]
    said = np.concatenate([tone(f, RATE, 1.0)[0] for f in (440, 550, 660)])
    begin = np.flatnonzero(call.heard[0])[0] - 1  # a sine begins with a zero
    assert np.array_equal(call.heard[0][begin : begin + said.size], said)
    assert call.session.state is SessionState.CLOSED


def picture(level: int) -> Any:
    """A picture whose lower half is brighter than the upper."""
    array = np.full((48, 64, 3), level, np.uint8)
    array[24:] += 100
    return array


def flip_vertically(image: Any) -> Any:
    return np.flip(image, axis=0)


async def test_function_that_flips_the_picture() -> None:
    async with open_call(flip_vertically, modality="video") as call:
        call.client.send_video(picture(10))
        seen = (await call.client.receive_video()).to_ndarray()
    assert np.array_equal(seen, picture(10)[::-1])


async def test_slider_is_passed_as_extra_argument() -> None:
    def detection(image: Any, conf_threshold: float = 0.3) -> Any:
        return np.full_like(image, round(conf_threshold * 100)), AdditionalOutputs(conf_threshold)

    async with open_call(detection, modality="video") as call, outputs_of(call) as outputs:
        call.client.send_video(picture(0))
        assert (await call.client.receive_video()).to_ndarray()[0, 0, 0] == 30
        call.session.driver.handler.set_args([0.7])  # type: ignore[union-attr]
        call.client.send_video(picture(0))
        assert (await call.client.receive_video()).to_ndarray()[0, 0, 0] == 70
        assert [(await anext(outputs)).args for _ in range(2)] == [(0.3,), (0.7,)]
    told = await messages(call)
    assert [message["type"] for message in told] == ["fetch_output", "fetch_output"]


@pytest.mark.parametrize("layout", ["(n,)", "(1, n)"])
async def test_generator_of_audio(layout: str) -> None:
    def generation(num_steps: int = 3) -> Any:
        for _ in range(num_steps):
            samples = tone(440, RATE, 1.0)  # whole periods: the pieces join without a click
            yield RATE, samples[0] if layout == "(n,)" else samples

    async with open_call(generation, mode="receive") as call:
        rate = call.session.audio_out.sample_rate
        await call.ended.wait()
    sounding = np.flatnonzero(np.abs(call.heard[0]) > 1000)
    assert (sounding[-1] - sounding[0]) / rate == pytest.approx(3, abs=0.01)
    body = call.heard[0][sounding[0] + rate // 10 : sounding[-1] - rate // 10]
    assert tone_snr(body, 440, rate) > 50
    assert call.session.closed is not None
    assert call.session.closed.reason is CloseReason.HANDLER_CLOSED


async def test_generator_of_pictures_and_outputs() -> None:
    def generation() -> Any:
        for number in range(90):
            if number % 30 == 29:
                yield picture(number), AdditionalOutputs(number)
            else:
                yield picture(number)

    async with open_call(generation, modality="video", mode="receive") as call:
        began = anyio.current_time()
        outputs = call.session.outputs.read()
        await call.ended.wait()
        assert anyio.current_time() - began == pytest.approx(3, abs=0.1)
        assert [output.args[0] async for output in outputs] == [29, 59, 89]
    assert call.client.pictures == 90


@pytest.mark.parametrize("fps", [15, 60])
@pytest.mark.parametrize("kind", ["plain", "async"])
async def test_generator_of_pictures_at_its_frame_rate(kind: str, fps: int) -> None:
    def generation() -> Any:
        for number in range(2 * fps):
            yield picture(number)

    async def async_generation() -> Any:
        for number in range(2 * fps):
            yield picture(number)

    handler = VideoStreamHandler(generation if kind == "plain" else async_generation, fps=fps)
    async with open_call(handler, mode="receive") as call:
        began = anyio.current_time()
        await call.ended.wait()
        assert anyio.current_time() - began == pytest.approx(2, abs=0.1)
    assert call.client.pictures == 2 * fps
    shown = [int(frame.to_ndarray()[0, 0, 0]) for frame in call.client.seen]
    assert shown == list(range(2 * fps))[-len(shown) :]


class VideoChat(AsyncAudioVideoStreamHandler):
    """ "Gemini Audio Video Chat": it returns each picture, or a black one while there is none."""

    def __init__(self) -> None:
        super().__init__("mono", output_sample_rate=24000, input_sample_rate=16000)
        self.send_audio, self.audio_queue = anyio.create_memory_object_stream[Any](100)
        self.send_video, self.video_queue = anyio.create_memory_object_stream[Any](100)

    def copy(self) -> VideoChat:
        return VideoChat()

    async def video_receive(self, frame: Any) -> None:
        self.send_video.send_nowait(frame)

    async def video_emit(self) -> VideoEmitType:
        frame: Any = await wait_for_item(self.video_queue, 0.01)
        if frame is not None:
            return frame  # type: ignore[no-any-return]
        return np.zeros((100, 100, 3), dtype=np.uint8)

    async def receive(self, frame: tuple[int, Any]) -> None:
        _, array = frame
        self.send_audio.send_nowait(array.squeeze())

    async def emit(self) -> EmitType:
        array: Any = await wait_for_item(self.audio_queue, 0.01)
        if array is not None:
            return 16000, array
        return None

    async def shutdown(self) -> None:
        for stream in (self.send_audio, self.audio_queue, self.send_video, self.video_queue):
            stream.close()


async def test_handler_of_audio_and_video() -> None:
    async with open_call(VideoChat()) as call:
        async with anyio.create_task_group() as tg:
            tg.start_soon(call.speak, tone(440, 48_000, 1.0))
            for level in range(30):
                call.client.send_video(picture(level))
                await anyio.sleep(1 / 30)
        await anyio.sleep(0.2)
    shown = [frame.to_ndarray()[0, 0, 0] for frame in call.client.seen if frame.height == 48]
    assert shown == sorted(set(shown))
    assert len(shown) > 20
    assert any(frame.height == 100 for frame in call.client.seen)
    assert typical_snr(call.heard[0], 440, RATE) > 50


async def test_session_function() -> None:
    async def serve(session: Session) -> None:
        session.messages.send_nowait(f"hello {get_current_context().webrtc_id == session.id}")
        async for frame in session.audio_in:
            await session.audio_out.send(frame)

    async with open_call(serve) as call:
        assert await call.client.receive_message() == "hello True"
        await call.speak(tone(440, 48_000, 1.0))
        await anyio.sleep(0.2)
    rate = call.session.audio_out.sample_rate
    assert typical_snr(call.heard[0], 440, rate) > 50


class Talkative(StreamHandler):
    """Sends the context of each method as a message, and a warning."""

    def start_up(self) -> None:
        self._say("start_up")
        Warning("the microphone is quiet")

    def receive(self, frame: tuple[int, Any]) -> None:
        self._say("receive")

    def emit(self) -> EmitType:
        self._say("emit")
        return None

    def _say(self, where: str) -> None:
        self.send_message_sync(
            json.dumps({"type": "log", "data": [where, get_current_context().webrtc_id]})
        )

    def copy(self) -> Talkative:
        return Talkative()


class AsyncTalkative(AsyncStreamHandler):
    """Sends the context of each coroutine method as a message, and a warning."""

    async def start_up(self) -> None:
        await self._say("start_up")
        Warning("the microphone is quiet")

    async def receive(self, frame: tuple[int, Any]) -> None:
        await self._say("receive")

    async def emit(self) -> EmitType:
        await self._say("emit")
        return None

    async def _say(self, where: str) -> None:
        await self.send_message(
            json.dumps({"type": "log", "data": [where, get_current_context().webrtc_id]})
        )

    def copy(self) -> AsyncTalkative:
        return AsyncTalkative()


@pytest.mark.parametrize("kind", [Talkative, AsyncTalkative])
async def test_every_method_has_a_context_and_may_warn(kind: Any) -> None:
    async with open_call(kind()) as call:
        await call.speak(tone(440, 48_000, 0.1))
    told = await messages(call)
    texts = {message["data"] for message in told if message["type"] == "warning"}
    assert texts == {"the microphone is quiet"}
    said = [message["data"] for message in told if message["type"] == "log"]
    assert {where for where, _ in said} == {"start_up", "receive", "emit"}
    assert {webrtc_id for _, webrtc_id in said} == {call.session.id}
    assert call.session.closed is not None
    assert call.session.closed.reason is CloseReason.HUNG_UP


@pytest.mark.parametrize("where", ["start_up", "receive", "emit"])
@pytest.mark.parametrize("kind", [Talkative, AsyncTalkative])
async def test_webrtc_error_reaches_the_client(kind: Any, where: str) -> None:
    handler = kind()
    original = handler._say

    def plain(here: str) -> None:
        if here == where:
            raise WebRTCError("your credit is used up")
        original(here)

    async def coroutine(here: str) -> None:
        if here == where:
            raise WebRTCError("your credit is used up")
        await original(here)

    handler._say = plain if kind is Talkative else coroutine
    async with open_call(handler, raise_errors=False) as call:
        await call.speak(tone(440, 48_000, 0.1))
        await call.ended.wait()
    errors = [message for message in await messages(call) if message["type"] == "error"]
    assert [error["message"] for error in errors] == ["your credit is used up"]
    assert [error["data"] for error in errors] == ["your credit is used up"]
