"""Helpers for the audio values that handlers take and give: ``(sample_rate, samples)``.

Samples are int16 (full scale 2**15) or float32 (full scale 1.0), as everywhere in the handler API.
Some speech services want a file, some another dtype, and some answer with raw bytes cut anywhere;
these functions are what lies between.
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
from ._media.frames import AudioFrame, Int16Array, float32_to_int16, int16_to_float32
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

# All there are: MPEG-1 has three (ISO/IEC 11172-3 2.4.2.3), MPEG-2 their halves (ISO/IEC 13818-3
# 2.4.2.3) and the extension known as MPEG-2.5 their quarters.
MP3_SAMPLE_RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000)
# Bits per second and channel: as much as MPEG-2.5 has for one, and far more than speech needs.
MP3_BITRATE_PER_CHANNEL = 64_000


def audio_to_bytes(audio: tuple[int, Samples]) -> bytes:
    """Encode audio as an MP3 file.

    At 64 kbit/s a channel. The file says how much of its first and last frame is padding: a decoder
    that heeds it begins with the first sample, and ends at most 6 ms after the last.

    It takes about a hundredth of the time that the audio lasts: in a coroutine, call it on a worker
    thread if that is long.

    Args:
        audio: ``(sample_rate, samples)``: the rate in Hz, from 1000 to 384000, and int16 or
            float32 (full scale 1.0, clipped) of shape ``(n,)``, ``(1, n)`` or ``(2, n)``. MP3 has
            nine rates from 8000 to 48000 Hz; any other is resampled to the next one up, and from
            above 48000 down to it.

    Returns:
        The contents of the file.

    Raises:
        UnsupportedFormat: for anything else, NaN, or no samples; names what was got and wanted.
    """
    rate, pcm = _read(audio)
    channels = int(pcm.shape[0])
    file_rate = next((r for r in MP3_SAMPLE_RATES if r >= rate), MP3_SAMPLE_RATES[-1])
    resampler = StreamResampler(rate, file_rate, channels)
    # By the second, so that a long recording is never in memory as float64 as a whole.
    seconds = (pcm[:, begin : begin + rate] for begin in range(0, pcm.shape[1], rate))
    chunks = [resampler.push(np.ascontiguousarray(second)) for second in seconds]
    chunks.append(resampler.flush())
    return _encode_mp3(chunks, file_rate, channels)


def audio_to_file(audio: tuple[int, Samples]) -> str:
    """Encode audio as a new temporary MP3 file, which the caller deletes.

    Args:
        audio: as for `audio_to_bytes`.

    Returns:
        The path of the file; its name ends in ``.mp3``, and only this user may read it.

    Raises:
        UnsupportedFormat: as `audio_to_bytes`.
        OSError: if the file cannot be written. None is left then.
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
    if isinstance(audio, tuple) and audio and isinstance(audio[0], float) and audio[0].is_integer():
        audio = (int(audio[0]), *audio[1:])
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


def audio_to_float32(audio: Samples | tuple[int, Samples]) -> NDArray[np.float32]:
    """Convert audio to float32 with full scale 1.0.

    Args:
        audio: int16 or float32 samples of any shape, or ``(sample_rate, samples)``.

    Returns:
        float32 of the same shape. int16 becomes a new array with values in ``[-1, 1)``, exactly;
        float32 is returned as it is, the same array.

    Raises:
        UnsupportedFormat: for another type or dtype; names what was got and wanted.
    """
    samples = _samples_of(audio)
    if samples.dtype == np.int16:
        return int16_to_float32(cast(Int16Array, samples))
    return cast(NDArray[np.float32], samples)


def audio_to_int16(audio: Samples | tuple[int, Samples]) -> NDArray[np.int16]:
    """Convert audio to int16 with full scale 2**15.

    Args:
        audio: int16 or float32 (full scale 1.0) samples of any shape, or
            ``(sample_rate, samples)``.

    Returns:
        int16 of the same shape. float32 becomes a new array, rounded; what lies outside
        ``[-1, 1)`` saturates and never wraps. int16 is returned as it is, the same array.

    Raises:
        UnsupportedFormat: for another type or dtype, or NaN; names what was got and wanted.
    """
    samples = _samples_of(audio)
    if samples.dtype == np.float32:
        return float32_to_int16(cast(NDArray[np.float32], samples))
    return cast(Int16Array, samples)


def _samples_of(audio: object) -> NDArray[Any]:
    samples = audio[1] if isinstance(audio, tuple) and len(audio) == 2 else audio
    if not isinstance(samples, np.ndarray) or samples.dtype not in (np.int16, np.float32):
        raise UnsupportedFormat(
            "audio must be an int16 or float32 array, or (sample_rate, array); "
            f"got {short_repr(audio)}"
        )
    return samples


def aggregate_bytes_to_16bit(chunks: Iterable[bytes]) -> Generator[Int16Array, None, None]:
    """Make arrays of raw 16-bit PCM that comes in pieces of any size.

    A sample that is cut in two is put together again, so the arrays joined are the bytes joined.
    Only the last byte of an odd number of them is dropped.

    Args:
        chunks: little-endian 16-bit mono PCM, cut anywhere; pieces may be empty.

    Yields:
        int16 of shape ``(1, n)``, ``n > 0``: one array for each piece that completes a sample.

    Raises:
        UnsupportedFormat: if a piece is not ``bytes``, ``bytearray`` or ``memoryview``.
    """
    joiner = _SampleJoiner()
    for chunk in chunks:
        samples = joiner.push(chunk)
        if samples.shape[1]:
            yield samples


async def async_aggregate_bytes_to_16bit(
    chunks: AsyncIterable[bytes],
) -> AsyncGenerator[Int16Array, None]:
    """Make arrays of raw 16-bit PCM that comes in pieces of any size; see the plain form.

    ``chunks`` is closed at the end, and on any other way out, if it can be: a generator, or a
    stream. Whoever may leave early closes this generator in turn, in the task that iterated it::

        async with aclosing(async_aggregate_bytes_to_16bit(response.aiter_bytes())) as arrays:
            async for samples in arrays: ...

    Args:
        chunks: little-endian 16-bit mono PCM, cut anywhere; pieces may be empty.

    Yields:
        int16 of shape ``(1, n)``, ``n > 0``: one array for each piece that completes a sample.

    Raises:
        UnsupportedFormat: if a piece is not ``bytes``, ``bytearray`` or ``memoryview``.
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
    """Keeps the first half of a sample until the second comes."""

    def __init__(self) -> None:
        self._half = b""

    def push(self, chunk: bytes) -> Int16Array:
        # A service's stream need not be what its annotations say; text and ints are common.
        if not isinstance(chunk, bytes | bytearray | memoryview):
            raise UnsupportedFormat(
                f"expected chunks of bytes, got {type(chunk).__name__}: 16-bit PCM as it is, "
                "neither text nor single values"
            )
        data = b"".join([self._half, chunk])
        whole = len(data) & ~1
        self._half = data[whole:]
        samples = np.frombuffer(data, "<i2", whole // 2)
        # A copy: the bytes can't be written to, and the byte order becomes the machine's.
        return samples.astype(np.int16).reshape(1, -1)


class AsyncioQueue(Protocol[T_co]):
    """What `wait_for_item` uses of an ``asyncio.Queue``, for type checkers."""

    def empty(self) -> bool:
        """Whether there is nothing to get."""
        ...

    def get_nowait(self) -> T_co:
        """Take the next item."""
        ...

    async def get(self) -> T_co:
        """Wait for the next item and take it."""
        ...


async def wait_for_item(
    queue: MemoryObjectReceiveStream[T] | AsyncioQueue[T], timeout: float = 0.1
) -> T | None:
    """Take the next item of a queue, or ``None`` if there is none in time.

    The usual ``emit`` of a handler: ``return await wait_for_item(self.queue)``.

    Args:
        queue: the receiving end of `anyio.create_memory_object_stream`, or under asyncio an
            ``asyncio.Queue``.
        timeout: seconds to wait. 0 takes what is there now, if anything.

    Returns:
        The item. An item that comes just as the time is over is either returned or left in the
        queue: it is never lost.

    Raises:
        TypeError: for an ``asyncio.Queue`` under trio, which can't wait for one, or another type.
        anyio.EndOfStream: the stream is empty and its senders are closed.
        anyio.ClosedResourceError: this end of the stream is closed.
        asyncio.QueueShutDown: the queue is empty and was shut down (Python 3.13).

    Cancellation:
        A cancelled call has taken nothing. (asyncio's own ``Task.cancel()`` in the very moment
        between the delivery of an item and the task's next step loses it for a memory stream,
        as it does for `anyio`'s ``receive``; a cancel scope doesn't.)
    """
    if isinstance(queue, MemoryObjectReceiveStream):
        return await _wait_for_stream(queue, timeout)
    if not _is_asyncio_queue(queue):
        raise TypeError(
            "queue must be the receiving end of anyio.create_memory_object_stream or an "
            f"asyncio.Queue, got {type(queue).__module__}.{type(queue).__qualname__}"
        )
    if Host().asyncio_loop is None:
        raise TypeError(
            "an asyncio.Queue cannot be waited for under trio: "
            "use anyio.create_memory_object_stream"
        )
    await checkpoint()
    # Takes nothing before it returns, so whatever stops the wait leaves the item where it is.
    if not queue.empty():
        return queue.get_nowait()
    with move_on_after(timeout):
        return await queue.get()
    return None


async def _wait_for_stream(stream: MemoryObjectReceiveStream[T], timeout: float) -> T | None:
    await checkpoint()
    # First without a wait: receive() begins with a checkpoint, where a timeout of 0 would end it.
    with suppress(WouldBlock):
        return stream.receive_nowait()
    # anyio hands nothing to a receiver that is being cancelled, and cancels none that was handed
    # an item: no checkpoint follows in which the deadline could strike.
    with move_on_after(timeout):
        return await stream.receive()
    return None


def _is_asyncio_queue(queue: object) -> bool:
    # Looked up, not imported: under trio asyncio is never loaded, and there is no such queue then.
    asyncio = sys.modules.get("asyncio")
    return asyncio is not None and isinstance(queue, asyncio.Queue)
