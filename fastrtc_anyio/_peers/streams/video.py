"""Video streams: the latest picture from the client, and paced pictures to the client."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import anyio
import numpy as np

from fastrtc_anyio._core.threads import run_sync
from fastrtc_anyio._media.queues import LatestQueue
from fastrtc_anyio._media.video import PictureOrder, VideoFrame, as_video_frame
from fastrtc_anyio.abc import (
    VideoInStatistics,
    VideoOutStatistics,
    VideoReceiveStream,
    VideoSendStream,
)

from .input import Input
from .link import Link, Parking, wait_for

_LARGE = 2_000_000
"""Bytes of an array beyond which its conversion takes milliseconds: up to seconds of floats."""
_RECENT = 0.125
"""Part of a frame interval for which a picture is recent."""
_TOGETHER_S = 0.1
"""Seconds of pictures that arrive together after a network has held them back. As many are shown at
once: if the last of them waited, all pictures behind it would wait as long. This is also the time
to wait for a recent picture at most, because the client may have stopped."""


class VideoInput(Input[VideoFrame, VideoInStatistics], VideoReceiveStream):
    """Pictures from the client, of which only the latest is kept."""

    def __init__(self, link: Link) -> None:
        self._latest: LatestQueue[VideoFrame] = LatestQueue(link.clock)
        super().__init__(link, self._latest)

    async def wait_recent(self, interval: float) -> None:
        """Wait until no picture is held that is older than a part of ``interval``.

        Waits no longer than ``interval``.
        """
        end = self._link.clock() + interval

        def is_recent() -> bool | None:
            recent = self._latest.age <= _RECENT * interval
            return recent or self._ended or self._link.clock() >= end or None

        await wait_for(self._link, is_recent, self._arrived, lambda: end)


class VideoOutput(VideoSendStream):
    """Pictures to the client: one waiting for its time, and one being sent.

    The transport pulls a picture at :attr:`due`, and pulls again when it has sent that picture.

    ``source`` has the pictures from the client. ``notify`` is called on the host when a picture is
    queued or :meth:`wait_played` begins.
    """

    def __init__(
        self,
        link: Link,
        fps: float,
        source: VideoInput,
        notify: Callable[[], None] = lambda: None,
    ) -> None:
        self.fps = fps
        self._source = source
        self.due: float | None = None
        """Earliest time of the next picture, on the link's clock; None before the first pull."""
        self._link = link
        self._notify = notify
        self._changed = Parking(link)
        self._waiting: tuple[VideoFrame, float] | None = None
        self._being_sent = False
        self._draining = 0
        self._counters = VideoOutStatistics()
        self._ended = False

    async def send(self, picture: object, order: PictureOrder = "bgr24") -> None:
        frame = await _convert(picture, order)
        counters = self._counters

        def put() -> int | None:
            self._check_open()
            if self._waiting is not None:
                return None
            self._waiting = (frame, self._link.clock())
            counters.buffered = 1
            counters.sent += 1
            return counters.sent

        number = await wait_for(self._link, put, self._changed)
        self._notify()

        def is_taken() -> bool | None:
            return counters.played + counters.flushed >= number or None

        await wait_for(self._link, is_taken, self._changed)

    async def wait_ready(self, lead: float = 0.0) -> None:
        def next_due() -> float | None:
            self._check_open()
            return self.due if self._waiting is None else None

        due = await wait_for(self._link, next_due, self._changed)
        early = due - lead - self._link.clock()
        if early > 0:
            await anyio.sleep(early)
            # At equal frame rates, this time and the next arrival keep their distance: all pictures
            # would be as old as this one, up to a frame interval. Skipping one is enough.
            await self._source.wait_recent(min(1 / self.fps, _TOGETHER_S))

    def flush(self) -> None:
        with self._link.lock:
            self._drop()

    async def wait_played(self) -> None:
        def is_played() -> bool | None:
            return self._ended or not (self._waiting or self._being_sent) or None

        self._draining += 1
        self._notify()
        try:
            await wait_for(self._link, is_played, self._changed)
        finally:
            self._draining -= 1

    @property
    def draining(self) -> bool:
        """Transport side: whether the last picture was pulled and a task waits for its arrival."""
        return self._draining > 0 and self._waiting is None

    def statistics(self) -> VideoOutStatistics:
        with self._link.lock:
            return replace(self._counters)

    def pull(self) -> VideoFrame | None:
        """Transport side: take the next picture, or None. The picture before it has been sent."""
        with self._link.lock:
            now = self._link.clock()
            self._changed.wake()
            self._being_sent = False
            if self._waiting is None:
                self.due = now if self.due is None else self.due
                return None
            (frame, since), self._waiting = self._waiting, None
            self._being_sent = True
            self._counters.buffered = 0
            self._counters.played += 1
            self._counters.latency = now - since
            # Not now + 1 / fps: after a late picture the next may come sooner, so that the average
            # rate is kept.
            due = now if self.due is None else self.due
            interval = 1 / self.fps
            self.due = max(due, now - max(interval, _TOGETHER_S)) + interval
            return frame

    def end(self) -> None:
        """Transport side: stop sending pictures for good."""
        with self._link.lock:
            self._ended = True
            self._drop()

    def _check_open(self) -> None:
        if self._ended:
            raise anyio.BrokenResourceError

    def _drop(self) -> None:
        self._waiting = None
        self._counters.flushed += self._counters.buffered
        self._counters.buffered = 0
        self._changed.wake()


async def _convert(picture: object, order: PictureOrder) -> VideoFrame:
    if isinstance(picture, np.ndarray) and picture.nbytes > _LARGE:
        return await run_sync(as_video_frame, picture, order)
    return as_video_frame(picture, order)
