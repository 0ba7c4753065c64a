"""Whole sessions in memory: media, messages, errors, limits and shutdown."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from typing import Any

import anyio
import anyio.lowlevel
import numpy as np
import pytest
import trio.testing

from fastrtc_anyio import (
    AdditionalOutputs,
    AudioFrame,
    CloseReason,
    CloseStream,
    ConnectTimeout,
    EmitType,
    HandlerContractError,
    Limits,
    Session,
    SessionState,
    StreamHandler,
    StreamHandlerBase,
    UnknownSession,
    WebRTCError,
)
from fastrtc_anyio._driver.factory import FunctionDriver
from fastrtc_anyio.testing import Call, open_call, tone, tone_snr
from tests.kit.handlers import AsyncEcho, Echo, Quiet
from tests.kit.measure import typical_snr

RATES = [8_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000]


async def speak(call: Call, samples: Any, rate: int = 48_000) -> None:
    """Send the samples in real time, in chunks of 20 ms."""
    size = rate // 50
    due = anyio.current_time()
    for start in range(0, samples.shape[1], size):
        call.client.send_audio(AudioFrame(rate, samples[:, start : start + size]))
        due += 0.02
        await anyio.sleep_until(due)


def heard(call: Call) -> Any:
    return np.concatenate(call.client.heard, axis=1)


@pytest.mark.parametrize("kind", [Echo, AsyncEcho])
@pytest.mark.parametrize("input_rate", RATES)
@pytest.mark.parametrize("output_rate", [8_000, 24_000, 44_100])
async def test_echoed_tone_keeps_snr(kind: Any, input_rate: int, output_rate: int) -> None:
    handler = kind(input_sample_rate=input_rate, output_sample_rate=output_rate)
    async with open_call(handler) as call:
        await speak(call, tone(440, 48_000, 0.6))
        await anyio.sleep(0.2)
    samples = heard(call)[0]
    loud = np.flatnonzero(np.abs(samples) > 1000)
    assert loud.size > 0.5 * output_rate
    if kind is Echo:  # receive and emit run on two threads, so frames may repeat or be missing
        assert typical_snr(samples, 440, output_rate) > 50
    else:
        middle = samples[loud[0] + output_rate // 10 : loud[-1] - output_rate // 10]
        assert tone_snr(middle, 440, output_rate) > 50
    assert handler.calls == ["start_up", "shutdown"]


@pytest.mark.parametrize("kind", [Echo, AsyncEcho])
async def test_stereo_channels_do_not_mix(kind: Any) -> None:
    handler = kind(expected_layout="stereo", output_sample_rate=48_000)
    both = np.concatenate([tone(300, 48_000, 1.0), tone(700, 48_000, 1.0)])
    async with open_call(handler) as call:
        await speak(call, both)
        await anyio.sleep(0.2)
    for channel, frequency in enumerate((300, 700)):
        assert typical_snr(heard(call)[channel], frequency, 48_000) > 50


@pytest.mark.parametrize("layout", ["mono", "stereo"])
@pytest.mark.parametrize("rate", RATES)
async def test_receive_gets_20_ms_int16_frames(layout: str, rate: int) -> None:
    got: list[Any] = []

    class Listener(Quiet):
        async def receive(self, frame: Any) -> None:
            got.append(frame)

    handler = Listener(expected_layout=layout, input_sample_rate=rate)
    async with open_call(handler) as call:
        # Chunk sizes that are not a multiple of a frame.
        for size in (1, 959, 960, 3000, 2880):
            call.client.send_audio(AudioFrame(48_000, np.zeros((2, size), np.int16)))
        await anyio.sleep(0.1)
    assert len(got) >= 7
    channels = 2 if layout == "stereo" else 1
    assert {(r, s.shape, s.dtype) for r, s in got} == {
        (rate, (channels, rate // 50), np.dtype(np.int16))
    }


@pytest.mark.parametrize(
    "emission",
    [
        (24_000, np.full(480, 1000, np.int16)),
        (24_000, np.full((1, 480), 1000, np.int16)),
        (24_000, np.full((1, 480), 1000 / 32768, np.float32)),
        (24_000, np.full((2, 480), 1000, np.int16)),
        (24_000, np.full((2, 480), 1000, np.int16), "stereo"),
        (24_000, np.full(480, 1000, np.int16), "mono"),
        ((24_000, np.full(480, 1000, np.int16)), AdditionalOutputs("x")),
    ],
)
async def test_emitted_audio_in_each_format_is_played(emission: Any) -> None:
    class Once(Quiet):
        async def emit(self) -> EmitType:
            if "emit" in self.calls:
                return None
            self.calls.append("emit")
            return emission  # type: ignore[no-any-return]

    async with open_call(Once()) as call:
        await anyio.sleep(1)
    assert np.count_nonzero(np.abs(heard(call)[0] - 1000) <= 1) == 480


@pytest.mark.parametrize(
    ("emission", "message"),
    [
        ("hello", "got 'hello'"),
        ((24_000,), r"got \(24000,\)"),
        ((24_000, [1, 2]), r"samples must be .*; got \[1, 2\]"),
        ((24_000.5, np.zeros(480, np.int16)), "sample rate must be an int from .*; got 24000.5"),
        ((0, np.zeros(480, np.int16)), "from 1000 to 384000 Hz; got 0"),
        ((24_000, np.zeros(480, np.int32)), "int32"),
        ((24_000, np.full(480, np.nan, np.float32)), "NaN"),
        ((24_000, np.full(480, np.inf, np.float32)), "got inf"),
        ((24_000, np.zeros((3, 480), np.int16)), r"\(3, 480\)"),
        ((24_000, np.zeros((1, 2, 480), np.int16)), r"\(1, 2, 480\)"),
        ((24_000, np.zeros(480, np.int16), "stereo"), r'"stereo" must have shape \(2, n\)'),
        ((24_000, np.zeros(480, np.int16), "quad"), "quad"),
    ],
)
async def test_invalid_emission_raises_contract_error(emission: Any, message: str) -> None:
    class Wrong(Quiet):
        async def emit(self) -> EmitType:
            return emission  # type: ignore[no-any-return]

    with pytest.raises(HandlerContractError, match=message) as caught:
        async with open_call(Wrong()) as call:
            await call.ended.wait()
    assert "Wrong.emit" in str(caught.value)


async def test_eager_handler_waits_once_output_buffer_is_full() -> None:
    class Eager(Quiet):
        async def emit(self) -> EmitType:
            await anyio.lowlevel.checkpoint()
            self.calls.append("emit")
            return 24_000, np.ones(24_000, np.int16)

    handler = Eager()
    async with open_call(handler, output_buffer_s=5.0):
        await anyio.sleep(10)
    assert 15 <= handler.calls.count("emit") <= 17


class Failing(Quiet):
    """An async handler that raises ``error`` in one method."""

    def __init__(self, where: str, error: BaseException) -> None:
        super().__init__()
        self.where, self.error = where, error

    async def _maybe(self, name: str) -> None:
        if name == self.where:
            raise self.error

    async def start_up(self) -> None:
        await self._maybe("start_up")

    async def receive(self, frame: Any) -> None:
        await self._maybe("receive")

    async def emit(self) -> EmitType:
        await self._maybe("emit")
        return await super().emit()


class NativePanic(BaseException):
    """A `BaseException`, like that of PyO3 when Rust code panics."""


class SyncFailing(StreamHandler):
    """A sync handler that raises ``error`` in one method, on its thread."""

    def __init__(self, where: str, error: BaseException) -> None:
        super().__init__()
        self.where, self.error, self.calls = where, error, list[str]()

    def _maybe(self, name: str) -> None:
        if name == self.where:
            raise self.error

    def start_up(self) -> None:
        self._maybe("start_up")

    def receive(self, frame: Any) -> None:
        self._maybe("receive")

    def emit(self) -> None:
        self._maybe("emit")

    def shutdown(self) -> None:
        self.calls.append("shutdown")

    def copy(self) -> SyncFailing:
        return self


@pytest.mark.parametrize("kind", [Failing, SyncFailing])
@pytest.mark.parametrize("where", ["start_up", "receive", "emit"])
async def test_handler_error_ends_session_and_hides_its_text(kind: Any, where: str) -> None:
    error = ValueError("secret")
    handler = kind(where, error)
    async with open_call(handler, raise_errors=False) as call:
        call.client.send_audio(AudioFrame(48_000, np.zeros((1, 2000), np.int16)))
        with anyio.fail_after(1):
            closed = await call.peer.wait_closed()
            await call.ended.wait()
        message = json.loads(await call.client.receive_message())
    assert closed.reason is CloseReason.CANCELLED  # the server closes the connection
    assert call.session.error is error
    assert any(where in note for note in error.__notes__)
    assert call.session.closed is not None
    assert call.session.closed.reason is CloseReason.HANDLER_ERROR
    assert call.session.state is SessionState.CLOSED
    assert message["type"] == "error"
    assert message["message"] == message["data"]
    assert "secret" not in message["message"]
    assert call.session.id[:8] in message["message"]
    assert handler.calls == ["shutdown"]


async def test_text_of_webrtc_error_reaches_client() -> None:
    async with open_call(Failing("start_up", WebRTCError("no credit")), raise_errors=False) as call:
        await call.ended.wait()
        message = json.loads(await call.client.receive_message())
    assert message == {"type": "error", "data": "no credit", "message": "no credit"}


async def test_call_raises_same_exception_object() -> None:
    error = KeyError("x")
    with pytest.raises(KeyError) as caught:
        async with open_call(Failing("emit", error)) as call:
            await call.ended.wait()
    assert caught.value is error


async def test_close_stream_plays_queued_audio_first() -> None:
    class Goodbye(Quiet):
        async def emit(self) -> EmitType:
            return (24_000, np.full(24_000, 1000, np.int16)), CloseStream("goodbye")

    async with open_call(Goodbye()) as call:
        await call.ended.wait()
        message = json.loads(await call.client.receive_message())
    assert call.session.closed is not None
    assert call.session.closed.reason is CloseReason.HANDLER_CLOSED
    assert message == {"type": "end_stream", "data": "goodbye", "reason": "handler_closed"}
    assert np.count_nonzero(heard(call)) == 24_000


async def test_session_ends_at_time_limit() -> None:
    handler = Quiet()
    async with open_call(handler, limits=Limits(time_limit=60)) as call:
        began = anyio.current_time()
        await call.ended.wait()
        assert anyio.current_time() - began == pytest.approx(60, abs=0.1)
        message = json.loads(await call.client.receive_message())
    assert call.session.closed is not None
    assert call.session.closed.reason is CloseReason.TIME_LIMIT
    assert message["type"] == "end_stream"
    assert handler.calls == ["shutdown"]


async def test_session_without_connection_ends_at_connect_limit() -> None:
    handler = Quiet()
    async with open_call(handler, connect=False, raise_errors=False) as call:
        began = anyio.current_time()
        await call.ended.wait()
        assert anyio.current_time() - began == pytest.approx(10, abs=0.1)
    assert isinstance(call.session.error, ConnectTimeout)
    assert call.session.closed is not None
    assert call.session.closed.reason is CloseReason.CONNECT_TIMEOUT
    assert handler.calls == ["shutdown"]


async def test_hang_up_before_connection_ends_session_without_error() -> None:
    async with open_call(Quiet(), connect=False, raise_errors=False) as call:
        call.client.hang_up()
        await call.ended.wait()
    assert call.session.error is None
    assert call.session.closed is not None
    assert call.session.closed.reason is CloseReason.HUNG_UP


async def test_slow_start_up_ends_session_at_start_up_limit() -> None:
    class Slow(Quiet):
        async def start_up(self) -> None:
            await anyio.sleep_forever()

    async with open_call(Slow(), limits=Limits(start_up=2)) as call:
        began = anyio.current_time()
        await call.ended.wait()
        assert anyio.current_time() - began == pytest.approx(2, abs=0.1)
    assert call.session.closed is not None
    assert call.session.closed.reason is CloseReason.START_UP_TIMEOUT


async def test_start_up_that_never_returns_does_not_stop_media() -> None:
    class Long(AsyncEcho):
        async def start_up(self) -> None:
            try:
                await anyio.sleep_forever()
            finally:
                self.calls.append("start_up ended")

    handler = Long()
    async with open_call(handler) as call:
        await speak(call, tone(440, 48_000, 0.5))
        await anyio.sleep(0.1)
    assert np.any(heard(call))
    assert handler.calls == ["start_up ended", "shutdown"]


async def test_message_sent_before_channel_opens_arrives() -> None:
    class Greeter(Quiet):
        async def start_up(self) -> None:
            await self.send_message("hello")
            assert self.channel is not None
            self.channel.send("again")

    async with open_call(Greeter(), channel=False) as call:
        await anyio.sleep(5)
        call.client.open_channel()
        assert await call.client.receive_message() == "hello"
        assert await call.client.receive_message() == "again"


@pytest.mark.parametrize("slow", [False, True])
async def test_shutdown_is_cancelled_at_its_limit(slow: bool) -> None:
    class Lingering(Quiet):
        async def shutdown(self) -> None:
            await super().shutdown()
            await anyio.sleep(1000 if slow else 1)
            self.calls.append("finished")

    handler = Lingering()
    async with open_call(handler) as call:
        await anyio.sleep(0.1)
        began = anyio.current_time()
        call.client.hang_up()
        await call.ended.wait()
        assert anyio.current_time() - began == pytest.approx(5 if slow else 1, abs=0.1)
    assert handler.calls == (["shutdown"] if slow else ["shutdown", "finished"])


async def test_shutdown_error_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    class Wrong(Quiet):
        async def shutdown(self) -> None:
            raise ValueError("in shutdown")

    async with open_call(Wrong()) as call:
        await anyio.sleep(0.1)
    assert call.session.state is SessionState.CLOSED
    assert "shutdown failed" in caplog.text
    assert "in shutdown" in caplog.text


@pytest.mark.parametrize(
    "anyio_backend", [("trio", {"clock": trio.testing.MockClock(autojump_threshold=0)})]
)
async def test_blocked_sync_method_times_out_on_virtual_clock() -> None:
    release = threading.Event()

    class Blocked(Echo):
        def emit(self) -> EmitType:
            release.wait()
            return None

    try:
        with pytest.raises(TimeoutError, match=r"Blocked.emit did not return within 0.5 s"):
            async with open_call(Blocked(), limits=Limits(shutdown=0.2), thread_limit=0.5) as call:
                await call.ended.wait()
        assert call.session.abandoned_threads == 1
    finally:
        release.set()


async def test_clear_queue_returns_duration_played() -> None:
    class Talker(Quiet):
        async def emit(self) -> EmitType:
            if not self.calls:
                self.calls.append("emit")
                return 24_000, np.full(240_000, 1000, np.int16)
            await anyio.sleep(2)
            self.played = self.clear_queue()
            return await super().emit()

    handler = Talker()
    async with open_call(handler) as call:
        await anyio.sleep(5)
    assert handler.played.seconds == pytest.approx(2, abs=0.04)
    sounded = np.count_nonzero(heard(call))
    assert handler.played.samples <= sounded <= handler.played.samples + 24_000 * 0.005


async def test_sync_handler_uses_session_from_its_thread() -> None:
    class Threaded(Echo):
        def start_up(self) -> None:
            self.send_message_sync("from a thread")
            assert self.channel is not None
            self.channel.send("from the channel")
            self.calls.append(f"played {self.clear_queue().samples}")
            self.calls.append(f"portal {self.portal.call(lambda: 42)}")

    handler = Threaded()
    async with open_call(handler) as call:
        assert await call.client.receive_message() == "from a thread"
        assert await call.client.receive_message() == "from the channel"
        await anyio.sleep(0.1)
    assert handler.calls == ["played 0", "portal 42", "shutdown"]


async def test_send_message_sync_on_event_loop_raises() -> None:
    class Confused(Quiet):
        async def start_up(self) -> None:
            self.send_message_sync("oops")

    with pytest.raises(RuntimeError, match="await send_message here"):
        async with open_call(Confused()) as call:
            await call.ended.wait()


async def test_wait_for_args_sync_returns_after_set_args() -> None:
    class Waiting(Echo):
        def start_up(self) -> None:
            self.wait_for_args_sync()
            self.calls.append(f"got {self.latest_args[1:]}")

    handler = Waiting()
    async with open_call(handler) as call:
        message = json.loads(await call.client.receive_message())
        assert message["type"] == "send_input"
        handler.set_args([7])
        await anyio.sleep(0.1)
    assert handler.calls == ["got [7]", "shutdown"]


async def test_session_function_sending_after_hang_up_ends_without_error() -> None:
    async def talk(session: Session) -> None:
        while True:
            await session.audio_out.send((24_000, np.zeros((1, 480), np.int16)))

    async with open_call(talk, output_buffer_s=0.1) as call:
        await anyio.sleep(1)
        call.client.hang_up()
        await call.ended.wait()
    assert call.session.closed is not None
    assert call.session.closed.reason is CloseReason.HUNG_UP
    assert call.session.error is None


async def test_broken_resource_of_session_function_is_raised() -> None:
    async def broken(session: Session) -> None:
        raise anyio.BrokenResourceError

    with pytest.raises(anyio.BrokenResourceError):
        async with open_call(broken) as call:
            await call.ended.wait()


@pytest.mark.parametrize("kind", [Echo, AsyncEcho])
async def test_cancelled_host_ends_session_and_calls_shutdown(kind: Any) -> None:
    handler: StreamHandlerBase = kind()
    with anyio.CancelScope() as scope:
        async with open_call(handler) as call:
            await speak(call, tone(440, 48_000, 0.1))
            scope.cancel()
    assert scope.cancelled_caught
    assert call.session.state is SessionState.CLOSED
    assert call.session.closed is not None
    assert call.session.closed.reason is CloseReason.CANCELLED
    assert handler.calls == ["start_up", "shutdown"]  # type: ignore[attr-defined]


async def test_concurrent_errors_are_raised_as_group() -> None:
    class Twice(Quiet):
        async def start_up(self) -> None:
            await self._fail("one")

        async def emit(self) -> EmitType:
            await self._fail("two")
            return None

        async def _fail(self, text: str) -> None:
            try:
                await anyio.sleep_forever()
            finally:
                raise ValueError(text)

        async def receive(self, frame: Any) -> None:
            raise KeyError("three")

    with pytest.raises(ExceptionGroup) as caught:
        async with open_call(Twice()) as call:
            await speak(call, tone(440, 48_000, 0.1))
            await call.ended.wait()
    texts = {str(error) for error in _leaves(caught.value)}
    assert texts == {"one", "two", "'three'"}


async def test_client_messages_reach_handler_in_order() -> None:
    class Reader(Quiet):
        async def on_message(self, message: str) -> None:
            self.calls.append(message)

    handler = Reader()
    async with open_call(handler) as call:
        call.client.send_message("one")
        call.client.send_message("two")
        await anyio.sleep(0.1)
    assert handler.calls == ["one", "two", "shutdown"]


@pytest.mark.parametrize("exit_with", [SystemExit(3), NativePanic("native panic")])
@pytest.mark.parametrize("kind", [Failing, SyncFailing])
@pytest.mark.parametrize("where", ["start_up", "receive", "emit"])
async def test_system_exit_in_handler_ends_its_session_only(
    kind: Any, where: str, exit_with: BaseException
) -> None:
    handler = kind(where, exit_with)
    async with open_call(handler, raise_errors=False) as call:
        await speak(call, tone(440, 48_000, 0.1))
        await call.ended.wait()
        message = json.loads(await call.client.receive_message())
    assert message["type"] == "error"
    assert isinstance(call.session.error, HandlerContractError)
    assert f"{kind.__name__}.{where} raised" in str(call.session.error)
    assert call.session.error.__cause__ is exit_with
    assert handler.calls == ["shutdown"]


@pytest.mark.parametrize("kind", [Failing, SyncFailing])
async def test_generator_exit_in_handler_ends_its_session_only(kind: Any) -> None:
    async with open_call(kind("emit", GeneratorExit()), raise_errors=False) as call:
        await call.ended.wait()
    assert isinstance(call.session.error, HandlerContractError)


async def test_system_exit_in_listener_of_outputs_ends_its_session_only() -> None:
    class Publishing(Quiet):
        async def emit(self) -> EmitType:
            return AdditionalOutputs(1)

    def leave(outputs: object) -> None:
        raise SystemExit(1)

    async with open_call(Publishing(), raise_errors=False) as call:
        call.session.outputs.listen(leave)
        await call.ended.wait()
    assert isinstance(call.session.error, HandlerContractError)


async def test_system_exit_in_session_function_ends_its_session_only() -> None:
    async def leave(session: Session) -> None:
        raise SystemExit(1)

    async with open_call(leave, raise_errors=False) as call:
        await call.ended.wait()
    assert call.session.closed is not None
    assert call.session.closed.reason is CloseReason.HANDLER_ERROR


async def test_system_exit_in_shutdown_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    class Leaving(Quiet):
        async def shutdown(self) -> None:
            raise SystemExit(1)

    async with open_call(Leaving()) as call:
        await anyio.sleep(0.1)
    assert call.session.state is SessionState.CLOSED
    assert "Leaving.shutdown raised SystemExit(1)" in caplog.text


async def test_cancelled_error_raised_by_handler_is_contract_error() -> None:
    class Confused(Quiet):
        async def emit(self) -> EmitType:
            raise asyncio.CancelledError

    async with open_call(Confused(), raise_errors=False) as call:
        await call.ended.wait()
    assert isinstance(call.session.error, HandlerContractError)
    assert call.session.closed is not None
    assert call.session.closed.reason is CloseReason.HANDLER_ERROR


async def test_error_and_close_messages_are_converted_to_str() -> None:
    class Odd(Quiet):
        async def emit(self) -> EmitType:
            raise WebRTCError(ValueError("inner"))  # type: ignore[arg-type]

    async with open_call(Odd(), raise_errors=False) as call:
        await call.ended.wait()
        message = json.loads(await call.client.receive_message())
    assert message["message"] == "inner"

    class OddEnd(Quiet):
        async def emit(self) -> EmitType:
            return CloseStream(ValueError("done"))  # type: ignore[arg-type]

    async with open_call(OddEnd()) as call:
        await call.ended.wait()
        message = json.loads(await call.client.receive_message())
    assert message == {"type": "end_stream", "data": "done", "reason": "handler_closed"}


@pytest.mark.parametrize("by", ["host", "error", "limit"])
async def test_peer_closes_in_time_while_handler_resists_cancellation(by: str) -> None:
    class Stubborn(Quiet):
        async def start_up(self) -> None:
            if by == "error":
                await anyio.sleep(1)
                raise ValueError

        async def emit(self) -> EmitType:
            try:
                return await super().emit()
            finally:
                with anyio.CancelScope(shield=True):
                    await anyio.sleep(100)

    limits = Limits(time_limit=1 if by == "limit" else None)
    with anyio.CancelScope() as scope:
        async with open_call(Stubborn(), limits=limits, raise_errors=False) as call:
            if by == "host":
                await anyio.sleep(1)
                scope.cancel()
            with anyio.CancelScope(shield=True):
                began = anyio.current_time()
                closed = await call.peer.wait_closed()
                assert anyio.current_time() - began < 1.5
                assert closed.reason is CloseReason.CANCELLED
                assert json.loads(await call.client.receive_message())["type"] in (
                    "error",
                    "end_stream",
                )
    wanted = {
        "host": CloseReason.CANCELLED,
        "error": CloseReason.HANDLER_ERROR,
        "limit": CloseReason.TIME_LIMIT,
    }
    assert call.session.closed is not None
    assert call.session.closed.reason is wanted[by]


async def test_close_reason_survives_error_during_clean_up() -> None:
    class Clumsy(Quiet):
        async def emit(self) -> EmitType:
            try:
                return await super().emit()
            finally:
                raise ValueError("while cleaning up")

    async with open_call(Clumsy(), limits=Limits(time_limit=1), raise_errors=False) as call:
        await call.ended.wait()
    assert call.session.closed is not None
    assert call.session.closed.reason is CloseReason.TIME_LIMIT
    assert isinstance(call.session.error, ValueError)


async def test_sync_methods_of_async_handler_run_on_event_loop() -> None:
    class Mixed(Quiet):
        def on_message(self, message: str) -> None:
            self.calls.append(f"{message} {threading.get_ident()}")

        def shutdown(self) -> None:  # type: ignore[override]
            self.calls.append(f"shutdown {threading.get_ident()}")

    handler = Mixed()
    async with open_call(handler) as call:
        call.client.send_message("hello")
        await anyio.sleep(0.1)
    here = threading.get_ident()
    assert handler.calls == [f"hello {here}", f"shutdown {here}"]


async def test_slow_shutdown_leaves_no_idle_thread() -> None:
    class SlowToEnd(Echo):
        async def shutdown(self) -> None:  # type: ignore[override]
            await anyio.sleep(1000)

    def workers() -> list[str]:
        return [t.name for t in threading.enumerate() if t.name.startswith("SlowToEnd")]

    async with open_call(SlowToEnd()) as call:
        call.client.send_audio(AudioFrame(48_000, np.zeros((1, 2000), np.int16)))
        await anyio.sleep(0.1)
        assert workers()
    for thread in threading.enumerate():
        if thread.name.startswith("SlowToEnd"):
            thread.join(10)
    assert workers() == []


async def test_clear_queue_works_in_sync_shutdown() -> None:
    class Tidy(Echo):
        def shutdown(self) -> None:
            self.calls.append(f"flushed {self.clear_queue().samples}")

    handler = Tidy()
    async with open_call(handler):
        await anyio.sleep(0.1)
    assert handler.calls == ["start_up", "flushed 0"]


async def test_session_ids_are_unique_and_at_least_22_characters() -> None:
    async def nothing(session: Session) -> None: ...

    ids = {Session(None, FunctionDriver(nothing)).id for _ in range(100)}  # type: ignore[arg-type]
    assert len(ids) == 100
    assert all(len(one) >= 22 for one in ids)


def _leaves(error: BaseException) -> list[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        return [leaf for inner in error.exceptions for leaf in _leaves(inner)]
    return [error]


async def test_nested_calls_share_one_virtual_clock() -> None:
    async with open_call(Echo()) as outer:
        async with open_call(AsyncEcho()) as inner:
            await inner.speak(tone(440, 48_000, 0.5))
        await outer.speak(tone(440, 48_000, 0.5))
        await anyio.sleep(1)
    assert np.any(inner.heard)
    assert np.any(outer.heard)


@pytest.mark.parametrize(("rate", "size"), [(1_000, 200_000), (44_100, 1_000_000)])
async def test_converting_long_chunk_yields_to_other_tasks(rate: int, size: int) -> None:
    """Converting such a chunk takes a second or more."""

    class Long(Quiet):
        async def emit(self) -> EmitType:
            if "emit" in self.calls:
                return None
            self.calls.append("emit")
            return (rate, np.full(size, 0.25, np.float32))

    turns = 0

    async def count_turns() -> None:
        nonlocal turns
        while not call.peer.audio_out.statistics().sent:
            turns += 1
            await anyio.lowlevel.checkpoint()

    async with open_call(Long()) as call:
        await count_turns()
    assert turns > 50
    sent = call.peer.audio_out.statistics().sent
    assert abs(sent - size * 24_000 / rate) < 24_000 / rate * 64


async def test_converting_large_picture_yields_to_other_tasks() -> None:
    """A session function sends it, so no driver has converted it before."""
    turns = 0

    async def show(session: Session) -> None:
        picture = np.full((2048, 2048, 3), 0.25, np.float32)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(count_turns)
            await session.video_out.send(picture)
            tasks.cancel_scope.cancel()

    async def count_turns() -> None:
        nonlocal turns
        while True:
            turns += 1
            await anyio.lowlevel.checkpoint()

    async with open_call(show, modality="video") as call:
        picture = await call.client.receive_video()
        assert turns > 50
        assert picture.to_ndarray().shape == (2048, 2048, 3)


async def test_library_error_raised_in_handler_is_handler_error() -> None:
    """For example `UnknownSession` of a ``set_input`` call for an ended session."""

    class Asks(Quiet):
        async def emit(self) -> EmitType:
            raise UnknownSession("no session has the id 'bob'")

    async with open_call(Asks(), raise_errors=False) as call:
        text = await call.client.receive_message()
        await call.ended.wait()
    assert call.session.closed is not None
    assert call.session.closed.reason is CloseReason.HANDLER_ERROR
    assert json.loads(text)["type"] == "error"
    assert "bob" not in text


async def test_shutdown_timeout_abandons_only_the_blocked_thread() -> None:
    class Slow(Echo):
        def shutdown(self) -> None:
            time.sleep(0.3)

    async with open_call(Slow(), limits=Limits(shutdown=0.01)) as call:
        await speak(call, tone(440, 48_000, 0.1))
    assert call.session.abandoned_threads <= 1


async def test_virtual_clock_advances_after_call() -> None:
    async with open_call(Echo()):
        pass
    with anyio.fail_after(10):
        await anyio.sleep(5)


async def test_audio_handler_with_video_modality_raises() -> None:
    with pytest.raises(TypeError, match='is for modality="audio"'):
        async with open_call(Quiet(), modality="video"):
            pass


@pytest.mark.parametrize("rate", [24_000, 48_000])
async def test_clear_queue_flushes_audio_waiting_for_buffer_space(rate: int) -> None:
    class Eager(Quiet):
        interrupted = False

        async def emit(self) -> EmitType:
            return None if self.interrupted else (rate, np.full(rate, 1000, np.int16))

    handler = Eager()
    async with open_call(handler, output_buffer_s=5) as call:
        await anyio.sleep(3.5)
        handler.interrupted = True
        handler.clear_queue()
        count = len(call.client.heard)
        await anyio.sleep(3)
        out = call.peer.audio_out.statistics()
    after = np.concatenate(call.client.heard[count:], axis=1)
    assert np.count_nonzero(after) <= 24_000 * 0.03  # the fade
    assert out.sent == out.played + out.flushed + out.buffered
