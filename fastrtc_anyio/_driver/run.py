"""A handler and the session it serves, as all parts of the driver see them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

import anyio
from anyio import BrokenResourceError
from anyio.lowlevel import checkpoint

from fastrtc_anyio._core.log import logger
from fastrtc_anyio._media.frames import AudioFrame
from fastrtc_anyio._media.video import VideoFrame
from fastrtc_anyio._signaling.messages import encode_message
from fastrtc_anyio.handlers import StreamHandlerBase
from fastrtc_anyio.handlers.functions import FunctionHandler
from fastrtc_anyio.session import Session

from .calls import Calls
from .emissions import Emission

M = TypeVar("M")
H_co = TypeVar("H_co", bound=StreamHandlerBase, covariant=True)


class HandlerRun(Generic[H_co]):
    """One handler's service of one session.

    Attributes:
        calls: calls of the handler's code.
        on_played: called once all media have been played because the session hangs up.
        received: calls of ``receive`` that have returned.
    """

    def __init__(self, handler: H_co, session: Session, calls: Calls) -> None:
        self.handler = handler
        self.session = session
        self.calls = calls
        self.on_played: Callable[[], object] = lambda: None
        self.received = 0
        self._received: anyio.Event | None = None
        self._ignored: set[str] = set()
        self._send_audio = session.audio_out.send if session.media.audio_out else None

    @property
    def ending(self) -> bool:
        """Whether the session hangs up, and only queued media are still played."""
        return self.session.is_hanging_up

    def log(self, message: str) -> None:
        """Send the client a log message of FastRTC's protocol."""
        self.session.messages.send_nowait(encode_message("log", message))

    async def play(self, emission: Emission[AudioFrame]) -> None:
        """Send the parts of an audio emission; end the session if it holds a ``CloseStream``."""
        await self._deliver(emission, "audio", self._send_audio)

    async def play_frame(self, frame: AudioFrame) -> None:
        """Send audio, which the session must be able to play."""
        assert self._send_audio is not None
        if self.ending:
            await anyio.sleep_forever()
        await _send(frame, self._send_audio)

    async def show(self, emission: Emission[VideoFrame]) -> None:
        """Send the parts of a video emission; end the session if it holds a ``CloseStream``."""
        sent = self.session.media.video_out
        await self._deliver(emission, "video", self.session.video_out.send if sent else None)

    def note_received(self) -> None:
        """Note that ``receive`` has returned."""
        self.received += 1
        if self._received is not None:
            self._received.set()

    async def wait_received(self, count: int, seconds: float) -> None:
        """Wait until ``receive`` has returned more than ``count`` times, for ``seconds`` at most.

        An ``emit`` that had nothing to give will most likely have something then.
        """
        if self.received != count:
            await checkpoint()
            return
        self._received = anyio.Event()
        with anyio.move_on_after(seconds):
            await self._received.wait()

    async def wait_picture_wanted(self, lead: float) -> None:
        """Wait until a picture that takes ``lead`` seconds to make would be shown at once."""
        if self.session.media.video_out:
            try:
                await self.session.video_out.wait_ready(lead)
            except BrokenResourceError:
                await anyio.sleep_forever()

    async def end(self, message: str = "") -> None:
        """End the session once all queued media have been played. Does not return."""
        self.session.hang_up(message)
        await anyio.sleep_forever()

    async def play_out(self) -> None:
        """Wait until all queued media have been played, and report it."""
        await self.wait_played()
        self.on_played()

    async def wait_played(self) -> None:
        """Wait until all queued media have been played or flushed."""
        session = self.session
        await session.wait_played()
        if session.media.audio_out and session.audio_out.statistics().buffered:
            await anyio.sleep_forever()  # the client has left, and the session is about to end

    async def _deliver(
        self, emission: Emission[M], kind: str, send: Callable[[M], Awaitable[None]] | None
    ) -> None:
        if self.ending:
            # The other parts of the handler run on, but nothing follows the goodbye.
            await anyio.sleep_forever()
        if emission.media is not None and send is not None:
            await _send(emission.media, send)
        elif emission.media is not None and kind not in self._ignored:
            self._ignored.add(kind)
            logger.warning(
                "session %s: the %s that %s emits is not sent: the mode of the stream has none",
                self.session.log_id,
                kind,
                type(self.handler).__name__,
                event="handler.media_not_sent",
            )
        if emission.outputs is not None:
            self.session.send_outputs(emission.outputs)
        if emission.close is not None:
            await self.end(emission.close.msg)


async def _send(media: M, send: Callable[[M], Awaitable[None]]) -> None:
    try:
        await send(media)
    except BrokenResourceError:
        await anyio.sleep_forever()  # the client has left, and the session is about to end


async def wait_for_inputs(run: HandlerRun[FunctionHandler]) -> None:
    """Ask the client for its input and wait for it, if the function requires it."""
    handler = run.handler
    if handler.needs_args and not handler.args_set.is_set():
        logger.info(
            "session %s: waiting for the input of %s",
            run.session.log_id,
            handler.source,
            event="handler.waits_for_input",
        )
        await handler.wait_for_args()
