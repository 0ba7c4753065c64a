"""Detect a standing delay in the playout buffer.

A source paced in real time, such as an echo, may stall and then push its backlog at once. The
silence played in the meantime is a delay that stays until the end of the call, because from then on
the source pushes as much as playout pulls. The delay shows in the depth: the samples queued after a
pull. Pulls are a clock, so the depth moves only when the source gains or loses on real time.

* A source in real time keeps the depth in a narrow band that does not drift, for any chunk size and
  jitter. The part below the band was never needed: it is trimmed.
* A source that works ahead and then rests, such as speech synthesis, leaves the band upwards by a
  chunk when it pushes, and falls through it while it rests. It never loses a sample.
* A source that is always slightly too fast works ahead, too. Its band drifts.
* A source that works ahead until it waits for room is in a steady band just below the limit.
  Therefore the caller reports whether a sender waits.

A delay begins with silence. A band of at least two frames that starts right after silence is
therefore accepted after 0.66 s: a lead that has grown from nothing since then drifts too much to
look like a delay. Another band, for example of jitter that has ended, has to hold for 1.32 s. No
rule can distinguish a delay from the lead of a source that pushes some audio ahead and the rest in
real time, or that refills the buffer to a depth it chooses. Such a source should not be live.

Other sources may do all of that and never lose a sample, so the depth alone proves nothing. Two
observations of the input, both by :class:`.InputLead`, show a delay all the same.

*The source repeats the input.* All that an echo has queued is delay, and trimmed as if it were
live; its band need not be steady. More than 2.5 s for 0.2 s is trimmed in any case: in a process
that is too slow for its calls no band lasts.

*A burst of input has caused the delay*: the session has read its input faster than real time, as it
does when the backlog of a network, of a busy loop or of a slow handler arrives. A rise of the depth
is a delay only if the source

* has been in a steady band before, which shows the depth that it needs,
* is in a steady band again, higher by what the input's lead accounts for.

Then the rise is trimmed, and never more than the lead. Speech synthesis, music or a reply that is
paced in real time behind some audio pushed ahead lacks the cause. The rule cannot recognise a delay
that arises in such a handler between its input and its output, nor a source without steady bands.

Silence may also be read late in a burst: that of a gap in which the client sent no audio comes with
the audio that ends the gap. Silent samples at the front of the queue are therefore trimmed at once,
as far as the lead accounts for the depth. Waiting for a steady band would cost speech instead.

A short silence soon after a trim means that jitter needed the samples trimmed. From then on trims
leave a margin of another frame, up to three. The last frame of the margin is trimmed when jitter
has not needed it for 5 s; if that was wrong, it is kept for longer the next time, up to 40 s.
"""

from __future__ import annotations

from collections import deque

from .frames import FRAMES_PER_SECOND
from .input_lead import MOST_BEHIND_S, InputLead

# Range of the depth of a source in real time, caused by its chunks and its jitter: 60 ms chunks
# that arrive up to 20 ms early or late need 100 ms.
BAND_FRAMES = 6
# Largest difference of the mean depth between the first and the last third of a steady band.
# Jitter of 20 ms moves the mean of 60 ms chunks by about 8 ms.
DRIFT_FRAMES = 0.75
# Duration for which a band has to hold, after silence and otherwise. With the drift above, the
# short one detects a source 3.4 % faster or slower than real time, the long one 1.7 %.
SHORT_PULLS = 33
LONG_PULLS = 66
# The same at the beginning of an echo: audio that waited while a call starts is not a margin.
START_PULLS = 10
# Latest start of a short band after silence. A lead that grows from nothing would be too small for
# a trim by then, or drift too much.
AFTER_SILENCE_PULLS = 22
# Margin that a trim leaves for the next late packet, and the least excess worth a trim.
MOST_MARGIN_FRAMES = 3
LEAST_TRIM_FRAMES = 0.3
# The least excess worth a trim after the short time.
LEAST_EARLY_TRIM_FRAMES = 2
# Time after which the last frame of a margin is trimmed if it was never needed. It doubles each
# time that this proves wrong.
PATIENCE_PULLS = 5 * FRAMES_PER_SECOND
MOST_PATIENCE_PULLS = 8 * PATIENCE_PULLS
# Silence within this time after a trim means that the margin was too small; later silence does not.
REGRET_PULLS = 10 * FRAMES_PER_SECOND
# Longer silence means nothing: the source stalled or rested, and no margin would have helped.
REGRET_SILENT_PULLS = MOST_MARGIN_FRAMES + 1
# A delay with a cause may wait longer for a trim. Looking at one pull in 11 is cheaper.
CHECK_PULLS = 11
LEAST_ECHO_TRIM_FRAMES = 2
LEAST_LEAD_S = LEAST_ECHO_TRIM_FRAMES / FRAMES_PER_SECOND
# Most that an echo may have queued for a short time, however unsteady its band is: it may repeat
# a block of the input as long as it may hold one back. More is the delay of a process too slow.
MOST_ECHO_FRAMES = (MOST_BEHIND_S + 0.5) * FRAMES_PER_SECOND
# Frames by which the lead and the rise that it explains may differ, besides the chunk size.
SLACK_FRAMES = 2
# Frames that a transport may send ahead, besides.
TRANSPORT_FRAMES = 2
# Checks after which a lead of the input that has not raised the depth is forgotten: 5 s.
LEAD_CHECKS = 5 * FRAMES_PER_SECOND // CHECK_PULLS
# Sounding pulls without a steady band, and without a lead of the input, after which the usual depth
# is forgotten.
FORGET_PULLS = 10 * FRAMES_PER_SECOND


class StandingDelay:
    """Detector of the part of the depth that a live source does not need.

    Depths are samples per channel, measured after each pull that played a full frame.

    Args:
        frame_samples: samples per channel and frame.
        lead: lead of the input of the same session.
    """

    def __init__(self, frame_samples: int, lead: InputLead | None = None) -> None:
        self._frame = frame_samples
        self._lead = lead or InputLead()
        self._margin = 0
        self._patience = PATIENCE_PULLS
        self._gave_up = False  # a part of the margin, without regret so far
        self._spare_pulls = 0  # since a frame less would have caused silence
        self._may_work_ahead = True
        self._first_pulls = SHORT_PULLS  # for which a band has to hold after silence
        # The latest depths, back to the last one too small for a trim or with a sender waiting.
        self._depths: deque[int] = deque(maxlen=LONG_PULLS)
        self._silent_pulls = 0  # since the last sound
        self._sounding_pulls = 0  # since the last silence
        self._trimmed_at: int | None = None  # sounding pulls at the last trim since the silence

    @property
    def follows_input(self) -> bool:
        """Whether the source is known to follow the input in real time."""
        return True

    def silence(self) -> None:
        """Note a pull that did not play a full frame."""
        self._depths.clear()
        self._silent_pulls += 1

    def excess(self, depth: int, held_back: bool) -> int:
        """Note the depth after a pull; return the samples to trim, usually 0."""
        if self._silent_pulls:
            self._end_silence()
        self._sounding_pulls += 1
        return self._find_excess(depth, held_back)

    def silent_excess(self, depth: int) -> int:
        """Return the samples to trim at once if they are silent, usually 0."""
        if self._lead.seconds < LEAST_LEAD_S:
            return 0
        usual, lead = self._usual_depth, self._lead_samples
        if usual is None:
            return 0
        if not self._explains(lead, depth - usual, usual, 0):
            return 0
        return max(0, min(depth - usual, lead))

    def note_trim(self, samples: int) -> None:
        """Note that this many samples were trimmed."""
        # The depths before the trim would make the next band look like a fall.
        self._depths.clear()
        self._trimmed_at = self._sounding_pulls
        self._lead.reduce(samples / (self._frame * FRAMES_PER_SECOND))

    @property
    def _usual_depth(self) -> int | None:
        return self._margin * self._frame

    @property
    def _lead_samples(self) -> int:
        return max(0, round(self._lead.seconds * self._frame * FRAMES_PER_SECOND))

    def _explains(self, lead: int, rise: int, usual: int, chunk: int) -> bool:
        """Return whether the input's lead accounts for a rise of the depth above the usual one."""
        # Pulls may now split the chunks differently. The stall used up the samples that the source
        # had queued, and the transport may hold some frames of the backlog.
        slack = chunk + SLACK_FRAMES * self._frame
        return rise - slack <= lead <= rise + usual + slack + TRANSPORT_FRAMES * self._frame

    def _find_excess(self, depth: int, held_back: bool) -> int:
        if self._margin:
            self._give_up_margin(depth)
        # Cleared, not skipped: a band with a gap in it would join two leads into one delay.
        if held_back or depth < (self._margin + LEAST_TRIM_FRAMES) * self._frame:
            self._depths.clear()
            return 0
        self._depths.append(depth)
        pulls = len(self._depths)
        if pulls >= LONG_PULLS:
            return self._excess_of(list(self._depths))
        if pulls < self._first_pulls or self._sounding_pulls > AFTER_SILENCE_PULLS + SHORT_PULLS:
            return 0
        excess = self._excess_of(list(self._depths)[-self._first_pulls :])
        early = self._may_work_ahead or pulls < SHORT_PULLS
        return 0 if early and excess < LEAST_EARLY_TRIM_FRAMES * self._frame else excess

    def _excess_of(self, band: list[int]) -> int:
        if self._may_work_ahead and not self._is_steady(band):
            return 0
        # A source that sends little plays a block of what it repeats, and may say more behind it.
        if band[0] - band[-1] > len(band) // 2 * self._frame:
            return 0
        # The minimum, not the mean: the depth above it is the source's own jitter and chunk size.
        return min(band) - self._margin * self._frame

    def _give_up_margin(self, depth: int) -> None:
        """Lower the margin if its last frame has not been needed for long."""
        self._spare_pulls = self._spare_pulls + 1 if depth >= self._frame else 0
        if self._spare_pulls > self._patience:
            self._spare_pulls = 0
            self._margin -= 1
            if self._gave_up:  # the last time, and it was right
                self._patience = max(self._patience // 2, PATIENCE_PULLS)
            self._gave_up = True

    def _end_silence(self) -> None:
        """Learn from the silence just ended whether the margin suffices."""
        if self._trimmed_at is not None and self._silent_pulls <= REGRET_SILENT_PULLS:
            if self._sounding_pulls - self._trimmed_at < REGRET_PULLS:
                self._margin = min(self._margin + 1, MOST_MARGIN_FRAMES)
                if self._gave_up:
                    self._patience = min(2 * self._patience, MOST_PATIENCE_PULLS)
                self._gave_up = False
            else:  # a margin of this size has not helped
                self._margin = max(self._margin - 1, 0)
        self._spare_pulls = 0
        self._silent_pulls = self._sounding_pulls = 0
        self._trimmed_at = None

    def _is_steady(self, band: list[int]) -> bool:
        if max(band) - min(band) > BAND_FRAMES * self._frame:
            return False
        third = len(band) // 3
        first, last = band[:third], band[-third:]
        # The means reveal a drift, the minima a backlog that was still arriving.
        return (
            abs(sum(last) - sum(first)) <= DRIFT_FRAMES * self._frame * third
            and abs(min(last) - min(first)) <= self._frame
        )


class EchoDelay(StandingDelay):
    """Detector of the part of the depth that a burst of input has caused.

    The delay of a source that repeats the input sample by sample is found as if it were live.
    """

    def __init__(self, frame_samples: int, lead: InputLead | None = None) -> None:
        super().__init__(frame_samples, lead)
        self._usual: int | None = None  # depth that the source has proven to suffice
        self._unexplained: deque[int] = deque(maxlen=LEAD_CHECKS)  # leads at the usual depth
        self._unsteady_pulls = 0
        self._repeated_pulls = 0  # sounding pulls of a source that repeats the input
        self._full_pulls = 0  # with more queued than an echo may have

    @property
    def in_real_time(self) -> bool:
        """Whether the source has lately been in a steady band."""
        repeats = self._lead.is_repeated and self._repeated_pulls >= LONG_PULLS
        return self._usual is not None or repeats

    @property
    def follows_input(self) -> bool:
        return self._lead.is_repeated_now

    def _find_excess(self, depth: int, held_back: bool) -> int:
        if self._may_work_ahead == self._lead.is_repeated_now:
            self._may_work_ahead = not self._may_work_ahead
            self._depths.clear()  # depths mean something else from now on
        if not self._may_work_ahead:
            self._repeated_pulls += 1
            self._first_pulls = START_PULLS if self._repeated_pulls < SHORT_PULLS else SHORT_PULLS
            self._full_pulls = self._full_pulls + 1 if depth > MOST_ECHO_FRAMES * self._frame else 0
            if self._full_pulls > START_PULLS:
                return depth - self._margin * self._frame
            return super()._find_excess(depth, held_back)
        lead = self._lead_samples
        # Bursts of input make any source unsteady.
        self._unsteady_pulls += lead < LEAST_ECHO_TRIM_FRAMES * self._frame
        if self._unsteady_pulls > FORGET_PULLS:
            self._usual = None
        if held_back:
            self._depths.clear()
            return 0
        # Without the lead, so that the band of an echo is steady through bursts of input, too.
        self._depths.append(depth - lead)
        if len(self._depths) < LONG_PULLS or self._sounding_pulls % CHECK_PULLS:
            return 0
        band = list(self._depths)
        if not self._is_steady(band):
            return 0
        self._unsteady_pulls = 0
        return self._judge(min(band) + lead, max(band) - min(band), lead)

    def note_trim(self, samples: int) -> None:
        super().note_trim(samples)
        self._unexplained.clear()
        self._unsteady_pulls = 0

    @property
    def _usual_depth(self) -> int | None:
        return self._usual if self._may_work_ahead else super()._usual_depth

    def _judge(self, depth: int, chunk: int, lead: int) -> int:
        """Return the samples to trim from a steady band, given its depth and its range."""
        frame = self._frame
        if self._usual is None or depth < self._usual + frame:
            self._usual = max(0, depth if self._usual is None else min(depth, self._usual))
            self._forget_lead(lead)
            return 0
        rise, excess = depth - self._usual, depth - max(self._usual, frame)
        if self._explains(lead, rise, self._usual, chunk):
            trim = min(excess - self._margin * frame, lead)
            if trim >= LEAST_ECHO_TRIM_FRAMES * frame:
                return trim
            if excess <= (LEAST_ECHO_TRIM_FRAMES + 1) * frame:
                return 0  # of differing clocks, perhaps, and still growing
        self._usual = depth
        self._unexplained.clear()
        return 0

    def _forget_lead(self, lead: int) -> None:
        """Reduce a lead that has not raised the depth: it has no part in the next delay."""
        self._unexplained.append(lead)
        standing = min(self._unexplained)
        if len(self._unexplained) == LEAD_CHECKS and standing >= self._frame:
            self._lead.reduce(standing / (self._frame * FRAMES_PER_SECOND))
            self._depths = deque([depth + standing for depth in self._depths], LONG_PULLS)
            self._unexplained.clear()
