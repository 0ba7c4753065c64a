"""Simulation of an echo call in virtual time: network, reordering, handler, playout and pulls.

A client sends a packet every 20 ms. The network delays each one on its own and loses some. The
server puts the packets in order, conceals the lost ones, and reads them; its handler sends back
what it reads. Samples carry their number, so a frame that a pull returns tells its own latency.
Times are in milliseconds.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import median

import numpy as np

from fastrtc_anyio._media.frames import AudioFrame, Int16Array
from fastrtc_anyio._media.input_lead import InputLead
from fastrtc_anyio._media.playout import PlayoutBuffer
from fastrtc_anyio._media.reorder import Ordered, ReorderBuffer
from fastrtc_anyio._peers.webrtc.phase import PhaseChoice
from fastrtc_anyio._peers.webrtc.ticks import PERIOD

RATE = 8000
MS = RATE // 1000
PACKET = 20.0
SAMPLES = round(PACKET * MS)
_NUMBERS = 200  # numbers that samples can tell apart: 4 s
Span = tuple[float, float]


@dataclass(frozen=True)
class Line:
    """Properties of a call.

    Attributes:
        jitter: largest delay of a packet, uniformly distributed.
        loss: share of the packets lost.
        grid: period at which the server reads its sockets; 0 for at once.
        work: smallest and largest time from a read to the push of its echo.
        phase: time of the first pull.
        live: as for :class:`.PlayoutBuffer`; None for a handler.
        until: end of the jitter and the loss.
        outages: times in which the network holds packets up, and delivers them afterwards.
        lost: times of packets that are lost.
        stalls: times in which the handler sends nothing. It catches up afterwards.
        blocked: times in which the handler reads nothing.
    """

    jitter: float = 0.0
    loss: float = 0.0
    grid: float = 10.0
    work: Span = (0.3, 1.5)
    phase: float = 3.0
    live: bool | None = None
    until: float = float("inf")
    outages: Sequence[Span] = ()
    lost: Sequence[float] = ()
    stalls: Sequence[Span] = ()
    blocked: Sequence[Span] = ()


@dataclass
class Heard:
    """Result of a simulation: time and latency of each frame heard; None where it was silent."""

    playout: PlayoutBuffer
    frames: list[tuple[float, float | None]] = field(default_factory=list)
    samples: list[Int16Array] = field(default_factory=list)

    def latency(self, start: float, end: float) -> float:
        """Return the median latency in a period."""
        return median(ms for at, ms in self.frames if ms is not None and start <= at < end)

    def gaps(self, start: float, end: float) -> int:
        """Return the number of frames in a period that were not heard in full."""
        return sum(ms is None for at, ms in self.frames if start <= at < end)


def call(line: Line, end: float, seed: int = 0) -> Heard:
    """Simulate a call of ``end`` milliseconds."""
    return _Call(line, end, seed).run()


class _Call:
    def __init__(self, line: Line, end: float, seed: int) -> None:
        self.line = line
        self.end = end
        self.random = random.Random(seed)
        self.offset = self.random.uniform(0, PACKET)
        self.lead = InputLead()
        self.playout = PlayoutBuffer(RATE, 1, 30.0, live=bool(line.live), input_lead=self.lead)
        self.order: ReorderBuffer[int] = ReorderBuffer.rtp()
        self.heard = Heard(self.playout)
        self.events: list[tuple[float, float, int, Callable[[float], None]]] = []
        self.choice = PhaseChoice()
        self.pushed_at = self.echoed_at = self.needed_at = 0.0
        self.count = 0

    def run(self) -> Heard:
        for number in range(round(self.end / PACKET)):
            self._send(number, self.offset + number * PACKET)
        self._at(self.line.phase, self._pull)
        while self.events:
            now, _, _, step = heapq.heappop(self.events)
            if now > self.end:
                break
            step(now)
        return self.heard

    def _at(self, now: float, step: Callable[[float], None], order: float = 0.0) -> None:
        self.count += 1
        heapq.heappush(self.events, (now, order, self.count, step))

    def _send(self, number: int, now: float) -> None:
        line = self.line
        late, kept = self.random.random(), self.random.random()
        arrival = now
        if now < line.until:
            if kept < line.loss:
                return
            arrival += late * line.jitter
        if any(at <= now < at + PACKET for at in line.lost):
            return
        for begin, over in line.outages:
            if begin <= now < over:
                arrival = max(arrival, over)
        # Read at the next point of the grid, in the order of arrival.
        read = -(-arrival // line.grid) * line.grid if line.grid else arrival
        self._at(read, lambda now: self._arrive(number, now), arrival)

    def _arrive(self, number: int, now: float) -> None:
        self._deliver(self.order.push(number & 0xFFFF, number, now / 1000), now)
        self._set_timer(now)

    def _set_timer(self, now: float) -> None:
        due = self.order.due
        if due is not None:
            self._at(max(now, due * 1000), self._poll)

    def _poll(self, now: float) -> None:
        self._deliver(self.order.poll(now / 1000 + 1e-9), now)

    def _deliver(self, packets: list[Ordered[int]], now: float) -> None:
        for packet, lost in packets:
            for number in range(packet - lost, packet + 1):
                read = now
                for begin, over in self.line.blocked:
                    if begin <= read < over:
                        read = over
                self._at(read, lambda now, number=number: self._read(number, now))  # type: ignore[misc]

    def _read(self, number: int, now: float) -> None:
        first = number % _NUMBERS * SAMPLES + 1
        samples: Int16Array = np.arange(first, first + SAMPLES, dtype=np.int16).reshape(1, -1)
        self.lead.read(now / 1000, AudioFrame(RATE, samples))
        push = now + self.random.uniform(*self.line.work)
        for begin, over in self.line.stalls:
            if begin <= push < over:
                push = over
        self.pushed_at = max(self.pushed_at, push)
        self._at(self.pushed_at, lambda now: self._push(samples, now))

    def _push(self, samples: Int16Array, now: float) -> None:
        self.echoed_at = now / 1000
        if self.playout.buffered_samples < SAMPLES:
            self.needed_at = self.echoed_at
        self.playout.push(samples)

    def _pull(self, now: float) -> None:
        frame = self.playout.pull()
        heard: float | None = None
        if self.playout.pulled == frame.shape[1]:
            middle = frame.shape[1] // 2  # behind any fade
            number, position = divmod(int(frame[0, middle]) - 1, SAMPLES)
            newest = int((now - self.offset) // PACKET)
            number = newest - (newest - number) % _NUMBERS
            heard = now - self.offset - number * PACKET + (middle - position) / MS
        self.heard.frames.append((now, heard))
        moves = self.choice.changes(now / 1000, self.echoed_at, self.needed_at)
        self._at(now + (PERIOD * 1000 if moves else PACKET), self._pull)
