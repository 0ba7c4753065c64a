"""Audio helpers: faithful MP3 files, exact conversions, and queues that lose no item."""

from __future__ import annotations

import asyncio
import io
import os
import queue
import subprocess
import sys
import tempfile
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import anyio
import av
import numpy as np
import pytest
import trio.testing
from anyio.streams.memory import MemoryObjectReceiveStream

from fastrtc_anyio import audio as audio_module
from fastrtc_anyio._media.frames import Int16Array
from fastrtc_anyio.audio import (
    MP3_SAMPLE_RATES,
    aggregate_bytes_to_16bit,
    async_aggregate_bytes_to_16bit,
    audio_to_bytes,
    audio_to_file,
    audio_to_float32,
    audio_to_int16,
    wait_for_item,
)
from fastrtc_anyio.errors import UnsupportedFormat
from fastrtc_anyio.testing import tone, tone_snr

on_asyncio = pytest.mark.parametrize("anyio_backend", ["asyncio"], indirect=True)
on_trio = pytest.mark.parametrize("anyio_backend", ["trio"], indirect=True)


def test_import_loads_neither_pyav_nor_an_event_loop() -> None:
    code = (
        "import sys, fastrtc_anyio.audio;"
        "print(sorted({'asyncio', 'av', 'trio'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# MP3.


def decode(contents: bytes) -> tuple[int, Int16Array]:
    with av.open(io.BytesIO(contents), "r") as container:
        stream = container.streams.audio[0]
        frames: list[Any] = [frame.to_ndarray() for frame in container.decode(stream)]
        return stream.rate, audio_to_int16(np.concatenate(frames, axis=1))


def likeness(decoded: Int16Array, original: Int16Array) -> float:
    """Return the SNR in dB after fitting the gain: LAME lowers it by 5 %."""
    got = decoded[: original.size].astype(np.float64)
    wanted = original.astype(np.float64)
    fitted = wanted * (got @ wanted) / (wanted @ wanted)
    return float(10 * np.log10(np.sum(fitted**2) / np.sum((got - fitted) ** 2)))


def as_dtype(samples: Int16Array, dtype: Any) -> Any:
    return audio_to_float32(samples) if dtype == np.float32 else samples


@pytest.mark.parametrize("dtype", [np.int16, np.float32])
@pytest.mark.parametrize("rate", MP3_SAMPLE_RATES)
def test_tone_keeps_its_snr_in_the_file(rate: int, dtype: Any) -> None:
    samples = tone(440, rate, 0.5)
    file_rate, decoded = decode(audio_to_bytes((rate, as_dtype(samples, dtype))))
    assert file_rate == rate
    assert decoded.shape == samples.shape
    assert tone_snr(decoded[0], 440, rate) > 55
    assert likeness(decoded[0], samples[0]) > 40
    assert 0.9 < np.abs(decoded).max() / np.abs(samples).max() <= 1


# FastRTC writes the bytes of float32 samples as int16 (defect D7).
def test_float32_and_int16_give_the_same_file() -> None:
    samples = tone(440, 24000, 0.5)
    as_floats = audio_to_float32(samples)
    assert audio_to_bytes((24000, as_floats)) == audio_to_bytes((24000, samples))
    loud = np.concatenate([as_floats, as_floats * 8], axis=1)
    clipped = np.clip(loud, -1, 1).astype(np.float32)
    assert audio_to_bytes((24000, loud)) == audio_to_bytes((24000, clipped))


@pytest.mark.parametrize("dtype", [np.int16, np.float32])
@pytest.mark.parametrize("rate", [16000, 48000])
def test_channels_do_not_mix(rate: int, dtype: Any) -> None:
    samples = np.concatenate([tone(440, rate, 0.5), tone(1000, rate, 0.5)])
    _, decoded = decode(audio_to_bytes((rate, as_dtype(samples, dtype))))
    assert decoded.shape == samples.shape
    for channel, frequency in enumerate([440, 1000]):
        assert tone_snr(decoded[channel], frequency, rate) > 50
        assert likeness(decoded[channel], samples[channel]) > 40


def test_flat_array_is_mono_and_views_are_accepted() -> None:
    samples = tone(440, 16000, 0.5)
    contents = audio_to_bytes((16000, samples))
    assert audio_to_bytes((16000, samples[0])) == contents
    every_second: Int16Array = np.repeat(samples[0], 2)[::2]
    assert audio_to_bytes((16000, every_second)) == contents
    interleaved = np.ascontiguousarray(np.repeat(samples, 2, axis=0).T)
    assert decode(audio_to_bytes((16000, interleaved.T)))[1].shape == (2, 8000)


@pytest.mark.parametrize(
    ("rate", "file_rate"),
    [(1000, 8000), (7999, 8000), (12001, 16000), (22000, 22050), (96000, 48000), (192000, 48000)],
)
def test_rates_missing_in_mp3_are_resampled(rate: int, file_rate: int) -> None:
    # Longer than a second, because the audio is resampled second by second.
    samples = tone(200, rate, 1.5)
    got_rate, decoded = decode(audio_to_bytes((rate, samples)))
    wanted = -(-samples.size * file_rate // rate)
    assert got_rate == file_rate
    assert decoded.shape == (1, wanted)
    middle = decoded[0, wanted // 20 : -wanted // 20]
    assert tone_snr(middle, 200, file_rate) > 60
    assert likeness(decoded[0], tone(200, file_rate, wanted / file_rate)[0]) > 35


def test_mp3_rates_match_the_encoder() -> None:
    assert sorted(av.Codec("libmp3lame", "w").audio_rates or ()) == list(MP3_SAMPLE_RATES)


def test_rate_may_be_a_numpy_int_or_a_whole_float() -> None:
    samples = tone(440, 16000, 0.1)
    contents = audio_to_bytes((16000, samples))
    rates: list[Any] = [np.int32(16000), 16000.0, np.float64(16000)]
    assert [audio_to_bytes((rate, samples)) for rate in rates] == [contents] * 3


@pytest.mark.parametrize("count", [1, 575, 576, 577, 1152, 1153])
def test_short_audio_is_complete(count: int) -> None:
    samples = tone(440, 8000, 1.0)[:, :count]
    _, decoded = decode(audio_to_bytes((8000, samples)))
    assert count <= decoded.shape[1] <= count + 48


SAMPLES = np.zeros((1, 320), np.int16)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (SAMPLES, r"\(rate, samples\) or .*; got int16 array of shape \(1, 320\)"),
        ((16000, SAMPLES, "quad"), r"got \(16000, int16 array of shape \(1, 320\), 'quad'\)"),
        ((SAMPLES, 16000), "sample rate .* got int16 array"),
        ((0, SAMPLES), "from 1000 to 384000 Hz; got 0"),
        ((999, SAMPLES), "got 999"),
        ((384001, SAMPLES), "got 384001"),
        ((True, SAMPLES), "got True"),
        ((16000.5, SAMPLES), "got 16000.5"),
        ((float("nan"), SAMPLES), "got nan"),
        (("16000", SAMPLES), "got '16000'"),
        ((16000, b"\0\0"), r"int16 or float32 array .*; got b'\\x00\\x00'"),
        ((16000, SAMPLES.astype(float)), "int16 or float32.*got float64 array"),
        ((16000, SAMPLES.T), r"\(1, n\) or \(2, n\); got int16 array of shape \(320, 1\)"),
        ((16000, np.full((1, 320), np.nan, np.float32)), "NaN"),
        ((16000, SAMPLES[:, :0]), "at least one sample"),
    ],
)
def test_unsupported_audio_is_rejected(wrong: Any, message: str) -> None:
    with pytest.raises(UnsupportedFormat, match=message):
        audio_to_bytes(wrong)


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_each_call_creates_a_file(temporary: Path) -> None:
    value = (16000, tone(440, 16000, 0.1))
    first, second = audio_to_file(value), audio_to_file(value)
    assert first != second
    for path in (first, second):
        assert path.endswith(".mp3")
        assert Path(path).read_bytes() == audio_to_bytes(value)
        os.unlink(path)
    assert list(temporary.iterdir()) == []


def test_failure_leaves_no_file(temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UnsupportedFormat):
        audio_to_file((16000, SAMPLES[:, :0]))
    assert list(temporary.iterdir()) == []

    class Full(io.FileIO):
        def write(self, data: Any) -> int:
            raise OSError("no space left on device")

    monkeypatch.setattr(audio_module, "open", Full, raising=False)
    with pytest.raises(OSError, match="no space left"):
        audio_to_file((16000, SAMPLES))
    assert list(temporary.iterdir()) == []


# Conversions.


@pytest.mark.parametrize("shape", [(), (0,), (6,), (1, 6), (2, 3), (3, 2), (6, 1), (1, 2, 3)])
def test_conversions_keep_the_shape(shape: tuple[int, ...]) -> None:
    samples = np.full(shape, -16384, np.int16)
    floats = np.full(shape, -0.5, np.float32)
    for as_floats in (audio_to_float32(samples), audio_to_float32((24000, samples))):
        assert as_floats.dtype == np.float32
        assert as_floats.shape == shape
        assert np.array_equal(as_floats, floats)
    for as_ints in (audio_to_int16(floats), audio_to_int16((24000, floats))):
        assert as_ints.dtype == np.int16
        assert as_ints.shape == shape
        assert np.array_equal(as_ints, samples)


def test_array_with_the_dtype_is_returned_itself() -> None:
    floats = np.array([0.5, 1.5], np.float32)
    assert audio_to_int16(SAMPLES) is SAMPLES
    assert audio_to_float32((16000, floats)) is floats


# FastRTC wraps samples beyond full scale (defect D17).
def test_to_int16_saturates() -> None:
    floats = np.array([1, 1.01, 2, 3e38, -1, -1.01, -2, -3e38], np.float32)
    assert audio_to_int16(floats).tolist() == [32767] * 4 + [-32767] * 4


@pytest.mark.parametrize("dtype", [np.int32, np.int64])
def test_wider_integers_are_on_the_scale_of_int16_and_saturate(dtype: Any) -> None:
    wide = np.array([[0, 1, -16384, 40000], [32767, -32768, -40000, 2**31 - 1]], dtype)
    narrow = [[0, 1, -16384, 32767], [32767, -32768, -32768, 32767]]
    for given in (wide, (24000, wide)):
        assert audio_to_int16(given).tolist() == narrow
        assert audio_to_int16(given).dtype == np.int16
        assert (audio_to_float32(given) * 2**15).tolist() == narrow
        assert audio_to_float32(given).dtype == np.float32


@pytest.mark.parametrize(
    ("wrong", "got"),
    [
        (np.zeros(3), "got float64 array"),
        ((16000, np.zeros(3, np.uint8)), r"got \(16000, uint8 array of shape \(3,\)\)"),
        ((16000, SAMPLES, "mono"), r"got \(16000, int16 array of shape \(1, 320\), 'mono'\)"),
        ((SAMPLES, 16000), r"got \(int16 array of shape \(1, 320\), 16000\)"),
        ([0.5], r"got \[0.5\]"),
        (b"\0\0", r"got b'\\x00\\x00'"),
        (None, "got None"),
    ],
)
def test_conversions_reject_other_types(wrong: Any, got: str) -> None:
    # FastRTC raises a TypeError.
    assert issubclass(UnsupportedFormat, TypeError)
    for convert in (audio_to_float32, audio_to_int16):
        with pytest.raises(UnsupportedFormat, match=f"int64 or float32 array, or .*{got}"):
            convert(wrong)


def test_to_int16_rejects_nan() -> None:
    with pytest.raises(UnsupportedFormat, match="NaN"):
        audio_to_int16(np.array([0, np.nan], np.float32))


# Bytes in pieces.

PIECES = [b"\x01", b"", b"\x02\x03", b"\x04\x05\x06", b"\x07"]
ARRAYS = [[[0x0201]], [[0x0403, 0x0605]]]


async def pieces() -> AsyncGenerator[bytes, None]:
    for piece in PIECES:
        await anyio.sleep(1)
        yield piece


def test_pieces_are_joined() -> None:
    arrays = list(aggregate_bytes_to_16bit(PIECES))
    assert [array.tolist() for array in arrays] == ARRAYS
    assert all(array.dtype == np.int16 and array.flags.writeable for array in arrays)


def test_bytearray_and_memoryview_are_accepted() -> None:
    kinds: list[Any] = [bytearray(b"\x01"), memoryview(b"\x02\xff"), b"\xff"]
    assert [array.tolist() for array in aggregate_bytes_to_16bit(kinds)] == [[[0x0201]], [[-1]]]


@pytest.mark.parametrize(
    ("wrong", "got"),
    [(["12"], "'12'"), (b"12", "49"), ([SAMPLES], "int16 array"), ([None], "None")],
)
def test_pieces_must_be_bytes(wrong: Any, got: str) -> None:
    with pytest.raises(UnsupportedFormat, match=f"chunks must be bytes of 16-bit PCM; got {got}"):
        list(aggregate_bytes_to_16bit(wrong))


async def test_async_pieces_are_joined() -> None:
    arrays = [array.tolist() async for array in async_aggregate_bytes_to_16bit(pieces())]
    assert arrays == ARRAYS


async def test_pieces_of_a_memory_stream_are_joined() -> None:
    send, receive = anyio.create_memory_object_stream[bytes](9)
    for piece in PIECES:
        send.send_nowait(piece)
    send.close()
    arrays = [array.tolist() async for array in async_aggregate_bytes_to_16bit(receive)]
    assert arrays == ARRAYS
    with pytest.raises(anyio.ClosedResourceError):
        receive.receive_nowait()


async def test_iterable_without_aclose() -> None:
    class Pieces:
        def __aiter__(self) -> AsyncIterator[bytes]:
            return self

        def __init__(self) -> None:
            self.left = list(PIECES)

        async def __anext__(self) -> bytes:
            await anyio.sleep(1)
            if not self.left:
                raise StopAsyncIteration
            return self.left.pop(0)

    arrays = [array.tolist() async for array in async_aggregate_bytes_to_16bit(Pieces())]
    assert arrays == ARRAYS


class Recorded:
    """A source that records the task in which it is closed."""

    def __init__(self) -> None:
        self.closed_in: list[int] = []

    async def pieces(self) -> AsyncGenerator[Any, None]:
        try:
            yield b"\x01\x02"
            yield b"\x03\x04"
            yield "text"
        finally:
            self.closed_in.append(anyio.get_current_task().id)


async def test_early_exit_closes_the_source() -> None:
    source = Recorded()
    generator = source.pieces()
    async with aclosing(async_aggregate_bytes_to_16bit(generator)) as arrays:
        async for _ in arrays:
            break
        assert source.closed_in == []
    assert source.closed_in == [anyio.get_current_task().id]
    await generator.aclose()


async def test_error_closes_the_source() -> None:
    source = Recorded()
    with pytest.raises(UnsupportedFormat, match="got 'text'"):
        async for _ in async_aggregate_bytes_to_16bit(source.pieces()):
            pass
    assert source.closed_in == [anyio.get_current_task().id]


async def test_cancellation_closes_the_source() -> None:
    closed: list[bool] = []

    async def slow() -> AsyncGenerator[bytes, None]:
        try:
            yield b"\x01\x02"
            await anyio.sleep_forever()
        finally:
            closed.append(True)

    with anyio.move_on_after(1) as scope:
        async for _ in async_aggregate_bytes_to_16bit(slow()):
            pass
    assert scope.cancelled_caught
    assert closed == [True]


# The next item of a queue.


class Pipe:
    """Both ends of a queue of either kind."""

    def __init__(self, queue: Any, put: Callable[[int], None]) -> None:
        self.queue = queue
        self.put = put

    def left(self) -> list[int]:
        """Take all remaining items."""
        if isinstance(self.queue, MemoryObjectReceiveStream):
            count = self.queue.statistics().current_buffer_used
            return [self.queue.receive_nowait() for _ in range(count)]
        return [self.queue.get_nowait() for _ in range(self.queue.qsize())]


@pytest.fixture
def pipe(request: pytest.FixtureRequest) -> Iterator[Pipe]:
    if request.param == "queue":
        queue = asyncio.Queue[int]()
        yield Pipe(queue, queue.put_nowait)
        return
    send, receive = anyio.create_memory_object_stream[int](100)
    with send, receive:
        yield Pipe(receive, send.send_nowait)


with_both_queues = pytest.mark.parametrize(
    ("anyio_backend", "pipe"),
    [("asyncio", "stream"), ("asyncio", "queue"), ("trio", "stream")],
    indirect=True,
)


@with_both_queues
async def test_queued_items_are_returned_in_order_at_once(pipe: Pipe) -> None:
    for item in range(3):
        pipe.put(item)
    began = anyio.current_time()
    assert [await wait_for_item(pipe.queue) for _ in range(3)] == [0, 1, 2]
    assert anyio.current_time() == began


@with_both_queues
async def test_timeout_returns_none(pipe: Pipe) -> None:
    began = anyio.current_time()
    assert await wait_for_item(pipe.queue) is None
    assert anyio.current_time() - began == pytest.approx(0.1)
    assert await wait_for_item(pipe.queue, timeout=3) is None
    assert anyio.current_time() - began == pytest.approx(3.1)


@with_both_queues
async def test_item_before_the_timeout_is_returned(pipe: Pipe) -> None:
    async def put() -> None:
        await anyio.sleep(0.05)
        pipe.put(7)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(put)
        began = anyio.current_time()
        assert await wait_for_item(pipe.queue) == 7
        assert anyio.current_time() - began == pytest.approx(0.05)


@with_both_queues
@pytest.mark.parametrize("timeout", [0, -1])
async def test_timeout_0_takes_a_queued_item(pipe: Pipe, timeout: float) -> None:
    assert await wait_for_item(pipe.queue, timeout) is None
    pipe.put(7)
    assert await wait_for_item(pipe.queue, timeout) == 7
    assert await wait_for_item(pipe.queue, timeout) is None


async def test_waiting_sender_is_served() -> None:
    send, receive = anyio.create_memory_object_stream[int](0)
    with send, receive:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(send.send, 7)
            await anyio.sleep(1)
            assert await wait_for_item(receive, 0) == 7


@with_both_queues
async def test_full_queue_lets_other_tasks_run(pipe: Pipe) -> None:
    ran = anyio.Event()

    async def other() -> None:
        ran.set()

    for item in range(3):
        pipe.put(item)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(other)
        for _ in range(3):
            await wait_for_item(pipe.queue)
        assert ran.is_set()


@with_both_queues
async def test_item_at_the_timeout_is_not_lost(pipe: Pipe) -> None:
    got: list[int] = []

    async def put() -> None:
        for item in range(50):
            await anyio.sleep(0.25)
            pipe.put(item)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(put)
        # Started before the next sleep and after it, so that each timer is first once.
        for timeout in [0.25, 0.125, 0.125] * 40:
            item = await wait_for_item(pipe.queue, timeout)
            got += [] if item is None else [item]
    assert got + pipe.left() == list(range(50))


@pytest.mark.parametrize(
    ("anyio_backend", "pipe"), [("asyncio", "stream"), ("asyncio", "queue")], indirect=True
)
@pytest.mark.parametrize("first", ["item", "timeout"])
async def test_item_in_the_same_step_as_the_timeout_on_asyncio(pipe: Pipe, first: str) -> None:
    loop = asyncio.get_running_loop()
    deadline = loop.time() + 1
    got: list[int | None] = []

    async def wait() -> None:
        got.append(await wait_for_item(pipe.queue, 1))

    # As callbacks of the loop, both run in one iteration before the waiting task.
    if first == "item":
        loop.call_at(deadline, pipe.put, 7)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(wait)
        await anyio.sleep(0.5)
        if first == "timeout":
            loop.call_at(deadline, pipe.put, 7)
        await anyio.sleep(1)
    assert got + pipe.left() == ([7] if first == "item" else [None, 7])


@on_trio
async def test_item_in_the_same_step_as_the_timeout_on_trio() -> None:
    clock = trio.lowlevel.current_clock()
    assert isinstance(clock, trio.testing.MockClock)
    got: list[int | None] = []
    send, receive = anyio.create_memory_object_stream[int](1)

    async def wait() -> None:
        got.append(await wait_for_item(receive, 1))

    with send, receive:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(wait)
            await anyio.sleep(0.5)
            send.send_nowait(7)
            # trio checks the deadlines before it runs the task that has received the item.
            clock.jump(1)
    assert got == [7]


async def test_unbuffered_item_at_the_timeout_is_not_lost() -> None:
    send, receive = anyio.create_memory_object_stream[int](0)
    sent: list[int] = []
    got: list[int] = []

    async def put() -> None:
        for item in range(100):
            await anyio.sleep(0.25)
            try:
                send.send_nowait(item)
            except anyio.WouldBlock:
                continue
            sent.append(item)

    with send, receive:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(put)
            for timeout in [0.25, 0.125, 0.5] * 50:
                received = await wait_for_item(receive, timeout)
                got += [] if received is None else [received]
    assert got == sent
    assert sent


@with_both_queues
@pytest.mark.parametrize("order", ["item first", "cancelled first"])
async def test_cancelled_call_takes_no_item(pipe: Pipe, order: str) -> None:
    got: list[int | None] = []

    async def wait() -> None:
        got.append(await wait_for_item(pipe.queue, 100))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(wait)
        await anyio.sleep(1)
        if order == "item first":
            pipe.put(7)
            tasks.cancel_scope.cancel()
        else:
            tasks.cancel_scope.cancel()
            pipe.put(7)
    assert got + pipe.left() == [7]


@with_both_queues
async def test_call_in_a_cancelled_scope_takes_no_item(pipe: Pipe) -> None:
    pipe.put(7)
    with anyio.CancelScope() as scope:
        scope.cancel()
        await wait_for_item(pipe.queue)
    assert scope.cancelled_caught
    assert pipe.left() == [7]


@on_asyncio
async def test_task_cancelled_by_asyncio_leaves_the_item() -> None:
    queue = asyncio.Queue[int]()
    task = asyncio.create_task(wait_for_item(queue, 100))
    await asyncio.sleep(1)
    queue.put_nowait(7)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert queue.get_nowait() == 7


async def test_closed_stream_raises() -> None:
    send, receive = anyio.create_memory_object_stream[int](1)
    send.send_nowait(7)
    async with anyio.create_task_group() as tasks:

        async def close() -> None:
            await anyio.sleep(1)
            send.close()

        tasks.start_soon(close)
        assert await wait_for_item(receive) == 7
        with pytest.raises(anyio.EndOfStream):
            await wait_for_item(receive, 5)
    with pytest.raises(anyio.EndOfStream):
        await wait_for_item(receive)
    receive.close()
    with pytest.raises(anyio.ClosedResourceError):
        await wait_for_item(receive)


@pytest.mark.skipif(sys.version_info < (3, 13), reason="queues are shut down since Python 3.13")
@on_asyncio
async def test_shut_down_asyncio_queue_raises() -> None:
    queue: Any = asyncio.Queue()
    shut_down: Any = asyncio.QueueShutDown  # type: ignore[attr-defined, unused-ignore]
    queue.put_nowait(7)
    queue.shutdown()
    assert await wait_for_item(queue) == 7
    with pytest.raises(shut_down):
        await wait_for_item(queue, 0)


@on_trio
async def test_asyncio_queue_under_trio_is_rejected() -> None:
    with pytest.raises(TypeError, match=r"under trio: use anyio\.create_memory_object_stream"):
        await wait_for_item(asyncio.Queue[int]())


@pytest.mark.parametrize(
    ("wrong", "got"), [(queue.Queue(), "queue.Queue"), ([], "list"), (None, "NoneType")]
)
async def test_other_queues_are_rejected(wrong: Any, got: str) -> None:
    with pytest.raises(TypeError, match=rf"create_memory_object_stream.*got .*{got}"):
        await wait_for_item(wrong)


async def test_sending_end_is_rejected() -> None:
    send, receive = anyio.create_memory_object_stream[int](1)
    with send, receive:
        wrong: Any = send
        with pytest.raises(TypeError, match=r"receiving end.*MemoryObjectSendStream"):
            await wait_for_item(wrong)
