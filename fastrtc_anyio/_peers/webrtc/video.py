"""Outgoing video at a limited frame rate, and incoming video."""

from __future__ import annotations

import asyncio

from aiortc import MediaStreamTrack, RTCRtpTransceiver
from aiortc.rtp import RtcpByePacket

from fastrtc_anyio._media.video_encode import VIDEO_TIME_BASE
from fastrtc_anyio._peers.streams.video import VideoOutput

from . import media_internals
from .picture_encoder import OutgoingPicture

STILL_SECONDS = 1.0
"""Seconds after which an unchanged frame is sent again, for clients that lost it."""


class PictureTrack(MediaStreamTrack):
    """Outgoing video: frames as they arrive, at most at the frame rate of the output."""

    kind = "video"

    def __init__(self, output: VideoOutput) -> None:
        super().__init__()
        self._output = output
        self._news = asyncio.Event()
        self._last: OutgoingPicture | None = None
        self._repeats = 0  # of the last frame
        self._began: float | None = None

    def wake(self) -> None:
        """Notice a new frame in the output."""
        self._news.set()

    async def recv(self) -> OutgoingPicture:
        loop = asyncio.get_running_loop()
        if self._began is None:
            self._began = loop.time()
        if self._output.due is not None and not self._output.draining:
            await asyncio.sleep(self._output.due - loop.time())
        picture = await self._next_picture()
        picture.pts = round((loop.time() - self._began) / VIDEO_TIME_BASE)
        return picture

    async def _next_picture(self) -> OutgoingPicture:
        while True:
            self._news.clear()
            if self._output.draining and self._last is not None and not self._repeats:
                # Repeat the last frame: some decoders output a frame only when the next arrives.
                self._repeats += 1
                return self._last
            picture = self._output.pull()
            if picture is not None:
                self._last = OutgoingPicture(picture)
                self._repeats = 0
                return self._last
            try:
                await asyncio.wait_for(self._news.wait(), STILL_SECONDS if self._last else None)
            except TimeoutError:
                if self._last is not None:
                    self._repeats += 1
                    return self._last


def keep_receiving(transceiver: RTCRtpTransceiver) -> None:
    """Keep decoding after an RTCP BYE, because the client's sender may resume."""
    media_internals.filter_rtcp(
        transceiver.receiver, lambda packet: not isinstance(packet, RtcpByePacket)
    )
