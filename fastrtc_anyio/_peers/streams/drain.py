"""Audio from the client that any thread may read, without waiting."""

from __future__ import annotations

from collections.abc import Callable

from anyio import EndOfStream

from fastrtc_anyio._media.frames import AudioFrame

from .audio import AudioInput
from .link import Link, Parking


class DrainableAudioInput(AudioInput):
    """:class:`.AudioInput` that any thread may read instead of the session's tasks.

    The clock of the link and ``heard`` must work on any thread.
    """

    def __init__(
        self,
        link: Link,
        limit_seconds: float = 1.0,
        heard: Callable[[], float] | None = None,
        probe: Callable[[], None] = lambda: None,
    ) -> None:
        super().__init__(link, limit_seconds, heard, probe)
        self._arrived = self._bell = _Bell(link)

    def set_notify(self, notify: Callable[[], object] | None) -> None:
        """Call ``notify``, on any thread, after each arrival and at the end. It must not block."""
        with self._link.lock:
            self._bell.notify = notify

    def drain(self, limit: float, silence: bool) -> list[AudioFrame]:
        """Remove and return the frames that have arrived, perhaps none. Never waits.

        Args:
            limit: seconds of audio after which the other frames stay queued.
            silence: whether to return the silence of a gap in real time, as
                :meth:`receive_or_silence` does.

        Raises:
            anyio.EndOfStream: the connection has ended and every frame was read.
        """
        frames: list[AudioFrame] = []
        seconds = 0.0
        with self._link.lock:
            while seconds < limit:
                try:
                    frame = self._pop()
                except EndOfStream:
                    if frames:
                        break
                    raise
                if frame is not None or not silence:
                    self._awaited = None
                if frame is None and silence:
                    frame = self._fill_in_time()
                if frame is None:
                    break
                frames.append(frame)
                seconds += frame.duration
        return frames

    def _fill_in_time(self) -> AudioFrame | None:
        """Return silence if it is due; else note when the next silence is due."""
        frame = self._fill()
        if frame is not None:
            self._awaited = None
        elif self._awaited is None or self._link.clock() >= self._awaited:
            self._due()
        return frame


class _Bell(Parking):
    """:class:`.Parking` that also calls a function for a reader that does not wait here."""

    notify: Callable[[], object] | None = None

    def wake(self) -> None:
        Parking.wake(self)  # super() takes longer, at each frame of each call
        if self.notify is not None:
            self.notify()
