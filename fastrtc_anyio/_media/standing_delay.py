"""Which part of a playout buffer is delay that a live source does without.

A source that is paced in real time, such as an echo, may
stall and then hand over its backlog at once. The silence played meanwhile is a delay that stays
for ever, for from then on as much comes in as goes out. It shows in the depth, which is what is
queued after a pull: pulls are a clock, so the depth moves only by what the source gains or loses
on real time.

* A source in real time keeps the depth in a narrow band that does not drift, whatever its chunks
  and its jitter. The bottom of the band was never needed: it is trimmed to a margin of a frame.
* A source that works ahead and then rests, as speech synthesis does, leaves the band by its chunk
  when it pushes, and falls through it while it rests. It never loses a sample.
* A source that is always a little faster works ahead too. Its band drifts.
* A source that works ahead until it has to wait for room is in a steady band just below the limit,
  so the caller has to say that somebody waits.

A delay begins with silence. So a band taken up right after silence is believed after 0.66 s, and a
lead that has grown from nothing since then drifts too much to pass for one. Any other band, as when
clocks differ, has to hold for 1.32 s. What no rule can tell from a delay is the lead of a source
that pushes some sound ahead and the rest in real time, or that refills the buffer to a depth of its
own choice: such a source should not be live.

If a short silence follows soon after a trim, jitter did need what was trimmed, and the next trim
leaves a frame more, up to three.
"""

from __future__ import annotations

from collections import deque

from .frames import FRAMES_PER_SECOND

# How far the depth of a source in real time moves by its chunks and its jitter: 60 ms
# chunks that come up to 20 ms early or late need 100 ms.
BAND_FRAMES = 6
# How far the mean depth of the last third of a band may be from that of the first. Jitter of 20 ms
# moves the mean of 60 ms chunks by about 8 ms.
DRIFT_FRAMES = 0.75
# How long a band has to hold after silence, and how long otherwise. With the drift above, the first
# tells a source that is 3.4 % faster or slower than real time, the second one that is 1.7 %.
SHORT_PULLS = 33
LONG_PULLS = 66
# How late after silence a short band may begin. A lead that grows from nothing would be too small
# for a trim by then, or drift too much.
AFTER_SILENCE_PULLS = 22
# What a trim leaves for the next late packet, and how much more has to stand there to be worth one.
LEAST_MARGIN_FRAMES = 1
MOST_MARGIN_FRAMES = 3
LEAST_TRIM_FRAMES = 1
# Silence within this time of a trim says that the margin was too small, later that it was not.
REGRET_PULLS = 10 * FRAMES_PER_SECOND
# Longer silence says nothing: the source stalled or rested, and no margin would have helped.
REGRET_SILENT_PULLS = MOST_MARGIN_FRAMES + 1


class StandingDelay:
    """Finds how much of the depth a source paced in real time does without.

    Depths are samples per channel, taken after each pull that played a full frame.
    """

    def __init__(self, frame_samples: int) -> None:
        self._frame = frame_samples
        self._margin = LEAST_MARGIN_FRAMES
        # The latest depths, as far back as each was worth a trim and nobody was held back.
        self._depths: deque[int] = deque(maxlen=LONG_PULLS)
        self._silent_pulls = 0  # since the last sound
        self._sounding_pulls = 0  # since the last silence
        self._trimmed_at: int | None = None  # value of sounding pulls at the last trim among them

    def silence(self) -> None:
        """Note a pull that did not play a full frame."""
        self._depths.clear()
        self._silent_pulls += 1

    def excess(self, depth: int, held_back: bool) -> int:
        """Note the depth after a pull; returns how much of it is to be trimmed, mostly nothing."""
        if self._silent_pulls:
            self._end_silence()
        self._sounding_pulls += 1
        if held_back or depth < (self._margin + LEAST_TRIM_FRAMES) * self._frame:
            self._depths.clear()
            return 0
        self._depths.append(depth)
        after_silence = self._sounding_pulls <= AFTER_SILENCE_PULLS + SHORT_PULLS
        pulls = SHORT_PULLS if after_silence else LONG_PULLS
        if len(self._depths) < pulls:
            return 0
        band = list(self._depths)[-pulls:]
        if not self._is_steady(band):
            return 0
        self._depths.clear()
        self._trimmed_at = self._sounding_pulls
        return min(band) - self._margin * self._frame

    def _end_silence(self) -> None:
        """Learn from it how much margin jitter takes."""
        if self._trimmed_at is not None and self._silent_pulls <= REGRET_SILENT_PULLS:
            regret = self._sounding_pulls - self._trimmed_at < REGRET_PULLS
            margin = self._margin + (1 if regret else -1)
            self._margin = min(max(margin, LEAST_MARGIN_FRAMES), MOST_MARGIN_FRAMES)
        self._silent_pulls = self._sounding_pulls = 0
        self._trimmed_at = None

    def _is_steady(self, band: list[int]) -> bool:
        if max(band) - min(band) > BAND_FRAMES * self._frame:
            return False
        third = len(band) // 3
        first, last = band[:third], band[-third:]
        # The means tell a drift, the minima a backlog that was still coming in.
        return (
            abs(sum(last) - sum(first)) <= DRIFT_FRAMES * self._frame * third
            and abs(min(last) - min(first)) <= self._frame
        )
