"""Decode ordered packets to continuous audio: losses are concealed, gaps are reported.

Timestamps tell how much time lies between two packets, sequence numbers whether packets were lost
in it. Time that was lost is recovered from the redundancy in the next packet, or concealed up to
the decoder's limit. Time in which nothing was sent (RFC 3550 5.1: a muted sender; RFC 7587 3.1.3:
DTX), and the rest of a long loss, is a gap: the caller decides how to fill it.
"""

from __future__ import annotations

from typing import Generic, NamedTuple, TypeVar

from .decode import AudioDecoder, MalformedPacket
from .frames import AudioFrame

P = TypeVar("P")

RTP_MODULUS = 1 << 32
_PIECES_PER_SECOND = 100
"""Pieces of concealed audio at most, unless packets are longer."""
_LONGEST_GAP_S = 3600.0
"""Seconds beyond which a timestamp belongs to a sender that has restarted."""


class Received(NamedTuple):
    """A piece of audio.

    Attributes:
        frame: the audio.
        gap: seconds between the end of the piece before and its start, on the sender's clock; None
            if unknown: at the beginning, after a restart, and without timestamps.
        concealed: whether it replaces lost audio.
        recovered: whether it is lost audio, decoded from redundancy.
    """

    frame: AudioFrame
    gap: float | None
    concealed: bool = False
    recovered: bool = False


class Reception(Generic[P]):
    """Decodes the packets of one sender.

    Args:
        decoder: decodes the payloads. Its ``clock_rate`` is that of the timestamps.
        tolerance: seconds by which timestamps may deviate from the audio's length, in total,
            before they show a gap.
        modulus: where timestamps start again at 0; None if they only grow.

    Attributes:
        lost: packets that were lost or malformed.
    """

    def __init__(
        self, decoder: AudioDecoder[P], *, tolerance: float, modulus: int | None = None
    ) -> None:
        self.lost = 0
        self._decoder = decoder
        self._tolerance = tolerance
        self._modulus = modulus
        self._next: int | None = None  # expected timestamp
        self._size = 0  # samples of the last packet; 0 before the first
        self._missing = 0  # packets lost since then

    def restart(self) -> None:
        """Note that another sender follows, with timestamps of another origin."""
        self._next = None
        self._missing = 0

    def replace_decoder(self, decoder: AudioDecoder[P]) -> None:
        """Decode from now on with another decoder of the same rates."""
        self._decoder = decoder

    def receive(self, payload: P, timestamp: int | None, lost: int) -> list[Received]:
        """Decode the next packet, and make up for the ``lost`` packets before it.

        A malformed packet counts as lost. The packet after it shows how much time it took.
        """
        self.lost += lost
        self._missing += lost
        gap = self._measure(timestamp)
        pieces: list[Received] = []
        if gap and self._missing and self._size:
            pieces, gap = self._make_up(payload, gap)
            self._missing = 0
        if gap != 0 and self._size:
            self._decoder.skip()
        try:
            samples = self._decoder.decode(payload)
        except MalformedPacket:
            self.lost += 1
            self._missing += 1
            return pieces
        frame = AudioFrame(self._decoder.sample_rate, samples)
        # Without timestamps a gap is only known if packets were lost in it.
        pieces.append(Received(frame, gap or None if timestamp is None else gap))
        self._missing = 0
        self._size = samples.shape[1] or self._size
        if timestamp is not None and (gap != 0 or self._next is None):
            self._next = timestamp
        self._advance(samples.shape[1])
        return pieces

    def _measure(self, timestamp: int | None) -> float | None:
        """Return the seconds between the last packet and this one; None if unknown."""
        if timestamp is None:
            return self._missing * self._size / self._decoder.sample_rate
        if self._next is None:
            return None
        ahead = timestamp - self._next
        if self._modulus is not None:
            half = self._modulus // 2
            ahead = (ahead + half) % self._modulus - half
        seconds = ahead / self._decoder.clock_rate
        if abs(seconds) < self._tolerance:
            return max(0.0, seconds) if self._missing else 0.0
        return seconds if 0 < seconds <= _LONGEST_GAP_S else None

    def _make_up(self, payload: P, seconds: float) -> tuple[list[Received], float]:
        """Return audio in place of lost audio, and the seconds between its end and the packet."""
        decoder = self._decoder
        rate = decoder.sample_rate
        lost = round(seconds * rate)
        redundant = decoder.redundancy(payload)
        if redundant > lost:
            redundant = 0
        concealed = min(lost - redundant, round(decoder.concealable * rate))
        rest = lost - redundant - concealed
        pieces: list[Received] = []
        # Packets may be as short as a sample: then a piece for each would take many milliseconds.
        size = max(self._size, rate // _PIECES_PER_SECOND)
        for start in range(0, concealed, size):
            samples = decoder.conceal(min(size, concealed - start))
            pieces.append(Received(AudioFrame(rate, samples), 0.0, concealed=True))
        self._advance(concealed)
        if not redundant:
            return pieces, rest / rate
        if rest:
            decoder.skip()
        samples = decoder.recover(payload, redundant)
        pieces.append(Received(AudioFrame(rate, samples), rest / rate, recovered=True))
        self._advance(rest + redundant)
        return pieces, 0.0

    def _advance(self, samples: int) -> None:
        if self._next is not None:
            self._next += round(samples * self._decoder.clock_rate / self._decoder.sample_rate)
