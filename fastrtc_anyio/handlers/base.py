"""The base of all handlers, and the parts of a session that a handler uses."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Generator
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from anyio.lowlevel import checkpoint

from fastrtc_anyio._core.gate import Gate
from fastrtc_anyio._core.options import check_choice, check_number, check_type
from fastrtc_anyio._media.av_frames import from_av, to_av
from fastrtc_anyio._media.frames import (
    FRAMES_PER_SECOND,
    AudioFrame,
    check_sample_rate,
    mix_channels,
)
from fastrtc_anyio._media.playout import Played
from fastrtc_anyio._media.resample import StreamResampler
from fastrtc_anyio._media.video import VideoFormat
from fastrtc_anyio._signaling.messages import encode_message

from .emit_types import Layout, latest_args

if TYPE_CHECKING:
    import av
    from anyio.from_thread import BlockingPortal

    from fastrtc_anyio.abc import AsyncioBridge

__all__ = ["DataChannel", "HandlerRuntime", "StreamHandlerBase"]


T = TypeVar("T")

_MAX_FPS = 240


class DataChannel(Protocol):
    """The data channel of a session, as handlers see it."""

    def send(self, message: str, /) -> None:
        """Send a text message. Any thread may call this; it does not block."""


class HandlerRuntime(Protocol):
    """A running session, as its handler sees it."""

    @property
    def portal(self) -> BlockingPortal:
        """Portal to the session's event loop. Raises RuntimeError after the session."""
        ...

    @property
    def asyncio_bridge(self) -> AsyncioBridge:
        """Bridge to the loop on which asyncio-only libraries run."""
        ...

    @property
    def on_host_thread(self) -> bool:
        """Whether the caller runs on the thread of the session's event loop."""
        ...

    def hang_up(self, message: str) -> None:
        """End the call once all queued output has been played. Any thread may call this."""

    def flush(self) -> Played:
        """Drop queued output. Any thread may call this."""
        ...

    def send_transcript(self, role: str, text: str) -> None:
        """Add a text to the transcript and send it to the client. Any thread may call this."""
        ...


class StreamHandlerBase(ABC):
    """Base class of all handlers.

    Args:
        expected_layout: layout of the audio passed to ``receive``: ``"mono"`` or ``"stereo"``.
            Stereo is then negotiated with the client.
        output_sample_rate: rate of outgoing audio in Hz: a multiple of 50 from 8000 to 48000.
            ``emit`` may return any rate.
        output_frame_size: deprecated. Frames are 20 ms, ``output_sample_rate // 50`` samples.
        input_sample_rate: rate of the audio passed to ``receive`` in Hz; same range.
        fps: maximum frame rate of outgoing video in Hz.

    Attributes:
        latest_args: the client's latest input: ``["__webrtc_value__", *args]``, or ``args``
            unchanged if the first is a :class:`WebRTCData`. Empty before the first input.
        args_set: a :class:`Gate`, open once input has arrived; :meth:`reset` closes it.
        channel_set: a :class:`Gate`, open once there is a data channel.
        phone_mode: whether the client is a telephone, which has no inputs.
        video_format: format of incoming video, set by a subclass or on an instance: ``"bgr24"``,
            ``"rgb24"`` (uint8, shape ``(height, width, 3)``), ``"gray"`` (uint8, shape
            ``(height, width)``), ``"float32"`` (like bgr24, 0 to 1) or ``"frame"`` (an
            ``av.VideoFrame``). Outgoing video has the same order of channels.
        receive_silence: whether ``receive`` is called with silence in real time while the client
            sends no audio, set by a subclass or on an instance. Set it in a handler that detects
            the end of speech itself or passes the audio to a service that does. Otherwise the
            silence of a gap is passed to ``receive`` when the gap has ended. ``ReplyOnPause``
            does not need it.

    Raises:
        TypeError: an argument has the wrong type.
        ValueError: an argument is out of range.
    """

    video_format: VideoFormat = "bgr24"
    receive_silence: bool = False

    def __init__(
        self,
        expected_layout: Layout = "mono",
        output_sample_rate: int = 24_000,
        output_frame_size: int | None = None,
        input_sample_rate: int = 48_000,
        fps: float = 30,
    ) -> None:
        check_choice("expected_layout", expected_layout, ("mono", "stereo"))
        check_number("fps", fps, above=0, at_most=_MAX_FPS)
        self.expected_layout = expected_layout
        self.output_sample_rate: int = check_sample_rate(output_sample_rate, "output_sample_rate")
        self.input_sample_rate: int = check_sample_rate(input_sample_rate, "input_sample_rate")
        self.output_frame_size: int = self.output_sample_rate // FRAMES_PER_SECOND
        if output_frame_size not in (None, self.output_frame_size):
            warnings.warn(
                f"output_frame_size is deprecated and has no effect: frames are 20 ms, which at "
                f"{output_sample_rate} Hz is {self.output_frame_size} samples; "
                f"got {output_frame_size}",
                UserWarning,
                stacklevel=2,
            )
        self.fps = fps
        self.phone_mode = False
        self.latest_args: list[Any] = []
        self.args_set: Gate = Gate()
        self.channel_set: Gate = Gate()
        self._channel: DataChannel | None = None
        self._runtime: HandlerRuntime | None = None
        self._resampler: tuple[tuple[int, int], StreamResampler] | None = None

    @property
    def channel(self) -> DataChannel | None:
        """The data channel, or None before the session starts. ``send(str)`` on any thread."""
        return self._channel

    @property
    def loop(self) -> Any:
        """An asyncio event loop, for libraries that require one.

        Under asyncio it is the loop of the session, so ``asyncio.run_coroutine_threadsafe`` and
        queues created there work. Under trio it is a loop in a separate thread, started on first
        use, which runs only the application's coroutines.

        Raises:
            RuntimeError: the session has not started.
        """
        return self._started("loop").asyncio_bridge.loop

    async def run_asyncio(self, function: Callable[..., Awaitable[T]], *args: object) -> T:
        """Await an asyncio coroutine function on :attr:`loop`, from trio or asyncio.

        Raises:
            RuntimeError: the coroutine was cancelled by asyncio code, or the session has not
                started.

        Exceptions from the coroutine propagate.

        Cancellation:
            Cancels the coroutine and waits until it has ended.
        """
        return await self._started("run_asyncio").asyncio_bridge.run(function, *args)

    @property
    def portal(self) -> BlockingPortal:
        """anyio's portal from a worker thread to the session's event loop.

        Raises:
            RuntimeError: the session has not started, or has ended.
        """
        return self._started("portal").portal

    @abstractmethod
    def copy(self) -> StreamHandlerBase:
        """Make the handler of one connection: a new object of this class.

        Runs on the event loop: do slow work, such as loading a model, before.
        """

    def start_up(self) -> object:  # noqa: B027 - optional to override
        """Run once when the connection is up, concurrently with ``receive`` and ``emit``.

        It may run until the session ends.
        """

    def shutdown(self) -> object:  # noqa: B027 - optional to override
        """Run exactly once after the session has ended, for any reason, for up to 5 s.

        May be a coroutine function. A plain one of an async handler runs on the event loop.
        """

    def on_message(self, message: str) -> object:  # noqa: B027 - optional to override
        """Process a text message from the client. May be a coroutine function."""

    def on_dtmf(self, digit: str) -> object:  # noqa: B027 - optional to override
        """Process a key press of the caller: one of ``0123456789*#ABCD``. May be a coroutine
        function.

        Clients send a key press as ``{"type": "dtmf", "data": digit}``, telephone carriers in their
        own formats. A handler that does not override this method receives the message in
        :meth:`on_message`.
        """

    def trigger_response(self) -> object:
        """Reply now. Called by ``stream.trigger_response(id)``.

        Raises:
            NotImplementedError: this class does not override the method.
        """
        raise NotImplementedError(f"{type(self).__name__} has no trigger_response()")

    def clear_queue(self) -> Played:
        """Drop the queued output. Any thread may call this.

        Returns:
            The audio played since the previous call; none before the session starts.
        """
        return self._runtime.flush() if self._runtime is not None else Played(0, 0.0)

    def hang_up(self, message: str = "") -> None:
        """End the call once the output queued so far has been played. Any thread may call this.

        Returns at once. Values returned or yielded afterwards are not played, and the client cannot
        interrupt what is. Call :meth:`clear_queue` before to end the call without playing the
        queued output. Only the first call has an effect; none has one after the end of the call.

        A reply function calls ``get_current_context().session.hang_up()``. An ``emit`` or a
        generator that has a last sentence to play may instead return or yield it together with a
        :class:`CloseStream`.

        Args:
            message: text for the client. Telephones show none.

        Raises:
            TypeError: ``message`` is not a str.
            RuntimeError: the session has not started.
        """
        self._started("hang_up").hang_up(message)

    async def send_message(self, message: str) -> None:
        """Send a text message to the client once its data channel is open.

        Up to 64 messages are queued until then. No effect before the session starts.
        """
        await checkpoint()
        if self._channel is not None:
            self._channel.send(message)

    def send_message_sync(self, message: str) -> None:
        """Run :meth:`send_message` from a worker thread.

        Raises:
            RuntimeError: called on the thread of the event loop.
        """
        if self._runtime is not None and self._runtime.on_host_thread:
            raise RuntimeError("send_message_sync is for worker threads: await send_message here")
        if self._channel is not None:
            self._channel.send(message)

    def send_transcript(self, role: str, text: str) -> None:
        """Add a text to the session's transcript and send it to the client, whose page shows it.

        ``role`` is ``"user"`` for what the application has recognised. Any thread may call this.
        See :meth:`Session.send_transcript`.

        Raises:
            RuntimeError: the session has not started.
            TypeError: an argument is not a str.
            ValueError: ``role`` is empty.
        """
        self._started("send_transcript").send_transcript(role, text)

    def set_channel(self, channel: DataChannel) -> None:
        """Set the data channel. Called by the session."""
        self._channel = channel
        self.channel_set.set()

    def set_runtime(self, runtime: HandlerRuntime) -> None:
        """Set the running session. Called by the session."""
        self._runtime = runtime

    def set_args(self, args: list[Any]) -> None:
        """Set the client's input and open :attr:`args_set`.

        Raises:
            TypeError: ``args`` is not a list.
        """
        check_type("args", args, list)
        self.latest_args = latest_args(args)
        self.args_set.set()

    async def fetch_args(self) -> None:
        """Ask the client to send its input."""
        await self.send_message(encode_message("send_input"))

    async def wait_for_args(self) -> None:
        """Ask the client for its input and wait for it. Returns at once for a telephone."""
        if self.phone_mode:
            self.args_set.set()
            await checkpoint()
        else:
            await self.fetch_args()
            await self.args_set.wait()

    def wait_for_args_sync(self) -> None:
        """Run :meth:`wait_for_args` from a worker thread."""
        self.portal.call(self.wait_for_args)

    def reset(self) -> None:
        """Close :attr:`args_set`, to wait for new input."""
        self.args_set.clear()

    def resample(self, frame: av.AudioFrame) -> Generator[av.AudioFrame, None, None]:
        """Convert a frame of a stream to ``input_sample_rate`` and ``expected_layout``.

        The filter keeps its state between frames.

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

    def _started(self, name: str) -> HandlerRuntime:
        if self._runtime is None:
            raise RuntimeError(
                f"{type(self).__name__}.{name} exists once the session has started: "
                "use it in start_up or later"
            )
        return self._runtime
