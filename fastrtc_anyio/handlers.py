"""The five classes a handler derives from: FastRTC's "Stream Handlers" API.

A handler is given to a ``Stream``, which makes a copy of it for every connection. The synchronous
classes run on threads of the connection's own, the asynchronous ones on the event loop.

Audio arrives as ``(sample_rate, samples)``, always int16 of shape ``(channels, n)``, 20 ms at a
time, at the handler's ``input_sample_rate`` and ``expected_layout``.
"""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Generator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias, TypeVar

import numpy as np
from anyio.lowlevel import checkpoint
from numpy.typing import NDArray

from ._core.gate import Gate
from ._media.av_frames import from_av, to_av
from ._media.frames import (
    FRAMES_PER_SECOND,
    AudioFrame,
    Int16Array,
    check_sample_rate,
    mix_channels,
)
from ._media.playout import Played
from ._media.resample import StreamResampler
from ._media.video import VideoFormat
from ._signaling.messages import encode_message
from .outputs import AdditionalOutputs

if TYPE_CHECKING:
    import av
    from anyio.from_thread import BlockingPortal

    from .abc import AsyncioBridge

__all__ = [
    "AsyncAudioVideoStreamHandler",
    "AsyncStreamHandler",
    "AudioEmitType",
    "AudioVideoStreamHandler",
    "CloseStream",
    "EmitType",
    "HandlerRuntime",
    "StreamHandler",
    "StreamHandlerBase",
    "VideoEmitType",
    "WebRTCData",
]


T = TypeVar("T")

_MAX_FPS = 240


class CloseStream:
    """Emit this to end the session once everything queued has been played.

    Args:
        msg: what the client is told.
    """

    def __init__(self, msg: str = "Stream closed") -> None:
        self.msg = str(msg)


@dataclass
class WebRTCData:
    """What a client may send as its input: text, audio, or both."""

    webrtc_id: str
    textbox: str = ""
    audio: tuple[int, NDArray[Any]] | None = None


Layout: TypeAlias = Literal["mono", "stereo"]
Samples: TypeAlias = NDArray[np.int16] | NDArray[np.float32]
AudioEmitType: TypeAlias = tuple[int, Samples] | tuple[int, Samples, Layout]
EmitType: TypeAlias = (
    AudioEmitType
    | AdditionalOutputs
    | CloseStream
    | tuple[AudioEmitType, AdditionalOutputs]
    | tuple[AudioEmitType, CloseStream]
    | None
)
VideoEmitType: TypeAlias = (
    NDArray[Any]
    | AdditionalOutputs
    | CloseStream
    | tuple[NDArray[Any], AdditionalOutputs]
    | tuple[NDArray[Any], CloseStream]
    | None
)


class DataChannel(Protocol):
    """The data channel as handlers see it."""

    def send(self, message: str, /) -> None:
        """Send a text message. Any thread may call this; it never waits."""


class HandlerRuntime(Protocol):
    """What a running session gives to its handler."""

    channel: DataChannel
    portal: BlockingPortal

    @property
    def asyncio_bridge(self) -> AsyncioBridge:
        """Where asyncio-only libraries run."""
        ...

    @property
    def on_host_thread(self) -> bool:
        """Whether the caller runs on the session's event loop."""
        ...

    def flush(self) -> Played:
        """Drop queued output; on any thread."""
        ...


class StreamHandlerBase(ABC):
    """What all handlers share.

    Args:
        expected_layout: ``"mono"`` or ``"stereo"``: the layout of the audio given to ``receive``.
            Stereo is then negotiated with the client.
        output_sample_rate: rate in Hz of the audio sent: a multiple of 50 from 8000 to 48000.
            ``emit`` may return any rate.
        output_frame_size: deprecated. It is ``output_sample_rate // 50``, 20 ms, whatever is given.
        input_sample_rate: rate in Hz of the audio given to ``receive``; like the output's.
        fps: frames of video a second that are sent at most.

    Attributes:
        latest_args: the input set last: ``["__webrtc_value__", *args]``, or ``args`` as they are if
            the first is a :class:`WebRTCData`; empty before.
        args_set: a :class:`Gate` that is open when input has come; closed by :meth:`reset`.
        channel_set: one that is open when there is a channel.
        phone_mode: whether the client is a telephone, which has no inputs.
        video_format: what video is given as, to be set by a subclass or on an instance:
            ``"bgr24"``, ``"rgb24"`` (uint8, shape ``(height, width, 3)``), ``"gray"`` (uint8, shape
            ``(height, width)``), ``"float32"`` (like bgr24, 0 to 1) or ``"frame"`` (an
            ``av.VideoFrame``). What is emitted has the same order of channels.

    Raises:
        ValueError: a layout or a rate that is not possible.
    """

    video_format: VideoFormat = "bgr24"

    def __init__(
        self,
        expected_layout: Layout = "mono",
        output_sample_rate: int = 24_000,
        output_frame_size: int | None = None,
        input_sample_rate: int = 48_000,
        fps: float = 30,
    ) -> None:
        if expected_layout not in ("mono", "stereo"):
            raise ValueError(f'expected_layout must be "mono" or "stereo"; got {expected_layout!r}')
        self.expected_layout = expected_layout
        self.output_sample_rate = check_sample_rate(output_sample_rate, "output_sample_rate")
        self.input_sample_rate = check_sample_rate(input_sample_rate, "input_sample_rate")
        self.output_frame_size = self.output_sample_rate // FRAMES_PER_SECOND
        if output_frame_size not in (None, self.output_frame_size):
            warnings.warn(
                f"output_frame_size is deprecated and has no effect: frames are 20 ms, which at "
                f"{output_sample_rate} Hz is {self.output_frame_size} samples; "
                f"got {output_frame_size}",
                UserWarning,
                stacklevel=2,
            )
        if isinstance(fps, bool) or not isinstance(fps, int | float):
            raise TypeError(f"fps must be a number; got {fps!r}")
        if not 0 < fps <= _MAX_FPS:
            raise ValueError(f"fps must be above 0 and at most {_MAX_FPS}; got {fps!r}")
        self.fps = fps
        self.phone_mode = False
        self.latest_args: list[Any] = []
        self.args_set = Gate()
        self.channel_set = Gate()
        self._channel: DataChannel | None = None
        self._runtime: HandlerRuntime | None = None
        self._resampler: tuple[tuple[int, int], StreamResampler] | None = None

    @property
    def channel(self) -> DataChannel | None:
        """The data channel, or None before the session starts. ``send(str)`` on any thread."""
        return self._channel

    @property
    def loop(self) -> Any:
        """An asyncio event loop, for libraries that know no other.

        Under asyncio it is the loop the session runs on, so ``asyncio.run_coroutine_threadsafe``
        and queues made there work. Under trio it is a loop in a thread of its own, started on
        first use; nothing of ours runs on it.

        Raises:
            RuntimeError: the session has not started.
        """
        return self._started("loop").asyncio_bridge.loop

    async def run_asyncio(self, function: Callable[..., Awaitable[T]], *args: Any) -> T:
        """Await an asyncio coroutine function on :attr:`loop`, from trio or asyncio.

        Raises:
            What the coroutine raises. A ``RuntimeError`` if it was cancelled on its own side, or if
            the session has not started.

        Cancellation:
            Cancels the coroutine and waits until it has ended.
        """
        return await self._started("run_asyncio").asyncio_bridge.run(function, *args)

    @property
    def portal(self) -> BlockingPortal:
        """anyio's way from a worker thread back to the session's event loop.

        Raises:
            RuntimeError: the session has not started.
        """
        return self._started("portal").portal

    @abstractmethod
    def copy(self) -> StreamHandlerBase:
        """Make the handler of one connection: a new object of this class.

        Called on the event loop: what takes long, such as loading a model, belongs before.
        """

    def start_up(self) -> Any:  # noqa: B027 - may be overridden, need not be
        """Called once when the connection is up; runs beside ``receive`` and ``emit`` and may
        take as long as the session."""

    def shutdown(self) -> Any:  # noqa: B027 - likewise
        """Called exactly once when the session has ended, however it did. It is given 5 s.

        May be a coroutine function. A plain one of an async handler is called on the event loop.
        """

    def on_message(self, message: str) -> Any:  # noqa: B027 - likewise
        """Called with each text message of the client's. May be a coroutine function."""

    def on_dtmf(self, digit: str) -> Any:  # noqa: B027 - likewise
        """Called with each key the caller presses: one of ``0123456789*#ABCD``. May be a coroutine
        function.

        A key press is the client's message ``{"type": "dtmf", "data": digit}``; a telephone's
        carrier has its own. A handler that does not override this finds it in :meth:`on_message`.
        """

    def trigger_response(self) -> Any:
        """Called by ``stream.trigger_response(id)``: the application wants an answer now.

        Raises:
            NotImplementedError: this handler has no such thing; override it.
        """
        raise NotImplementedError(f"{type(self).__name__} has no trigger_response()")

    def clear_queue(self) -> Played:
        """Drop what is queued for the client, on any thread.

        Returns:
            How much audio was really played since the last time; none before the session starts.
        """
        return self._runtime.flush() if self._runtime is not None else Played(0, 0.0)

    async def send_message(self, message: str) -> None:
        """Send a text message to the client, as soon as its data channel is open.

        Up to 64 messages are kept until then; before the session starts, nothing happens.
        """
        await checkpoint()
        if self._channel is not None:
            self._channel.send(message)

    def send_message_sync(self, message: str) -> None:
        """:meth:`send_message`, for worker threads.

        Raises:
            RuntimeError: called on the event loop's own thread, where it is ``send_message``.
        """
        if self._runtime is not None and self._runtime.on_host_thread:
            raise RuntimeError("send_message_sync is for worker threads: await send_message here")
        if self._channel is not None:
            self._channel.send(message)

    def set_channel(self, channel: DataChannel) -> None:
        """Called when there is a data channel to write to."""
        self._channel = channel
        self.channel_set.set()

    def set_args(self, args: list[Any]) -> None:
        """Give the handler new input; :attr:`args_set` opens.

        Raises:
            TypeError: ``args`` is not a list.
        """
        if not isinstance(args, list):
            raise TypeError(f"args must be a list; got {type(args).__name__}")
        as_is = bool(args) and isinstance(args[0], WebRTCData)
        self.latest_args = list(args) if as_is else ["__webrtc_value__", *args]
        self.args_set.set()

    async def fetch_args(self) -> None:
        """Ask the client to send its input."""
        await self.send_message(encode_message("send_input"))

    async def wait_for_args(self) -> None:
        """Ask the client for its input and wait until it came. A telephone has none."""
        if self.phone_mode:
            self.args_set.set()
            await checkpoint()
        else:
            await self.fetch_args()
            await self.args_set.wait()

    def wait_for_args_sync(self) -> None:
        """:meth:`wait_for_args`, for worker threads."""
        self.portal.call(self.wait_for_args)

    def reset(self) -> None:
        """Forget that input came: :attr:`args_set` closes."""
        self.args_set.clear()

    def resample(self, frame: av.AudioFrame) -> Generator[av.AudioFrame, None, None]:
        """Convert one frame of a stream to ``input_sample_rate`` and ``expected_layout``.

        The filter keeps its state from frame to frame, so a tone stays a tone.

        Args:
            frame: 16-bit PyAV audio.

        Yields:
            16-bit packed PyAV audio, as much as is ready.
        """
        channels = 2 if self.expected_layout == "stereo" else 1
        rate, samples = from_av(frame)
        key = (rate, channels)
        if self._resampler is None or self._resampler[0] != key:
            self._resampler = (key, StreamResampler(rate, self.input_sample_rate, channels))
        samples = self._resampler[1].push(mix_channels(samples, channels))
        if samples.shape[1]:
            yield to_av(AudioFrame(self.input_sample_rate, samples))

    def _started(self, what: str) -> HandlerRuntime:
        if self._runtime is None:
            raise RuntimeError(
                f"{type(self).__name__}.{what} exists once the session has started: "
                "use it in start_up or later"
            )
        return self._runtime


class StreamHandler(StreamHandlerBase):
    """A handler written with plain functions. Each runs on a thread of the connection's own, so
    it may block; no two calls of the same one ever overlap."""

    @abstractmethod
    def receive(self, frame: tuple[int, Int16Array]) -> None:
        """Take 20 ms of the client's audio.

        Args:
            frame: ``(input_sample_rate, samples)``: int16, shape ``(channels, n)``.
        """

    @abstractmethod
    def emit(self) -> EmitType:
        """Give audio to play, or None if there is nothing now.

        Called again as soon as the queue for playout has room; after None, 20 ms later.

        Returns:
            ``(rate, samples)`` or ``(rate, samples, layout)``: int16 or float32 of shape ``(n,)``,
            ``(1, n)`` or, stereo, ``(2, n)``; any rate. Alone or beside ``AdditionalOutputs`` or
            ``CloseStream``.
        """

    @abstractmethod
    def copy(self) -> StreamHandler: ...

    def start_up(self) -> None: ...


class AsyncStreamHandler(StreamHandlerBase):
    """A handler written with coroutines, under trio or asyncio."""

    @abstractmethod
    async def receive(self, frame: tuple[int, Int16Array]) -> None:
        """Take 20 ms of the client's audio. See :meth:`StreamHandler.receive`."""

    @abstractmethod
    async def emit(self) -> EmitType:
        """Give audio to play. See :meth:`StreamHandler.emit`."""

    @abstractmethod
    def copy(self) -> AsyncStreamHandler: ...

    async def start_up(self) -> None: ...


class AudioVideoStreamHandler(StreamHandler):
    """:class:`StreamHandler` with video."""

    @abstractmethod
    def video_receive(self, frame: NDArray[Any]) -> None:
        """Take a frame of the client's video, in the handler's ``video_format``.

        A handler that is slower than the client's frame rate is given the latest frame next.
        """

    @abstractmethod
    def video_emit(self) -> VideoEmitType:
        """Give a frame of video to show, or None if there is nothing now.

        Called at most :attr:`fps` times a second.

        Returns:
            uint8 or float32 (0 to 1) of shape ``(height, width, 3)`` or ``(height, width)``, or an
            ``av.VideoFrame``. Alone or beside ``AdditionalOutputs`` or ``CloseStream``.
        """

    @abstractmethod
    def copy(self) -> AudioVideoStreamHandler: ...


class AsyncAudioVideoStreamHandler(AsyncStreamHandler):
    """:class:`AsyncStreamHandler` with video."""

    @abstractmethod
    async def video_receive(self, frame: NDArray[Any]) -> None:
        """Take a frame of the client's video. See :class:`AudioVideoStreamHandler`."""

    @abstractmethod
    async def video_emit(self) -> VideoEmitType:
        """Give a frame of video to show. See :class:`AudioVideoStreamHandler`."""

    @abstractmethod
    def copy(self) -> AsyncAudioVideoStreamHandler: ...
