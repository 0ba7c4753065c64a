"""Fill gaps in a client's audio with silence, so that samples keep up with time.

A muted sender, silence suppression, discontinuous transmission (DTX) and an outage leave gaps in
which no audio arrives. Turn taking and recordings measure time in samples, so a gap must have its
true length in samples. Two clocks reveal a gap:

* *The client's clock.* Packets with timestamps (RFC 3550 5.1) say how much time lies between two of
  them. This is exact, but known only when the second packet arrives.
* *Elapsed time* between two packets without timestamps. Less than `GRACE_S` is jitter.

A reader that has to react during a gap gets its silence in real time, once nothing has arrived for
`GRACE_S`. For other readers the silence precedes the next frame. Either way a gap is filled once.

Audio that was only late arrives after silence in its place. It is delivered all the same, and the
surplus of silence is deducted from the next gap.
"""

from __future__ import annotations

import numpy as np

from .frames import AudioFrame

GRACE_S = 0.2
"""Seconds by which audio may be late before silence takes its place. Longer than the usual jitter
of a network, and short against the pause that ends a turn."""
LONGEST_GAP_S = 60.0
"""Maximum seconds of silence in one gap. The rest of a longer gap is skipped, and counted."""
_LONG_MESSAGE_S = 1.0
"""Maximum duration of a message after which the next one is awaited for as long as it lasts, until
the client has proven to send such messages in real time. A recording sent at once is longer."""
_TRUST_S = 10.0
"""Seconds by which timestamps may outrun elapsed time. Beyond, they are those of a sender that has
restarted. A client could otherwise produce hours of silence with one packet."""


class GapFiller:
    """Computes the silence between the frames of one client.

    Times are those of any monotonic clock, in seconds.

    Attributes:
        skipped: seconds of gaps beyond the longest, and of silence that a slow reader missed.
    """

    def __init__(self) -> None:
        self.skipped = 0.0
        self._last: AudioFrame | None = None
        self._arrived = 0.0  # time of the last frame's arrival
        self._patience = 0.0  # seconds that the next frame is expected to take
        self._filled = 0.0  # silence produced since then
        self._surplus = 0.0  # silence produced in place of audio that came late
        self._suspect = 0.0  # silence that the backlog of an outage may turn into a surplus
        self._trust = _TRUST_S

    def arrive(self, now: float, frame: AudioFrame, gap: float | None) -> float:
        """Return the seconds of silence to insert before a frame that has just arrived.

        Args:
            now: time of arrival.
            frame: the frame; it has at least one sample.
            gap: seconds from the end of the last frame to the start of this one on the client's
                clock; None if the transport has no such clock or the client's has restarted.
        """
        elapsed, duration = now - self._arrived, frame.duration
        silence, in_real_time = 0.0, False
        if self._last is not None:
            silence = self._measure(elapsed, duration, gap)
            in_real_time = elapsed <= duration + GRACE_S
        self._patience = duration if in_real_time else min(duration, _LONG_MESSAGE_S)
        self._last, self._arrived, self._filled = frame, now, 0.0
        return silence

    def _measure(self, elapsed: float, duration: float, gap: float | None) -> float:
        self._trust = min(self._trust + elapsed, _TRUST_S)
        if gap == 0 and not self._filled and not self._surplus:
            return 0.0
        if gap is None or gap - elapsed > self._trust:
            gap = elapsed - duration  # the frame ends now
            if gap <= GRACE_S:
                # Frames that arrive faster than they last are the backlog of an outage.
                late = min(max(0.0, -gap), self._suspect)
                self._suspect -= late
                self._surplus += late
                return 0.0
            gap = round(gap / duration) * duration  # as whole frames, like sound
            self._suspect = gap
        self._trust -= max(0.0, gap - elapsed)
        missing = gap - self._filled - self._surplus
        self._surplus = max(0.0, -missing)
        silence = max(0.0, min(missing, LONGEST_GAP_S - self._filled))
        self.skipped += max(0.0, missing - silence)
        return silence

    def absorb(self, duration: float) -> bool:
        """Return whether concealed audio, in seconds, falls in a gap that is filled already."""
        absorbed = self._filled > 0
        self._filled = max(0.0, self._filled - duration)
        return absorbed

    def due(self) -> float | None:
        """Return the time of the next silence; None before any audio and after a long gap."""
        if self._last is None or self._filled >= LONGEST_GAP_S:
            return None
        if not self._filled:
            return self._arrived + self._patience + GRACE_S
        return self._arrived + self._filled + self._silence.duration

    def stall(self, seconds: float) -> None:
        """Exclude the time in which this process could not receive audio."""
        self._arrived += seconds

    def fill(self, now: float, earliest: float = 0.0) -> AudioFrame | None:
        """Return silence, as long as the last frame or 0.1 s, if it is due, or None.

        The silence before the time ``earliest`` is skipped.
        """
        due = self.due()
        if due is None or now < due:
            return None
        late = earliest - self._arrived - self._filled
        if late > 0:
            self._filled += late
            self.skipped += late
        silence = self._silence
        self._filled += silence.duration
        return silence

    @property
    def _silence(self) -> AudioFrame:
        assert self._last is not None
        rate, samples = self._last
        return AudioFrame(rate, np.zeros_like(samples[:, : rate // 10]))
