"""Compare the echo of a call with the speech that was sent. Pure functions.

The *latency* of an echo packet is the time from the capture of a sample to the moment at which the
client's decoder returns the same sample. A sample is captured 20 ms before the packet that begins
with it is sent. The decoder returns a packet's first sample when the packet arrives: there is no
jitter buffer in the client. The latency therefore includes one packet (20 ms), the look-ahead of
the client's encoder (6.5 ms), and all that the server adds.

The content of the echo is found by cross-correlation of windows of half a second, and the latency
is computed for each packet from its own time of arrival.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmarks.load.speech import ANALYSIS_RATE, RATE, Samples, Speech, decimate, decode

FRAME = 0.02
Latencies = NDArray[np.float64]
"""In seconds."""
LATE = 0.1
"""Seconds behind the call's median latency from which a packet is late."""
_SIZE = ANALYSIS_RATE // 50
_WINDOW = 25 * _SIZE
_MAX_LATENCY = 2.0
_EARLY = 0.05
"""Seconds by which the search begins before the earliest possible echo, for jitter."""
_SIMILAR = 0.4
"""Correlation from which a window is an echo. Windows of different speech correlate by 0.1."""
_SILENT = 0.01
"""Level of silence, relative to the speech."""


@dataclass(frozen=True)
class Packet:
    """A received packet."""

    arrived: float
    """Seconds."""
    timestamp: int
    """RTP timestamp in samples at 48 kHz, without wrapping."""
    payload: bytes
    sequence: int = 0
    """RTP sequence number, without wrapping."""


@dataclass
class Echo:
    """Frames of a call that came back.

    Attributes:
        frames: number of the sent frame in which each received packet begins.
        latencies: in seconds.
    """

    frames: NDArray[np.int64]
    latencies: Latencies


@dataclass
class Counts:
    """Result of one call, for the frames that were sent in an interval."""

    expected: int
    missed: int
    """Frames whose echo did not arrive or is silent."""
    late: int
    """Frames whose echo arrived more than :data:`LATE` after the call's median latency."""
    latencies: Latencies


def find_echo(speech: Speech, sent: Sequence[float], received: Sequence[Packet]) -> Echo:
    """Find the sent frame and the latency of each received packet.

    Args:
        speech: the speech, which repeats.
        sent: time at which each frame was sent.
        received: packets of the echo, in any order.
    """
    packets = sorted(received, key=lambda packet: packet.timestamp)
    none = Echo(np.zeros(0, np.int64), np.zeros(0))
    if not packets or not sent:
        return none
    places = np.array([packet.timestamp for packet in packets])
    places = (places - places[0]) * ANALYSIS_RATE // RATE
    samples = _lay_out(packets, places)
    arrivals = np.array([packet.arrived for packet in packets])
    captured = np.array(sent) - FRAME
    origin = float(np.median(captured - np.arange(len(sent)) * FRAME))
    floor = _SILENT * _level(speech.samples)
    results: list[tuple[NDArray[np.int64], Latencies]] = []
    for start in range(0, samples.size, _WINDOW):
        window = samples[start : start + _WINDOW]
        first, last = np.searchsorted(places, (start, start + window.size))
        if first == last or _level(window) < floor:
            continue
        begins = float(np.median(arrivals[first:last] - places[first:last] / ANALYSIS_RATE))
        earliest = begins + start / ANALYSIS_RATE - origin - _MAX_LATENCY
        content = _find(window, speech.samples, round(earliest * ANALYSIS_RATE))
        if content is None:
            continue
        heard = [
            i for i in range(first, last) if _level(samples[places[i] : places[i] + _SIZE]) > floor
        ]
        indices = places[heard] - start + content
        frames = indices // _SIZE
        known = (frames >= 0) & (frames < captured.size)
        frames = frames[known]
        latencies = arrivals[heard][known] - captured[frames]
        results.append((frames, latencies - indices[known] % _SIZE / ANALYSIS_RATE))
    if not results:
        return none
    return Echo(*(np.concatenate(column) for column in zip(*results, strict=True)))


def count(echo: Echo, sent: Sequence[float], begin: float, end: float) -> Counts:
    """Count the frames that were sent from ``begin`` to ``end``."""
    times = np.array(sent)
    inside = (times[echo.frames] >= begin) & (times[echo.frames] < end)
    latencies = echo.latencies[inside]
    expected = int(((times >= begin) & (times < end)).sum())
    late = int((latencies > np.median(latencies) + LATE).sum()) if latencies.size else 0
    return Counts(expected, max(0, expected - latencies.size), late, latencies)


def _lay_out(packets: Sequence[Packet], places: NDArray[np.int64]) -> Samples:
    """Decode the packets to one timeline; what is missing is silence."""
    scale = RATE // ANALYSIS_RATE
    wave = np.zeros((int(places[-1]) + _SIZE) * scale, np.float32)
    decoded = decode([packet.payload for packet in packets])
    for place, part in zip(places.tolist(), decoded, strict=True):
        room = wave[place * scale :][: part.size]
        room[:] = part[: room.size]
    return decimate(wave)


def _find(window: Samples, speech: Samples, earliest: int) -> int | None:
    """Return the position of a window in the speech, from ``earliest`` on; None without echo."""
    span = round((_MAX_LATENCY + _EARLY) * ANALYSIS_RATE)
    reference = speech.take(np.arange(earliest, earliest + span + window.size), mode="wrap")
    points = 1 << (reference.size - 1).bit_length()
    spectrum = np.fft.rfft(reference, points) * np.conj(np.fft.rfft(window, points))
    products = np.fft.irfft(spectrum, points)[:span]
    sums = np.concatenate([[0.0], np.cumsum(np.square(reference, dtype=np.float64))])
    energies = sums[window.size :][:span] - sums[:span]
    similar = products / np.sqrt(np.maximum(energies, 1e-9) * np.square(window).sum())
    best = int(similar.argmax())
    return earliest + best if similar[best] > _SIMILAR else None


def _level(samples: Samples) -> float:
    return float(np.sqrt(np.mean(np.square(samples)))) if samples.size else 0.0
