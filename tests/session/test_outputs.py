"""A session's outputs: their readers, their bounds, and readers that wait for a session."""

from __future__ import annotations

import gc
import json
import warnings
from typing import Any

import anyio
import anyio.lowlevel
import pytest

import fastrtc_anyio
from fastrtc_anyio import (
    AdditionalOutputs,
    AsyncStreamHandler,
    EmitType,
    LimitExceeded,
    RequestLimits,
    Session,
    StreamHandler,
    UnknownSession,
    get_current_context,
)
from fastrtc_anyio._core.host import Host
from fastrtc_anyio._sessions.early import EarlyReaders
from fastrtc_anyio.outputs import BACKLOG, OutputBoard, OutputStream
from fastrtc_anyio.testing import open_call
from tests.kit.handlers import Quiet


async def read_all(reader: Any) -> list[Any]:
    return [outputs.args[0] async for outputs in reader]


async def test_each_reader_gets_all_outputs_since_it_began_in_order() -> None:
    board = OutputBoard()
    board.publish(AdditionalOutputs(0))
    first = board.read()
    board.publish(AdditionalOutputs(1))
    second = board.read()
    board.publish(AdditionalOutputs(2))
    assert board.statistics().readers == 2
    board.close()
    assert await read_all(first) == [0, 1, 2]
    assert await read_all(second) == [2]
    assert await read_all(board.read()) == []
    assert board.statistics().readers == 0


async def test_slow_reader_loses_oldest_outputs() -> None:
    board = OutputBoard()
    reader = board.read()
    for i in range(BACKLOG + 10):
        board.publish(AdditionalOutputs(i))
    board.close()
    assert await read_all(reader) == list(range(10, BACKLOG + 10))
    assert board.statistics().dropped == 10


async def test_unread_outputs_are_bounded() -> None:
    board = OutputBoard()
    for i in range(BACKLOG + 10):
        board.publish(AdditionalOutputs(i))
    assert board.statistics() == (
        fastrtc_anyio.outputs.OutputStatistics(published=BACKLOG + 10, dropped=10, readers=0)
    )
    board.close()
    assert await read_all(board.read()) == list(range(10, BACKLOG + 10))


async def test_waiting_reader_is_woken_and_closing_it_removes_it() -> None:
    board = OutputBoard()
    async with anyio.create_task_group() as tg:

        async def read_one() -> None:
            reader: Any = board.read()
            assert (await anext(reader)).args == (5,)
            await reader.aclose()

        tg.start_soon(read_one)
        await anyio.wait_all_tasks_blocked()
        board.publish(AdditionalOutputs(5))
    assert board.statistics().readers == 0
    board.publish(AdditionalOutputs(6))


async def test_outputs_without_reader_go_to_the_next_reader() -> None:
    """A page that reconnects gets the outputs published in between."""
    board = OutputBoard()
    first = board.read()
    board.publish(AdditionalOutputs(0))
    assert (await anext(first)).args == (0,)
    await first.aclose()
    board.publish(AdditionalOutputs(1))
    second, third = board.read(), board.read()
    board.publish(AdditionalOutputs(2))
    board.close()
    assert await read_all(second) == [1, 2]
    assert await read_all(third) == [2]


async def test_reader_before_its_session_gets_all_outputs() -> None:
    early = EarlyReaders(RequestLimits(early_seconds=30))
    board, other = OutputBoard(), OutputBoard()
    got: dict[str, list[Any]] = {}

    async def read(name: str, reader: Any) -> None:
        got[name] = await read_all(reader)

    async with anyio.create_task_group() as tg:
        for name in ("a", "b"):
            tg.start_soon(read, name, early.add("me"))
        tg.start_soon(read, "c", early.add("you"))
        await anyio.sleep(29)
        early.attach("me", board)
        assert len(early) == 1
        board.publish(AdditionalOutputs(1))
        early.attach("you", other)
        await anyio.sleep(29)  # the timeout ended with the attachment
        assert got == {}
        other.close()
        board.publish(AdditionalOutputs(2))
        board.close()
    assert got == {"a": [1, 2], "b": [1, 2], "c": []}


@pytest.mark.parametrize("asks", [True, False])
async def test_reader_without_session_ends_after_timeout(
    asks: bool, caplog: pytest.LogCaptureFixture
) -> None:
    reader = OutputStream(EarlyReaders(RequestLimits()).add("nobody"))
    began = anyio.current_time()
    if asks:
        with pytest.raises(UnknownSession, match="nobody"):
            await reader.wait_begun()
    else:
        assert await read_all(reader) == []
        assert "a session that did not begin in time" in caplog.text
        assert "nobody" not in caplog.text
    assert round(anyio.current_time() - began) == 10


async def test_closing_stream_ends_waiting_readers() -> None:
    early = EarlyReaders(RequestLimits())
    async with anyio.create_task_group() as tg:
        tg.start_soon(read_all, early.add("me"))
        await anyio.wait_all_tasks_blocked()
        began = anyio.current_time()
        early.close()
    assert anyio.current_time() - began < 1
    assert len(early) == 0


async def test_waiting_readers_beyond_limit_are_rejected() -> None:
    early = EarlyReaders(RequestLimits(early_clients=2))
    readers = [early.add("me"), early.add("you")]
    with pytest.raises(LimitExceeded, match=r"2 readers .*RequestLimits\.early_clients"):
        early.add("me")
    await readers[0].aclose()
    readers.append(early.add("me"))
    for reader in readers:
        await reader.aclose()


async def test_waiting_readers_of_one_client_leave_room_for_others() -> None:
    early = EarlyReaders(RequestLimits(early_clients=5, client_pending=2))
    readers = [early.add("me", client="a"), early.add("you", client="a")]
    with pytest.raises(LimitExceeded, match=r"2 readers .*RequestLimits\.client_pending") as caught:
        early.add("me", client="a")
    assert caught.value.retry_after
    readers += [early.add("me", client="b"), early.add("me"), early.add("me")]
    with pytest.raises(LimitExceeded, match=r"RequestLimits\.early_clients"):
        early.add("me", client="c")
    early.attach("you", OutputBoard())
    readers.append(early.add("you", client="a"))
    for reader in readers:
        await reader.aclose()
    assert len(early) == 0
    assert not early._awaited


async def test_abandoned_waiting_reader_is_removed() -> None:
    early = EarlyReaders(RequestLimits())
    for number in range(100):
        stream = OutputStream(early.add(f"unknown {number}"))
        del stream
    gc.collect()
    assert len(early) == 0
    reader = early.add("me")
    async with anyio.create_task_group() as tg:
        tg.start_soon(read_all, reader)
        await anyio.wait_all_tasks_blocked()
        began = anyio.current_time()
        await reader.aclose()
    assert anyio.current_time() - began < 1


async def test_output_stream_abandoned_in_a_cycle_leaves_no_open_channel() -> None:
    """The garbage collector finalizes the objects of a cycle in any order."""
    board = OutputBoard()
    cycle: list[Any] = [board.read(), board]
    cycle.append(cycle)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        del cycle, board
        gc.collect()
    assert [str(warning.message) for warning in caught] == []


async def test_latest_waits_only_for_the_first_output() -> None:
    board = OutputBoard()
    got: list[Any] = []

    async def wait() -> None:
        got.append((await board.latest()).args)

    async with anyio.create_task_group() as tg:
        tg.start_soon(wait)
        await anyio.wait_all_tasks_blocked()
        assert got == []
        board.publish(AdditionalOutputs(1))
    board.publish(AdditionalOutputs(2))
    await wait()
    assert got == [(1,), (2,)]
    empty = OutputBoard()
    empty.close()
    with pytest.raises(anyio.EndOfStream):
        await empty.latest()


async def test_send_only_handler_may_emit_outputs_alone() -> None:
    class Counter(Quiet):
        async def emit(self) -> EmitType:
            await anyio.sleep(0.1)
            self.calls.append("emit")
            return AdditionalOutputs(self.calls.count("emit"))

    async with open_call(Counter(), mode="send") as call:
        reader = call.session.outputs.read()
        await anyio.sleep(1.05)
        call.client.hang_up()
        await call.ended.wait()
    assert (await read_all(reader))[:5] == [1, 2, 3, 4, 5]


class AsyncWarns(Quiet):
    async def start_up(self) -> None:
        self.calls.append(get_current_context().webrtc_id)
        fastrtc_anyio.Warning("mind the gap")


class Warns(StreamHandler):
    def __init__(self) -> None:
        super().__init__()
        self.calls: list[str] = []

    def start_up(self) -> None:
        self.calls.append(get_current_context().webrtc_id)
        fastrtc_anyio.Warning("mind the gap")

    def receive(self, frame: Any) -> None: ...
    def emit(self) -> EmitType: ...
    def copy(self) -> Warns:
        return Warns()


@pytest.mark.parametrize("kind", [Warns, AsyncWarns])
async def test_handler_reads_current_context_and_sends_warning(kind: Any) -> None:
    handler = kind()
    async with open_call(handler) as call:
        warning = json.loads(await call.client.receive_message())
    assert warning == {"type": "warning", "data": "mind the gap", "message": "mind the gap"}
    assert handler.calls[0] == call.session.id


def test_context_and_warning_outside_handler_raise() -> None:
    with pytest.raises(RuntimeError, match=r"get_current_context\(\) is for handlers"):
        get_current_context()
    with pytest.raises(RuntimeError, match=r"Warning\(\) is for handlers"):
        fastrtc_anyio.Warning("unheard")


async def test_session_function_sends_outputs_and_receives_messages() -> None:
    async def serve(session: Session) -> None:
        while True:
            text = await session.messages.receive()
            session.send_outputs(AdditionalOutputs(text.upper()))

    async with open_call(serve) as call:
        reader: Any = call.session.outputs.read()
        call.client.send_message("hello")
        assert (await anext(reader)).args == ("HELLO",)
        assert json.loads(await call.client.receive_message())["type"] == "fetch_output"
        await reader.aclose()


async def test_statistics_count_every_channel() -> None:
    import numpy as np

    from fastrtc_anyio.testing import tone

    class Says(AsyncStreamHandler):
        async def receive(self, frame: Any) -> None: ...
        async def emit(self) -> EmitType:
            return (24_000, np.ones((1, 480), np.int16))

        def copy(self) -> Says:
            return Says()

    async with open_call(Says(), output_buffer_s=0.1) as call:
        call.client.send_message("h\N{LATIN SMALL LETTER E WITH ACUTE}")
        await call.speak(tone(440, 48_000, 1.0))
        now = call.session.statistics()
    assert now.audio_in is not None
    assert now.audio_in.received == 50
    assert now.audio_in.bytes == 50 * 960 * 2
    assert now.audio_in.dropped == 0
    assert now.audio_out is not None
    out = now.audio_out
    assert out.sent == out.played + out.flushed + out.trimmed + out.buffered
    assert out.bytes == out.sent * 2
    assert 0 < out.latency <= 0.12
    assert now.messages.received == 1
    assert now.messages.bytes_received == 3
    assert now.video_in is None
    assert now.video_out is None
    assert now.abandoned_threads == 0
    assert await call.session.transport_statistics() == {}


async def test_garbage_collected_reader_is_removed() -> None:
    board = OutputBoard()
    board.publish(AdditionalOutputs(1))

    async def read() -> None:
        async for _ in board.read():
            pass

    with anyio.move_on_after(1):
        await read()
    await anyio.lowlevel.checkpoint()  # until then the event loop holds the cancellation
    gc.collect()
    assert board.statistics().readers == 0
    board.publish(AdditionalOutputs(2))
    board.close()


@pytest.mark.parametrize("connect", [True, False])
async def test_shutdown_can_use_asyncio_loop_and_portal(connect: bool) -> None:
    done: list[Any] = []

    class Async(Quiet):
        async def shutdown(self) -> None:
            done.append(await self.run_asyncio(checkpoint_and_add, 1, 2))

    class Plain(Warns):
        def shutdown(self) -> None:
            done.append(self.portal.call(checkpoint_and_add, 3, 4))

    for handler in (Async(), Plain()):
        if isinstance(handler, Async) and Host().asyncio_loop is None:
            continue  # a second loop, in a thread, is tested where real time passes
        limits = fastrtc_anyio.Limits(connect=0.1)
        async with open_call(handler, connect=connect, limits=limits, raise_errors=False) as call:
            await anyio.sleep(1)
            call.client.hang_up()
            await call.ended.wait()
    assert done[-1] == 7


async def checkpoint_and_add(one: int, two: int) -> int:
    await anyio.lowlevel.checkpoint()
    return one + two
