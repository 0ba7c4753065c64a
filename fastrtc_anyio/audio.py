"""Helpers for the audio values of the handler API: ``(sample_rate, samples)``.

Samples are int16 (full scale 2**15) or float32 (full scale 1.0), as everywhere in the handler API.
Speech services may expect a file or another dtype, and may answer with raw bytes in pieces of any
size. These functions convert between the two sides.
"""

from __future__ import annotations

import io
import os
import sys
import tempfile
from collections.abc import AsyncGenerator, AsyncIterable, Generator, Iterable
from contextlib import AbstractAsyncContextManager, aclosing, nullcontext, suppress
from typing import Any, Protocol, TypeAlias, TypeVar, cast

import numpy as np
from anyio import WouldBlock, move_on_after
from anyio.lowlevel import checkpoint
from anyio.streams.memory import MemoryObjectReceiveStream
from numpy.typing import NDArray

from ._core.host import Host
from ._core.options import short_repr
from ._media.frames import (
    INT16_MAX,
    INT16_MIN,
    AudioFrame,
    Int16Array,
    float32_to_int16,
    int16_to_float32,
)
from ._media.read import read_audio
from ._media.resample import StreamResampler
from .errors import UnsupportedFormat

__all__ = [
    "AsyncioQueue",
    "aggregate_bytes_to_16bit",
    "async_aggregate_bytes_to_16bit",
    "audio_to_bytes",
    "audio_to_file",
    "audio_to_float32",
    "audio_to_int16",
    "wait_for_item",
]

T_co = TypeVar("T_co", covariant=True)
T = TypeVar("T")

Samples: TypeAlias = NDArray[np.int16] | NDArray[np.float32]
AnySamples: TypeAlias = Samples | NDArray[np.int32] | NDArray[np.int64]

_DTYPES = (np.int16, np.int32, np.int64, np.float32)

# The complete list: MPEG-1 has three (ISO/IEC 11172-3 2.4.2.3), MPEG-2 their halves (ISO/IEC
# 13818-3 2.4.2.3) and the extension known as MPEG-2.5 their quarters.
MP3_SAMPLE_RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000)
# Bits per second and channel: the maximum of MPEG-2.5 for mono, and far more than speech needs.
MP3_BITRATE_PER_CHANNEL = 64_000


def audio_to_bytes(audio: tuple[int, Samples]) -> bytes:
    """Encode audio as an MP3 file.

    The bitrate is 64 kbit/s per channel. The file records the padding of its first and last frame:
    a decoder that honours it starts with the first sample and ends at most 6 ms after the last.

    Encoding takes about a hundredth of the audio's duration. In a coroutine, encode long audio on a
    worker thread.

    Args:
        audio: ``(sample_rate, samples)``: the rate in Hz, from 1000 to 384000, and int16 or
            float32 (full scale 1.0, clipped) of shape ``(n,)``, ``(1, n)`` or ``(2, n)``. MP3 has
            nine rates from 8000 to 48000 Hz. Other rates are resampled to the next rate up, and
            rates above 48000 Hz down to it.

    Returns:
        The contents of the file.

    Raises:
        UnsupportedFormat: another value, NaN, an infinity, or no samples.
    """
    rate, pcm = _read(audio)
    channels = int(pcm.shape[0])
    file_rate = next((r for r in MP3_SAMPLE_RATES if r >= rate), MP3_SAMPLE_RATES[-1])
    resampler = StreamResampler(rate, file_rate, channels)
    # Second by second, so that a long recording is never in memory as float64 as a whole.
    seconds = (pcm[:, begin : begin + rate] for begin in range(0, pcm.shape[1], rate))
    chunks = [resampler.push(np.ascontiguousarray(second)) for second in seconds]
    chunks.append(resampler.flush())
    return _encode_mp3(chunks, file_rate, channels)


def audio_to_file(audio: tuple[int, Samples]) -> str:
    """Encode audio as a new temporary MP3 file. The caller deletes it.

    Args:
        audio: as for `audio_to_bytes`.

    Returns:
        The path of the file. Its name ends in ``.mp3``, and only this user may read it.

    Raises:
        UnsupportedFormat: as for `audio_to_bytes`.
        OSError: the file could not be written. No file is left.
    """
    contents = audio_to_bytes(audio)
    descriptor, path = tempfile.mkstemp(suffix=".mp3")
    try:
        with open(descriptor, "wb") as file:
            file.write(contents)
    except BaseException:
        os.unlink(path)
        raise
    return path


def _read(audio: object) -> AudioFrame:
    frame = read_audio(audio)
    if frame.samples.shape[1] == 0:
        raise UnsupportedFormat("audio must have at least one sample: MP3 has no empty file")
    return frame


def _encode_mp3(chunks: Iterable[Int16Array], rate: int, channels: int) -> bytes:
    import av

    file = io.BytesIO()
    layout = "mono" if channels == 1 else "stereo"
    position = 0
    with av.open(file, "w", format="mp3") as container:
        stream = container.add_stream("libmp3lame", rate=rate, layout=layout, format="s16p")
        stream.bit_rate = MP3_BITRATE_PER_CHANNEL * channels
        for chunk in chunks:
            if chunk.shape[1] == 0:
                continue
            frame = av.AudioFrame.from_ndarray(
                np.ascontiguousarray(chunk), format="s16p", layout=layout
            )
            frame.sample_rate = rate
            frame.pts = position
            position += int(chunk.shape[1])
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return file.getvalue()


def audio_to_float32(audio: AnySamples | tuple[int, AnySamples]) -> NDArray[np.float32]:
    """Convert audio to float32 with full scale 1.0.

    Args:
        audio: int16, int32, int64 or float32 samples of any shape, or ``(sample_rate, samples)``.
            Wider integers are on the scale of int16, as sums of int16 are, and saturate. Shift
            32-bit PCM first: ``samples >> 16``.

    Returns:
        float32 of the same shape: a new array with values in ``[-1, 1)`` for integers, exactly, or
        the given float32 array itself.

    Raises:
        UnsupportedFormat: another type or dtype.
    """
    samples = _samples_of(audio)
    if samples.dtype == np.float32:
        return cast(NDArray[np.float32], samples)
    return int16_to_float32(_narrow(samples))


def audio_to_int16(audio: AnySamples | tuple[int, AnySamples]) -> NDArray[np.int16]:
    """Convert audio to int16 with full scale 2**15.

    Args:
        audio: int16, int32, int64 or float32 (full scale 1.0) samples of any shape, or
            ``(sample_rate, samples)``. Wider integers are as for `audio_to_float32`.

    Returns:
        int16 of the same shape: the given int16 array itself, otherwise a new array. Floats are
        rounded. Values beyond full scale saturate, -1.0 and below at -32767 as in FastRTC.

    Raises:
        UnsupportedFormat: another type or dtype, NaN or an infinity.
    """
    samples = _samples_of(audio)
    if samples.dtype != np.float32:
        return _narrow(samples)
    converted = float32_to_int16(cast(NDArray[np.float32], samples))
    return np.maximum(converted, -INT16_MAX, out=converted)


def _narrow(samples: NDArray[Any]) -> Int16Array:
    if samples.dtype == np.int16:
        return cast(Int16Array, samples)
    return np.asarray(np.clip(samples, INT16_MIN, INT16_MAX), np.int16)


def _samples_of(audio: object) -> NDArray[Any]:
    samples = audio[1] if isinstance(audio, tuple) and len(audio) == 2 else audio
    if not isinstance(samples, np.ndarray) or samples.dtype not in _DTYPES:
        raise UnsupportedFormat(
            "audio must be an int16, int32, int64 or float32 array, or (sample_rate, array); "
            f"got {short_repr(audio)}"
        )
    return samples


def aggregate_bytes_to_16bit(chunks: Iterable[bytes]) -> Generator[Int16Array, None, None]:
    """Convert raw 16-bit PCM in pieces of any size to arrays.

    A sample divided between two pieces is joined, so the arrays hold all the bytes in order. Only
    the last byte of an odd total is dropped.

    Args:
        chunks: little-endian 16-bit mono PCM, divided anywhere; pieces may be empty.

    Yields:
        int16 of shape ``(1, n)``, ``n > 0``: one array for each piece that completes a sample.

    Raises:
        UnsupportedFormat: a piece is not ``bytes``, ``bytearray`` or ``memoryview``.
    """
    joiner = _SampleJoiner()
    for chunk in chunks:
        samples = joiner.push(chunk)
        if samples.shape[1]:
            yield samples


async def async_aggregate_bytes_to_16bit(
    chunks: AsyncIterable[bytes],
) -> AsyncGenerator[Int16Array, None]:
    """Convert raw 16-bit PCM in pieces of any size to arrays, as `aggregate_bytes_to_16bit` does.

    If ``chunks`` is a generator or a stream, it is closed when this generator ends for any reason.
    If you may stop early, close this generator in the task that iterates over it::

        async with aclosing(async_aggregate_bytes_to_16bit(response.aiter_bytes())) as arrays:
            async for samples in arrays: ...
    """
    joiner = _SampleJoiner()
    closing: AbstractAsyncContextManager[object] = (
        aclosing(cast(Any, chunks)) if hasattr(chunks, "aclose") else nullcontext()
    )
    async with closing:
        async for chunk in chunks:
            samples = joiner.push(chunk)
            if samples.shape[1]:
                yield samples


class _SampleJoiner:
    """Joins pieces of 16-bit PCM: keeps half a sample until the other half arrives."""

    def __init__(self) -> None:
        self._half = b""

    def push(self, chunk: bytes) -> Int16Array:
        # Services' streams often contradict their annotations: text and ints are common.
        if not isinstance(chunk, bytes | bytearray | memoryview):
            raise UnsupportedFormat(f"chunks must be bytes of 16-bit PCM; got {short_repr(chunk)}")
        data = b"".join([self._half, chunk])
        whole = len(data) & ~1
        self._half = data[whole:]
        samples = np.frombuffer(data, "<i2", whole // 2)
        # A copy, because bytes are read-only, and to convert to the machine's byte order.
        return samples.astype(np.int16).reshape(1, -1)


class AsyncioQueue(Protocol[T_co]):
    """The part of ``asyncio.Queue`` that `wait_for_item` uses, for type checkers."""

    def empty(self) -> bool:
        """Return whether the queue is empty."""
        ...

    def get_nowait(self) -> T_co:
        """Remove and return the next item."""
        ...

    async def get(self) -> T_co:
        """Wait for the next item, remove it and return it."""
        ...


async def wait_for_item(
    queue: MemoryObjectReceiveStream[T] | AsyncioQueue[T], timeout: float = 0.1
) -> T | None:
    """Take the next item of a queue, or return None after a timeout.

    The usual ``emit`` of a handler: ``return await wait_for_item(self.queue)``.

    Args:
        queue: the receiving end of `anyio.create_memory_object_stream`, or under asyncio an
            ``asyncio.Queue``.
        timeout: seconds to wait. With 0, an item is taken only if it is there already.

    Returns:
        The item. An item that arrives at the moment of the timeout is either returned or left in
        the queue: it is never lost.

    Raises:
        TypeError: ``queue`` has another type, or is an ``asyncio.Queue`` under trio.
        anyio.EndOfStream: the stream is empty and its senders are closed.
        anyio.ClosedResourceError: this end of the stream is closed.
        asyncio.QueueShutDown: the queue is empty and was shut down (Python 3.13).

    Cancellation:
        A cancelled call has not taken an item. (asyncio's native ``Task.cancel()`` between the
        delivery of an item by a memory stream and the task's next step loses the item, as it does
        for anyio's ``receive``. A cancel scope does not.)
    """
    if isinstance(queue, MemoryObjectReceiveStream):
        return await _wait_for_stream(queue, timeout)
    # Looked up, not imported: if asyncio was never loaded, the queue cannot be one of its queues.
    asyncio = sys.modules.get("asyncio")
    is_asyncio_queue = asyncio is not None and isinstance(queue, asyncio.Queue)
    if not is_asyncio_queue:
        raise TypeError(
            "queue must be the receiving end of anyio.create_memory_object_stream or an "
            f"asyncio.Queue; got {type(queue).__module__}.{type(queue).__qualname__}"
        )
    if Host().asyncio_loop is None:
        raise TypeError(
            "asyncio.Queue does not work under trio: use anyio.create_memory_object_stream"
        )
    await checkpoint()
    # get() removes the item just before it returns, so a cancelled wait leaves it in the queue.
    if not queue.empty():
        return queue.get_nowait()
    with move_on_after(timeout):
        return await queue.get()
    return None


async def _wait_for_stream(stream: MemoryObjectReceiveStream[T], timeout: float) -> T | None:
    await checkpoint()
    # First without waiting: receive() begins with a checkpoint, which a timeout of 0 would cancel.
    with suppress(WouldBlock):
        return stream.receive_nowait()
    # anyio passes no item to a receiver that is being cancelled, and cancels none that has received
    # one: no checkpoint follows at which the deadline could expire.
    with move_on_after(timeout):
        return await stream.receive()
    return None
