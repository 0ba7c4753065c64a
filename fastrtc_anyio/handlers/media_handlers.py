"""The four base classes with ``receive`` and ``emit``."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

from numpy.typing import NDArray

from fastrtc_anyio._media.frames import Int16Array

from .base import StreamHandlerBase
from .emit_types import EmitType, VideoEmitType

__all__ = [
    "AsyncAudioVideoStreamHandler",
    "AsyncStreamHandler",
    "AudioVideoStreamHandler",
    "StreamHandler",
]


class StreamHandler(StreamHandlerBase):
    """A handler with plain functions.

    Each method runs on a thread of its connection, so it may block. Calls of one method never
    overlap.
    """

    @abstractmethod
    def receive(self, frame: tuple[int, Int16Array]) -> None:
        """Process 20 ms of the client's audio.

        Args:
            frame: ``(input_sample_rate, samples)``: int16, shape ``(channels, n)``.
        """

    @abstractmethod
    def emit(self) -> EmitType:
        """Return audio to play, or None if none is available.

        The next call follows as soon as the playout queue has room; after None, as soon
        as ``receive`` has returned, 20 ms later at the latest.

        Returns:
            ``(rate, samples)`` or ``(rate, samples, layout)``: int16 or float32 of shape ``(n,)``,
            ``(1, n)`` or, stereo, ``(2, n)``, at any rate. Alone or in a pair with
            ``AdditionalOutputs`` or ``CloseStream``.
        """

    @abstractmethod
    def copy(self) -> StreamHandler: ...

    def start_up(self) -> None: ...


class AsyncStreamHandler(StreamHandlerBase):
    """A handler with coroutine functions, under trio or asyncio."""

    @abstractmethod
    async def receive(self, frame: tuple[int, Int16Array]) -> None:
        """Process 20 ms of the client's audio. See :meth:`StreamHandler.receive`."""

    @abstractmethod
    async def emit(self) -> EmitType:
        """Return audio to play. See :meth:`StreamHandler.emit`."""

    @abstractmethod
    def copy(self) -> AsyncStreamHandler: ...

    async def start_up(self) -> None: ...


class AudioVideoStreamHandler(StreamHandler):
    """:class:`StreamHandler` with video."""

    @abstractmethod
    def video_receive(self, frame: NDArray[Any]) -> None:
        """Process a frame of the client's video, in the handler's ``video_format``.

        If the handler is slower than the client's frame rate, older frames are skipped.
        """

    @abstractmethod
    def video_emit(self) -> VideoEmitType:
        """Return a frame of video to show, or None if none is available.

        Called at most :attr:`fps` times per second.

        Returns:
            uint8 or float32 (0 to 1) of shape ``(height, width, 3)`` or ``(height, width)``, or an
            ``av.VideoFrame``. Alone or in a pair with ``AdditionalOutputs`` or ``CloseStream``.
        """

    @abstractmethod
    def copy(self) -> AudioVideoStreamHandler: ...


class AsyncAudioVideoStreamHandler(AsyncStreamHandler):
    """:class:`AsyncStreamHandler` with video."""

    @abstractmethod
    async def video_receive(self, frame: NDArray[Any]) -> None:
        """Process a frame of the client's video. See :class:`AudioVideoStreamHandler`."""

    @abstractmethod
    async def video_emit(self) -> VideoEmitType:
        """Return a frame of video to show. See :class:`AudioVideoStreamHandler`."""

    @abstractmethod
    def copy(self) -> AsyncAudioVideoStreamHandler: ...
