"""Playout of any handler: a burst of input leaves no delay in an echo, and costs nothing else."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fastrtc_anyio._media.frames import AudioFrame, Int16Array
from fastrtc_anyio._media.input_lead import InputLead
from fastrtc_anyio._media.playout import PlayoutBuffer

RATE = 8000
MS = RATE // 1000
END = 16_000.0

# Times and depths are in milliseconds.
Frames = list[tuple[float, float]]
Stall = tuple[float, float]


class Simulation:
    """A session that reads input and pushes audio at given times, and is pulled every 20 ms.

    A negative duration is that of silence.
    """

    def __init__(self, phase: float = 7.0) -> None:
        self.lead = InputLead()
        self.playout = PlayoutBuffer(RATE, 1, 30.0, input_lead=self.lead)
        self.depths: list[float] = []
        self.phase = phase

    def run(
        self,
        reads: Frames,
        pushes: Frames,
        until: float = END,
        *,
        pause: Stall = (0, 0),
        flush_at: float = 0,
        stopped: Sequence[Stall] = (),
        notices_late: bool = False,
    ) -> Simulation:
        """Run. While the process is ``stopped`` nothing is pulled, and nothing makes up for it."""
        events = sorted([(at, 0, ms) for at, ms in reads] + [(at, 1, ms) for at, ms in pushes])
        coming = iter(events)
        event = next(coming, None)
        pulled = self.phase - 20
        for now in pulls(self.phase, until, stopped):
            skipped, pulled = now - pulled - 20, now
            if not notices_late:
                self._skip(now, skipped)
            while event is not None and event[0] <= now:
                at, pushed, ms = event
                if pushed:
                    value = 1 if ms > 0 else 0
                    self.playout.push(np.full((1, round(abs(ms) * MS)), value, np.int16))
                else:
                    self.lead.read(at / 1000, AudioFrame(RATE, heard(ms)))
                event = next(coming, None)
            if notices_late:
                self._skip(now, skipped)
            if 0 <= now - flush_at < 20:
                self.playout.flush()
            self.playout.paused = pause[0] <= now < pause[1]
            self.playout.pull()
            self.depths.append(self.playout.buffered_samples / MS)
        return self

    def _skip(self, now: float, ms: float) -> None:
        if ms:
            self.lead.skip(now / 1000, ms / 1000)

    @property
    def trimmed(self) -> float:
        return self.playout.statistics().trimmed / MS

    def depth(self, start: float, end: float) -> float:
        return min(self.depths[int(start / 20) : int(end / 20)])


def heard(ms: float) -> Int16Array:
    """Return input that differs from the audio pushed."""
    return np.full((1, round(ms * MS)), 2, np.int16)


def pulls(start: float, end: float, stopped: Sequence[Stall]) -> Iterator[float]:
    """Yield a time every 20 ms, except while the process is stopped."""
    stops = iter(stopped)
    begin, over = next(stops, (end, end))
    for now in np.arange(start, end, 20.0).tolist():
        while now >= over and over < end:
            begin, over = next(stops, (end, end))
        if not begin <= now < over:
            yield now


def in_real_time(
    *stalls: Stall,
    chunk: float = 20,
    jitter: float = 0,
    start: float = 50,
    end: float = END,
    pace: float = 1.0,
    lose: bool = False,
) -> Frames:
    """Yield chunks in real time. A stall holds them up until its end, or loses them."""
    rng = random.Random(1)
    frames: Frames = []
    last = 0.0
    for due in np.arange(start, end, chunk / pace).tolist():
        now = due + rng.uniform(0, jitter)
        lost = False
        for begin, over in stalls:
            if begin <= now < over:
                now, lost = over, lose
        last = max(now, last)
        if not lost:
            frames.append((last, chunk))
    return frames


def filled(stall: Stall, chunk: float = 20) -> Frames:
    """Yield the silence that takes the place of the input of a stall after 200 ms."""
    return [(at, chunk) for at in np.arange(stall[0] + 200, stall[1], chunk).tolist()]


stalls = st.lists(st.integers(60, 3000), min_size=1, max_size=4)


@settings(max_examples=30)
@given(
    lengths=stalls,
    chunk=st.sampled_from([10, 20, 40, 60]),
    jitter=st.floats(0, 15),
    phase=st.floats(0, 20),
    fill=st.booleans(),
    lose=st.booleans(),
)
@example([300], 20, 0.0, 7.0, False, False)
@example([1000], 20, 0.0, 7.0, True, False)
@example([3000], 20, 0.0, 7.0, True, False)
@example([300, 300, 300], 20, 0.0, 7.0, True, True)
def test_latency_of_an_echo_is_the_same_2_s_after_stalls(
    lengths: list[int], chunk: int, jitter: float, phase: float, fill: bool, lose: bool
) -> None:
    at, outages = 4000.0, []
    for length in lengths:
        outages.append((at, at + length))
        at += length + 400
    frames = in_real_time(*outages, chunk=chunk, jitter=jitter, end=at + 4000, lose=lose)
    if fill:
        frames += [frame for outage in outages for frame in filled(outage, chunk)]
    frames.sort()
    result = Simulation(phase).run(frames, frames, at + 4000)
    assert result.depth(at + 1700, at + 4000) <= result.depth(2000, 4000) + 40


@settings(max_examples=15)
@given(
    stopped=st.integers(220, 500),
    running=st.integers(150, 300),
    count=st.integers(1, 60),
    chunk=st.sampled_from([20, 40, 60]),
    late=st.booleans(),
    silent=st.booleans(),
)
@example(400, 200, 100, 20, False, False)
@example(400, 200, 100, 20, True, True)
def test_latency_of_an_echo_is_the_same_after_the_process_was_starved(
    stopped: int, running: int, count: int, chunk: int, late: bool, silent: bool
) -> None:
    """Input waits in the socket while the process is stopped. Playout does not make up for it."""
    begins = [4000.0 + i * (stopped + running) for i in range(count)]
    stops = [(begin, begin + stopped) for begin in begins]
    end = stops[-1][1] + 6000
    reads = in_real_time(*stops, chunk=chunk, end=end)
    pushes = [(at, -ms if silent else ms) for at, ms in reads]
    result = Simulation().run(reads, pushes, end, stopped=stops, notices_late=late)
    assert min(result.depths[-100:]) <= result.depth(2000, 4000) + 60
    assert max(result.depths) < 4000


@settings(max_examples=15)
@given(
    kept=st.integers(10, 400),
    latency=st.integers(0, 3000),
    stall=st.integers(600, 2000),
)
def test_late_echo_with_a_reserve_keeps_its_reserve(kept: int, latency: int, stall: int) -> None:
    reads = in_real_time((6000, 6000 + stall))
    pushes = [(at + latency, ms) for at, ms in reads]
    pushes.insert(0, (50.0, kept))
    result = Simulation().run(reads, pushes, 14_000)
    usual = result.depth(4500, 6000)
    assert usual - 1 <= result.depth(8000 + stall + latency, 14_000) <= usual + 60


@settings(max_examples=30)
@given(
    pushes=st.lists(
        st.tuples(
            st.integers(0, 3000),  # rest
            st.integers(0, 3000),  # audio ahead
            st.integers(0, 4000),  # audio in real time behind it
            st.sampled_from([10, 20, 60, 100]),
            st.sampled_from([0.99, 1.0, 1.01, 1.5]),
        ),
        min_size=1,
        max_size=5,
    ),
    jitter=st.floats(0, 35),
    pace=st.sampled_from([0.99, 1.0]),
)
@example([(0, 0, 3000, 20, 1.0), (0, 0, 0, 20, 1.0), (100, 500, 4000, 20, 1.0)], 0.0, 1.0)
def test_without_a_burst_of_input_no_source_loses_a_sample(
    pushes: list[tuple[int, int, int, int, float]], jitter: float, pace: float
) -> None:
    # Not from the beginning, as if it repeated the input.
    at, audio = 1450.0, list[tuple[float, float]]()
    for rest, ahead, paced, chunk, speed in pushes:
        at += rest
        audio.append((at, ahead))
        audio += in_real_time(chunk=chunk, start=at, end=at + paced, pace=speed)
        at += paced
    reads = in_real_time(jitter=jitter, end=at + 4000, pace=pace)
    assert Simulation().run(reads, audio, at + 4000).trimmed == 0


@pytest.mark.parametrize("burst", [300, 1000, 3000])
@pytest.mark.parametrize("jitter", [0, 15])
def test_burst_of_input_costs_other_sources_nothing(burst: int, jitter: float) -> None:
    reads = in_real_time((6000, 6000 + burst), jitter=jitter)
    music = in_real_time()
    sentences = [(at, 2500.0) for at in np.arange(500.0, END, 3000).tolist()]
    ahead = [(6000.0 + burst, 500.0 + burst), *music]
    behind = [(6000.0 + burst, burst - 250.0), *music]
    for pushes in (music, sentences, sorted(ahead), sorted(behind)):
        assert Simulation().run(reads, pushes).trimmed == 0


@pytest.mark.parametrize("stall", [300, 1000])
def test_speech_after_an_echo_and_its_stall_loses_nothing(stall: int) -> None:
    reads = in_real_time((4000, 4000 + stall), end=24_000)
    repeated = [(at, ms) for at, ms in reads if at < 8000]
    for rest in range(0, 2000, 250):
        speech = [(8000.0 + rest, 1200.0), *in_real_time(start=8000.0 + rest, end=12_000)]
        speech += [(14_000.0 + rest, 3000.0), (18_000.0, 2000.0)]
        result = Simulation().run(reads, repeated + speech, 24_000)
        assert result.trimmed == pytest.approx(stall, abs=40)


@pytest.mark.parametrize("live", [False, True])
@pytest.mark.parametrize("gap", [300, 3000, 6000])
@pytest.mark.parametrize("chunk", [20, 60])
def test_silence_read_at_the_end_of_a_gap_delays_no_speech(
    live: bool, gap: int, chunk: int
) -> None:
    lead = InputLead()
    playout = PlayoutBuffer(RATE, 1, 30.0, live=live, input_lead=lead)
    spoken, latency, heard = 0, list[float](), list[np.ndarray]()

    def echo(now: float, sounding: bool) -> None:
        nonlocal spoken
        samples = np.zeros((1, chunk * MS), np.int16)
        if sounding:  # except for the last sample: a sound that ends in 0 needs no fade
            samples[:, :-1] = np.arange(spoken, spoken + chunk * MS - 1) % 9000 + 1
            spoken += chunk * MS - 1
        lead.read(now / 1000, AudioFrame(RATE, samples))
        playout.push(samples)

    due = 0.0
    for now in np.arange(7.0, 10_000.0 + gap, 20.0).tolist():
        while due <= now:
            if due > 4000 and due - gap <= 4000 < due - gap + chunk:
                for _ in range(gap // chunk):
                    echo(due, False)
            if not 4000 < due <= 4000 + gap:
                echo(due, True)
            due += chunk
        heard.append(playout.pull())
        latency.append(playout.buffered_seconds)
    after = latency[round((4100 + gap) / 20) :]
    assert max(after) <= max(latency[100:200]) + 0.04
    audible = np.concatenate(heard, axis=1)
    audible = audible[audible > 0]
    assert np.array_equal(audible, np.arange(audible.size) % 9000 + 1)


@pytest.mark.parametrize("burst", [300, 1000])
def test_pauses_of_other_sources_are_not_shortened(burst: int) -> None:
    simulation = Simulation()
    reads = in_real_time((6000, 6000 + burst))
    simulation.run(reads, [(at, -ms if 5800 < at < 8000 else ms) for at, ms in in_real_time()])
    assert simulation.trimmed == 0
    speech = [(at, -1500.0 if at else 1500.0) for at in np.arange(0.0, END, 3000).tolist()]
    assert Simulation().run(reads, speech).trimmed == 0


def test_source_that_never_ran_at_a_low_depth_loses_nothing() -> None:
    reads = in_real_time((1000, 2000))
    pushes = [(50.0, 1000.0), *in_real_time((1000, 2000))]
    result = Simulation().run(reads, pushes)
    assert result.trimmed == 0


@pytest.mark.parametrize("length", [100, 1000])
def test_pause_loses_nothing(length: int) -> None:
    frames = in_real_time()
    pushes = [(50.0, 100.0), *frames]
    result = Simulation().run(frames, pushes, pause=(5000, 5000 + length))
    assert result.trimmed == 0
    assert result.depths[-1] >= result.depths[200] + length - 40


def test_flush_does_not_hide_the_delay_of_a_later_stall() -> None:
    frames = in_real_time((6000, 6500), (9000, 10_000))
    result = Simulation().run(frames, frames, flush_at=6700)
    assert result.depth(12_000, END) <= result.depth(2000, 6000) + 40


def test_clock_of_a_fast_client_adds_no_delay_to_an_echo() -> None:
    frames = in_real_time(pace=1.002, end=120_000)
    result = Simulation().run(frames, frames, 120_000)
    assert max(result.depths) <= 120
    assert result.trimmed > 0


@pytest.mark.parametrize("seed", range(10))
def test_trims_never_exceed_the_lead_of_the_input(seed: int) -> None:
    rng = random.Random(seed)
    bursts = [(4000.0, 4000.0 + rng.uniform(100, 2000)), (9000.0, 9000.0 + rng.uniform(50, 900))]
    stall = (4000.0, 4000.0 + rng.uniform(100, 4000))
    pushes = [(50.0, 100.0), *in_real_time(stall, chunk=rng.choice([10, 20, 60]))]
    result = Simulation(rng.uniform(0, 20)).run(in_real_time(*bursts), pushes)
    assert result.trimmed <= sum(end - start for start, end in bursts)


@pytest.mark.parametrize("goes_on", [False, True])
@pytest.mark.parametrize("after", [200, 300, 500, 800])
def test_sentence_repeated_as_one_block_loses_nothing_to_the_next_one(
    after: float, goes_on: bool
) -> None:
    reads = in_real_time(end=3000 if goes_on else 1050)
    pushes = [(1060.0, 1000.0), (1060.0 + after, 2000.0)]
    assert Simulation().run(reads, pushes).trimmed == 0
