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
    """Send audio as a client does: 20 ms every 20 ms."""
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
async def test_tone_in_is_tone_out(kind: Any, input_rate: int, output_rate: int) -> None:
    handler = kind(input_sample_rate=input_rate, output_sample_rate=output_rate)
    async with open_call(handler) as call:
        await speak(call, tone(440, 48_000, 1.0))
        await anyio.sleep(0.2)
    samples = heard(call)[0]
    loud = np.flatnonzero(np.abs(samples) > 1000)
    assert loud.size > 0.9 * output_rate
    if kind is Echo:  # two threads race for each frame
        assert typical_snr(samples, 440, output_rate) > 50
    else:
        middle = samples[loud[0] + output_rate // 10 : loud[-1] - output_rate // 10]
        assert tone_snr(middle, 440, output_rate) > 50
    assert handler.calls == ["start_up", "shutdown"]


@pytest.mark.parametrize("kind", [Echo, AsyncEcho])
async def test_stereo_stays_stereo(kind: Any) -> None:
    handler = kind(expected_layout="stereo", output_sample_rate=48_000)
    both = np.concatenate([tone(300, 48_000, 1.0), tone(700, 48_000, 1.0)])
    async with open_call(handler) as call:
        await speak(call, both)
        await anyio.sleep(0.2)
    for channel, frequency in enumerate((300, 700)):
        assert typical_snr(heard(call)[channel], frequency, 48_000) > 50


@pytest.mark.parametrize("layout", ["mono", "stereo"])
@pytest.mark.parametrize("rate", RATES)
async def test_receive_gets_whole_int16_frames(layout: str, rate: int) -> None:
    got: list[Any] = []

    class Listener(Quiet):
        async def receive(self, frame: Any) -> None:
            got.append(frame)

    handler = Listener(expected_layout=layout, input_sample_rate=rate)
    async with open_call(handler) as call:
        # Odd sizes, as no client would send them.
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
async def test_what_emit_may_return(emission: Any) -> None:
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
        ((24_000.0, np.zeros(480, np.int16)), "sample rate must be an int from .*; got 24000.0"),
        ((0, np.zeros(480, np.int16)), "from 1000 to 384000 Hz; got 0"),
        ((24_000, np.zeros(480, np.int32)), "int32"),
        ((24_000, np.full(480, np.nan, np.float32)), "NaN"),
        ((24_000, np.zeros((3, 480), np.int16)), r"\(3, 480\)"),
        ((24_000, np.zeros((1, 2, 480), np.int16)), r"\(1, 2, 480\)"),
        ((24_000, np.zeros(480, np.int16), "stereo"), r'"stereo" must have shape \(2, n\)'),
        ((24_000, np.zeros(480, np.int16), "quad"), "quad"),
    ],
)
async def test_what_emit_may_not_return(emission: Any, message: str) -> None:
    class Wrong(Quiet):
        async def emit(self) -> EmitType:
            return emission  # type: ignore[no-any-return]

    with pytest.raises(HandlerContractError, match=message) as caught:
        async with open_call(Wrong()) as call:
            await call.ended.wait()
    assert "Wrong.emit" in str(caught.value)


async def test_a_handler_may_work_ahead_but_not_without_bound() -> None:
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
    """Raises in one method."""

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
    """What some extension modules raise when they panic."""


class PlainFailing(StreamHandler):
    """Raises in one method, on a thread."""

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

    def copy(self) -> PlainFailing:
        return self


@pytest.mark.parametrize("kind", [Failing, PlainFailing])
@pytest.mark.parametrize("where", ["start_up", "receive", "emit"])
async def test_an_error_ends_the_session_and_the_client_is_told(kind: Any, where: str) -> None:
    error = ValueError("secret")
    handler = kind(where, error)
    async with open_call(handler, raise_errors=False) as call:
        call.client.send_audio(AudioFrame(48_000, np.zeros((1, 2000), np.int16)))
        with anyio.fail_after(1):
            closed = await call.peer.wait_closed()
            await call.ended.wait()
        message = json.loads(await call.client.receive_message())
    assert closed.reason is CloseReason.CANCELLED  # by this side
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


async def test_the_text_of_a_webrtc_error_reaches_the_client() -> None:
    async with open_call(Failing("start_up", WebRTCError("no credit")), raise_errors=False) as call:
        await call.ended.wait()
        message = json.loads(await call.client.receive_message())
    assert message == {"type": "error", "data": "no credit", "message": "no credit"}


async def test_an_error_leaves_the_call_as_it_was_raised() -> None:
    error = KeyError("x")
    with pytest.raises(KeyError) as caught:
        async with open_call(Failing("emit", error)) as call:
            await call.ended.wait()
    assert caught.value is error


async def test_close_stream_waits_for_what_was_queued() -> None:
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


async def test_the_time_limit() -> None:
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


async def test_the_connect_limit() -> None:
    handler = Quiet()
    async with open_call(handler, connect=False, raise_errors=False) as call:
        began = anyio.current_time()
        await call.ended.wait()
        assert anyio.current_time() - began == pytest.approx(30, abs=0.1)
    assert isinstance(call.session.error, ConnectTimeout)
    assert call.session.closed is not None
    assert call.session.closed.reason is CloseReason.CONNECT_TIMEOUT
    assert handler.calls == ["shutdown"]


async def test_hanging_up_before_the_connection_is_up() -> None:
    async with open_call(Quiet(), connect=False, raise_errors=False) as call:
        call.client.hang_up()
        await call.ended.wait()
    assert call.session.error is None
    assert call.session.closed is not None
    assert call.session.closed.reason is CloseReason.HUNG_UP


async def test_the_start_up_limit() -> None:
    class Slow(Quiet):
        async def start_up(self) -> None:
            await anyio.sleep_forever()

    async with open_call(Slow(), limits=Limits(start_up=2)) as call:
        began = anyio.current_time()
        await call.ended.wait()
        assert anyio.current_time() - began == pytest.approx(2, abs=0.1)
    assert call.session.closed is not None
    assert call.session.closed.reason is CloseReason.START_UP_TIMEOUT


async def test_a_start_up_as_long_as_the_session_is_fine() -> None:
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


async def test_a_greeting_sent_before_the_channel_is_open_arrives() -> None:
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
async def test_shutdown_has_its_limit(slow: bool) -> None:
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


async def test_a_shutdown_that_raises_is_logged(caplog: pytest.LogCaptureFixture) -> None:
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
async def test_a_plain_method_that_blocks_is_told_from_virtual_time() -> None:
    release = threading.Event()

    class Blocked(Echo):
        def emit(self) -> EmitType:
            release.wait()
            return None

    try:
        with pytest.raises(TimeoutError, match=r"Blocked.emit did not return within 1 s"):
            async with open_call(Blocked(), limits=Limits(shutdown=0.2)) as call:
                await call.ended.wait()
        assert call.session.abandoned_threads == 1
    finally:
        release.set()


async def test_clear_queue_returns_what_was_played() -> None:
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


async def test_plain_handlers_reach_the_session_from_their_threads() -> None:
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


async def test_send_message_sync_on_the_event_loop_is_an_error_not_a_deadlock() -> None:
    class Confused(Quiet):
        async def start_up(self) -> None:
            self.send_message_sync("oops")

    with pytest.raises(RuntimeError, match="await send_message here"):
        async with open_call(Confused()) as call:
            await call.ended.wait()


async def test_args_from_a_thread_and_on_the_loop() -> None:
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


async def test_a_session_function_that_talks_to_a_client_that_has_gone_is_no_error() -> None:
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


async def test_a_broken_stream_of_the_programs_own_is_its_own_error() -> None:
    async def broken(session: Session) -> None:
        raise anyio.BrokenResourceError

    with pytest.raises(anyio.BrokenResourceError):
        async with open_call(broken) as call:
            await call.ended.wait()


@pytest.mark.parametrize("kind", [Echo, AsyncEcho])
async def test_cancelling_the_host_ends_the_session(kind: Any) -> None:
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


async def test_two_errors_at_once_stay_two() -> None:
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


async def test_client_messages_reach_the_handler() -> None:
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
@pytest.mark.parametrize("kind", [Failing, PlainFailing])
@pytest.mark.parametrize("where", ["start_up", "emit"])
async def test_an_exit_in_a_handler_ends_its_session_not_the_server(
    kind: Any, where: str, exit_with: BaseException
) -> None:
    handler = kind(where, exit_with)
    async with open_call(handler, raise_errors=False) as call:
        await call.ended.wait()
        message = json.loads(await call.client.receive_message())
    assert message["type"] == "error"
    assert isinstance(call.session.error, HandlerContractError)
    assert f"{kind.__name__}.{where} raised" in str(call.session.error)
    assert call.session.error.__cause__ is exit_with
    assert handler.calls == ["shutdown"]


async def test_an_exit_in_a_session_function_ends_its_session() -> None:
    async def leave(session: Session) -> None:
        raise SystemExit(1)

    async with open_call(leave, raise_errors=False) as call:
        await call.ended.wait()
    assert call.session.closed is not None
    assert call.session.closed.reason is CloseReason.HANDLER_ERROR


async def test_an_exit_in_shutdown_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    class Leaving(Quiet):
        async def shutdown(self) -> None:
            raise SystemExit(1)

    async with open_call(Leaving()) as call:
        await anyio.sleep(0.1)
    assert call.session.state is SessionState.CLOSED
    assert "Leaving.shutdown raised SystemExit(1)" in caplog.text


async def test_a_cancellation_that_nobody_asked_for_is_an_error() -> None:
    class Confused(Quiet):
        async def emit(self) -> EmitType:
            raise asyncio.CancelledError

    async with open_call(Confused(), raise_errors=False) as call:
        await call.ended.wait()
    assert isinstance(call.session.error, HandlerContractError)
    assert call.session.closed is not None
    assert call.session.closed.reason is CloseReason.HANDLER_ERROR


async def test_messages_to_the_client_need_not_be_strings() -> None:
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
async def test_the_client_does_not_wait_for_a_handler_that_will_not_end(by: str) -> None:
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


async def test_the_first_reason_counts_although_cleaning_up_raises() -> None:
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


async def test_an_async_handlers_plain_methods_run_on_the_event_loop() -> None:
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


async def test_a_slow_shutdown_leaves_no_idle_thread() -> None:
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


async def test_clear_queue_in_a_plain_shutdown() -> None:
    class Tidy(Echo):
        def shutdown(self) -> None:
            self.calls.append(f"flushed {self.clear_queue().samples}")

    handler = Tidy()
    async with open_call(handler):
        await anyio.sleep(0.1)
    assert handler.calls == ["start_up", "flushed 0"]


async def test_ids_cannot_be_guessed() -> None:
    async def nothing(session: Session) -> None: ...

    ids = {Session(None, FunctionDriver(nothing)).id for _ in range(100)}  # type: ignore[arg-type]
    assert len(ids) == 100
    assert all(len(one) >= 22 for one in ids)


def _leaves(error: BaseException) -> list[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        return [leaf for inner in error.exceptions for leaf in _leaves(inner)]
    return [error]


async def test_calls_may_be_nested_on_one_clock() -> None:
    async with open_call(Echo()) as outer:
        async with open_call(AsyncEcho()) as inner:
            await inner.speak(tone(440, 48_000, 0.5))
        await outer.speak(tone(440, 48_000, 0.5))
        await anyio.sleep(1)
    assert np.any(inner.heard)
    assert np.any(outer.heard)


@pytest.mark.parametrize("rate", [1_000, 44_100])
async def test_a_long_chunk_lets_others_have_their_turn(rate: int) -> None:
    """A million samples at once: converting them takes a second or more."""

    class Long(Quiet):
        async def emit(self) -> EmitType:
            if "emit" in self.calls:
                return None
            self.calls.append("emit")
            return (rate, np.full(1_000_000, 0.25, np.float32))

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
    assert abs(sent - 1_000_000 * 24_000 / rate) < 24_000 / rate * 64


async def test_an_error_of_ours_that_a_handler_raises_is_the_handlers() -> None:
    """Such as that of ``set_input`` for somebody who has left."""

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


async def test_threads_that_are_idle_are_not_left_behind() -> None:
    class Slow(Echo):
        def shutdown(self) -> None:
            time.sleep(0.3)

    async with open_call(Slow(), limits=Limits(shutdown=0.01)) as call:
        await speak(call, tone(440, 48_000, 0.1))
    assert call.session.abandoned_threads <= 1


async def test_time_goes_on_after_a_call() -> None:
    async with open_call(Echo()):
        pass
    with anyio.fail_after(10):
        await anyio.sleep(5)


async def test_a_handler_that_does_not_suit_cannot_be_called() -> None:
    with pytest.raises(TypeError, match='is for modality="audio"'):
        async with open_call(Quiet(), modality="video"):
            pass


@pytest.mark.parametrize("rate", [24_000, 48_000])
async def test_what_waited_for_room_is_flushed_too(rate: int) -> None:
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
