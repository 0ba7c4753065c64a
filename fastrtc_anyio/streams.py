"""What a session function talks through: the peer's streams, with any format let in."""

from __future__ import annotations

from contextlib import suppress
from typing import Any, Literal

import numpy as np
from anyio import BrokenResourceError
from anyio.lowlevel import checkpoint
from numpy.typing import NDArray

from ._media.frames import AudioFrame, Int16Array, as_int16, mix_channels
from ._media.playout import Played
from ._media.resample import StreamResampler
from ._media.video import as_video_frame
from .abc import AudioOutStatistics, AudioSendStream, VideoOutStatistics, VideoSendStream
from .errors import UnsupportedFormat

__all__ = ["AudioConverter", "AudioSender", "VideoSender", "describe", "read_audio"]

_RATES = (1_000, 384_000)
"""Rates in Hz that are let in; wider than anything in use."""
_PIECES_PER_SECOND = 4


def read_audio(value: object) -> AudioFrame:
    """Read ``(rate, samples)`` or ``(rate, samples, layout)``.

    Args:
        value: samples int16 or float32, shape ``(n,)``, ``(1, n)`` or, stereo, ``(2, n)``.

    Raises:
        UnsupportedFormat: it is something else; says what.
    """
    rate: Any
    layout: str | None = None
    match value if isinstance(value, tuple | list) else None:  # an array may be a sequence, too
        case (rate, np.ndarray() as samples):
            pass
        case (rate, np.ndarray() as samples, "mono" | "stereo" as layout):
            pass
        case _:
            raise UnsupportedFormat(
                f"audio is (rate, samples) or (rate, samples, layout); got {describe(value)}"
            )
    if isinstance(rate, bool | np.bool_) or not isinstance(rate, int | np.integer):
        raise UnsupportedFormat(f"the sample rate must be an int; got {rate!r}")
    if not _RATES[0] <= rate <= _RATES[1]:
        raise UnsupportedFormat(
            f"the sample rate must be from {_RATES[0]} to {_RATES[1]} Hz; got {rate}"
        )
    pcm = as_int16(samples)
    if layout is not None and pcm.shape[0] != (2 if layout == "stereo" else 1):
        raise UnsupportedFormat(
            f'samples of layout "{layout}" must have shape '
            f"{'(2, n)' if layout == 'stereo' else '(n,) or (1, n)'}; got {samples.shape}. "
            "Interleaved stereo becomes that by samples.reshape(-1, 2).T"
        )
    return AudioFrame(int(rate), pcm)


def describe(value: object) -> str:
    """A value in a few words, for an error message."""
    if isinstance(value, tuple):
        return f"({', '.join(describe(item) for item in value)})"
    if isinstance(value, np.ndarray):
        return f"an array of {value.dtype}, shape {value.shape}"
    return f"{type(value).__name__} {str(value)[:40]!r}"


class AudioConverter:
    """Audio of any rate and layout to one rate and layout, with the filter's state kept."""

    def __init__(self, sample_rate: int, channels: int) -> None:
        self._sample_rate = sample_rate
        self._channels = channels
        self._from: int | None = None
        self._resampler: StreamResampler | None = None

    def __call__(self, frame: AudioFrame) -> Int16Array:
        """Convert the next frame: int16, shape ``(channels, n)``, as much as is ready."""
        samples = mix_channels(frame.samples, self._channels)
        if frame.sample_rate == self._sample_rate and self._resampler is None:
            return samples
        tail: list[Int16Array] = []
        if self._resampler is None or self._from != frame.sample_rate:
            if self._resampler is not None:
                tail.append(self.flush())
                self._resampler.close()
            self._from = frame.sample_rate
            self._resampler = StreamResampler(self._from, self._sample_rate, self._channels)
        tail.append(self._resampler.push(samples))
        return np.concatenate(tail, axis=1) if len(tail) > 1 else tail[0]

    def flush(self) -> Int16Array:
        """What is still inside: int16, shape ``(channels, n)``. The next frame begins anew."""
        if self._resampler is None:
            return np.empty((self._channels, 0), np.int16)
        return self._resampler.flush()

    def reset(self) -> None:
        """Forget what was converted so far."""
        if self._resampler is not None:
            self._resampler.close()
            self._resampler = None


class AudioSender:
    """Audio to the client, at any rate. It is played in real time; silence when it runs dry."""

    def __init__(self, stream: AudioSendStream) -> None:
        self._stream = stream
        self._convert = AudioConverter(stream.sample_rate, stream.channels)
        self._flushed = False
        self._played = 0

    @property
    def sample_rate(self) -> int:
        """Rate in Hz at which it leaves; audio of this rate is not resampled."""
        return self._stream.sample_rate

    @property
    def channels(self) -> int:
        """Channels that leave: 1 or 2."""
        return self._stream.channels

    async def send(self, frame: tuple[int, NDArray[Any]] | tuple[int, NDArray[Any], str]) -> None:
        """Queue audio; wait first while the queue is full. One chunk of any size always fits.

        What waits while somebody flushes is flushed, too.

        Args:
            frame: ``(rate, samples)`` or ``(rate, samples, layout)``; samples int16 or float32,
                shape ``(n,)``, ``(1, n)`` or ``(2, n)``.

        Raises:
            UnsupportedFormat: it is something else; nothing has changed.
            anyio.BrokenResourceError: the connection has ended.

        Cancellation:
            A cancelled call has queued nothing.
        """
        audio, generation = read_audio(frame), self._stream.generation
        if self._flushed:  # what the filter still holds was flushed too
            self._flushed = False
            self._convert.reset()
        samples = await self._converted(audio)
        await self._stream.send(samples, generation)

    async def _converted(self, audio: AudioFrame) -> Int16Array:
        """Convert piece by piece: a minute at once would hold up every session for seconds."""
        size = audio.sample_rate // _PIECES_PER_SECOND
        if audio.samples.shape[1] <= size:
            return self._convert(audio)
        pieces: list[Int16Array] = []
        for start in range(0, audio.samples.shape[1], size):
            await checkpoint()
            part = audio.samples[:, start : start + size]
            pieces.append(self._convert(AudioFrame(audio.sample_rate, part)))
        return np.concatenate(pieces, axis=1)

    def flush(self) -> Played:
        """Drop everything queued; what is being played fades out within 5 ms. On any thread.

        Returns:
            How much was really played since the flush before.
        """
        self._flushed = True
        played = self._stream.flush()
        self._played += played.samples
        return played

    @property
    def played_before_flushes(self) -> int:
        """What all flushes together have returned, in samples as they leave."""
        return self._played

    def pause(self) -> None:
        """Play silence from the next 20 ms on, and keep the queue. Twice is once."""
        self._stream.pause()

    def resume(self) -> None:
        """Play on from the sample where :meth:`pause` stopped. Twice is once."""
        self._stream.resume()

    async def wait_played(self) -> None:
        """Wait until everything sent was played or flushed, or the connection has ended."""
        rest = self._convert.flush()  # the filter's
        if rest.shape[1] and not self._flushed:
            with suppress(BrokenResourceError):
                await self._stream.send(rest)
        await self._stream.wait_played()

    def statistics(self) -> AudioOutStatistics:
        """Counters so far, of samples as they leave."""
        return self._stream.statistics()


class VideoSender:
    """Pictures to the client, at most :attr:`fps` a second."""

    def __init__(self, stream: VideoSendStream) -> None:
        self._stream = stream

    @property
    def fps(self) -> float:
        """Pictures a second at most."""
        return self._stream.fps

    async def wait_ready(self, lead: float = 0.0) -> None:
        """Wait until a picture is wanted: one that is sent ``lead`` seconds from now is shown at
        once.

        Before reading ``session.video_in``, it makes sure that what is shown is as new as it can
        be; ``lead`` is how long the work on a picture takes.

        Raises:
            anyio.BrokenResourceError: the connection has ended.
        """
        await self._stream.wait_ready(lead)

    async def send(self, picture: object, order: Literal["bgr24", "rgb24"] = "bgr24") -> None:
        """Show a picture. Returns when its time has come and it was handed to the transport.

        Args:
            picture: uint8 or float32 (0 to 1), shape ``(height, width, 3)`` or ``(height, width)``;
                an ``av.VideoFrame``; or a :class:`VideoFrame`.
            order: of an array's channels.

        Raises:
            UnsupportedFormat: it is something else.
            anyio.BrokenResourceError: the connection has ended.

        Cancellation:
            A cancelled call may have sent the picture.
        """
        await self._stream.send(as_video_frame(picture, order))

    def flush(self) -> None:
        """Drop the picture that waits for its time."""
        self._stream.flush()

    async def wait_played(self) -> None:
        """Wait until everything sent was shown or flushed, or the connection has ended."""
        await self._stream.wait_played()

    def statistics(self) -> VideoOutStatistics:
        """Counters so far."""
        return self._stream.statistics()
