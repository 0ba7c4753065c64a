"""Compare a session's output with its input: is it an echo, and has input come in a burst?

A source is an echo as long as all samples that it has sent are those that the session has read, in
the same order. So is a source that has always kept pace with the input, such as an echo with
another volume: it sends as much as the session has read, no sample before it was read, and hardly
any later. The duration alone proves nothing once the source has kept the input back for longer: a
reply to a short sentence may be as long as the sentence.
"""

from __future__ import annotations

import math

from .frames import AudioFrame, Int16Array

# Seconds by which an echo may seem to send more than it has read: what filters hold back varies.
ROUNDING_S = 0.005
# Seconds that an echo usually holds back between reading and sending.
MOST_UNSENT_S = 0.04
# Seconds for which it may hold back more in a burst of input.
MOST_HELD_S = 0.3
# Seconds for which a stall may do so in a source that sends the same samples.
MOST_BEHIND_S = 2.0
# Seconds within which reading and playout both go on after a stall of the process.
NOTICE_S = 0.2


class InputLead:
    """Lead of a session's reading over real time: the depth that its echo would have.

    Attributes:
        seconds: input read before the last frame that was still ahead of real time then.
    """

    def __init__(self) -> None:
        self.seconds: float = 0.0
        self._keeps_pace = True
        self._is_same = True  # all samples sent are those read
        self._samples = bytearray()  # of the first channel, read and not sent; while the same
        self._unsent = 0.0  # seconds read more than were sent
        self._behind_since = math.inf  # when more was held back than an echo usually does
        self._until = -math.inf
        self._read_at = -math.inf
        self._duration = 0.0  # of the last frame
        # The longest recent time without a read: its end, its length, and for how long an echo had
        # run dry by then.
        self._pause = -math.inf, 0.0, 0.0

    def read(self, now: float, frame: AudioFrame) -> None:
        """Note that a frame of the input was read at ``now``."""
        duration = frame.duration
        self._unsent += duration
        if self._unsent > MOST_UNSENT_S:
            self._behind_since = min(self._behind_since, now)
            behind = now - self._behind_since
            self._keeps_pace = self._keeps_pace and behind <= MOST_HELD_S
            if behind > MOST_BEHIND_S:
                self._is_same = False
                self._samples.clear()
        if self._is_same:
            self._samples += frame.samples[0].tobytes()
        ended, longest, _ = self._pause
        if now - self._read_at >= longest or ended < now - NOTICE_S:
            self._pause = now, now - self._read_at, max(0.0, now - self._until)
        self._read_at = now
        self.seconds = max(0.0, self._until - now)
        self._until = now + self.seconds + duration
        self._duration = duration

    def send(self, samples: Int16Array, sample_rate: int) -> None:
        """Note that audio was sent."""
        self._unsent -= samples.shape[1] / sample_rate
        if self._unsent <= MOST_UNSENT_S:
            self._behind_since = math.inf
            self._keeps_pace = self._keeps_pace and self._unsent >= -ROUNDING_S
        if self._is_same:
            sent = samples[0].tobytes()
            self._is_same = self._samples.startswith(sent)
            del self._samples[: len(sent) if self._is_same else None]

    @property
    def is_repeated(self) -> bool:
        """Whether all of the input, and nothing else, has been sent so far."""
        return self._is_same or self._keeps_pace

    @property
    def is_repeated_now(self) -> bool:
        """Whether `is_repeated`, and not much of the input is held back at this moment."""
        return self.is_repeated and self._read_at - self._behind_since <= MOST_HELD_S

    def skip(self, now: float, seconds: float) -> None:
        """Note that playout stood still for so long until now: an echo keeps what it has queued.

        It counts as far as nothing was read meanwhile either, as in a stall of the process. After
        such a stall the first input may be read before playout notices the stall.
        """
        ended, pause, dry = self._pause
        if ended < now - NOTICE_S:
            pause = dry = 0.0
        stalled = min(seconds, max(pause, now - self._read_at))
        self._until += max(0.0, stalled - dry)
        self.seconds = max(0.0, self._until - now - self._duration)

    def reduce(self, seconds: float) -> None:
        """Note that an echo would have been trimmed."""
        self._until -= seconds
        self.seconds -= seconds
