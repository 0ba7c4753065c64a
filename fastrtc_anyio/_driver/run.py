"""A handler being driven over a session: what all its parts share."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Any, Generic, TypeVar

import anyio
from anyio import BrokenResourceError, create_task_group

from fastrtc_anyio._core.groups import collapse_groups
from fastrtc_anyio._media.frames import AudioFrame
from fastrtc_anyio._media.video import VideoFrame
from fastrtc_anyio.errors import CloseReason
from fastrtc_anyio.functions import FunctionHandler
from fastrtc_anyio.handlers import StreamHandlerBase
from fastrtc_anyio.session import Session

from .calls import Calls
from .emissions import Emission

__all__ = ["HandlerRun", "wait_for_inputs"]

logger = logging.getLogger("fastrtc_anyio")

H = TypeVar("H", bound=StreamHandlerBase)


class HandlerRun(Generic[H]):
    """One handler, its session, and the way from one to the other."""

    def __init__(self, handler: H, session: Session, calls: Calls) -> None:
        self.handler = handler
        self.session = session
        self.calls = calls
        self._ignored: set[str] = set()
        self._ending = False

    @property
    def ending(self) -> bool:
        """Whether the handler has asked for the end, and only what is queued is still played."""
        return self._ending

    async def play(self, emission: Emission[AudioFrame]) -> None:
        """Send what an audio emission holds, and end the session if it says so."""
        await self._unless_ending()
        if emission.media is not None and self._is_sent("audio", self.session.media.audio_out):
            await self._send(self.session.audio_out.send, emission.media)
        await self._finish(emission)

    async def show(self, emission: Emission[VideoFrame]) -> None:
        """The same for video."""
        await self._unless_ending()
        if emission.media is not None and self._is_sent("video", self.session.media.video_out):
            await self._send(self.session.video_out.send, emission.media)
        await self._finish(emission)

    async def wait_picture_wanted(self, lead: float) -> None:
        """Wait until a picture that takes ``lead`` seconds to make would be shown at once."""
        if self.session.media.video_out:
            await self._send(self.session.video_out.wait_ready, lead)

    async def end(self, message: str = "", then: Callable[[], object] = lambda: None) -> None:
        """End the session once everything queued has been played. Does not return.

        Args:
            message: what the client is told.
            then: called when it has been played.
        """
        self._ending = True
        await self.wait_played()
        then()
        self.session.close(CloseReason.HANDLER_CLOSED, message)
        await anyio.sleep_forever()

    async def wait_played(self) -> None:
        """Wait until everything queued has been played, or flushed."""
        media = self.session.media
        with collapse_groups():
            async with create_task_group() as tg:
                if media.audio_out:
                    tg.start_soon(self.session.audio_out.wait_played)
                if media.video_out:
                    tg.start_soon(self.session.video_out.wait_played)
        if media.audio_out and self.session.audio_out.statistics().buffered:
            await anyio.sleep_forever()  # the client has gone, and the session with it in a moment

    async def _unless_ending(self) -> None:
        """What comes after the end was asked for is not played, whichever part it comes from."""
        if self._ending:
            await anyio.sleep_forever()

    async def _send(self, send: Callable[..., Awaitable[None]], media: object) -> None:
        try:
            await send(media)
        except BrokenResourceError:
            await anyio.sleep_forever()  # the client has gone, and the session with it in a moment

    def _is_sent(self, kind: str, flows: bool) -> bool:
        if not flows and kind not in self._ignored:
            self._ignored.add(kind)
            logger.warning(
                "session %s: the %s that %s emits is not sent: the mode of the stream has none",
                self.session.id,
                kind,
                type(self.handler).__name__,
            )
        return flows

    async def _finish(self, emission: Emission[Any]) -> None:
        if emission.outputs is not None:
            self.session.send_outputs(emission.outputs)
        if emission.close is not None:
            await self.end(emission.close.msg)


async def wait_for_inputs(run: HandlerRun[Any]) -> None:
    """Have the client send its input, if the function cannot be called without."""
    handler: FunctionHandler = run.handler
    if handler.needs_args and not handler.args_set.is_set():
        logger.info("session %s: waiting for the input of %s", run.session.id, handler.source)
        await handler.wait_for_args()
