"""Speech through a codec and a line that loses packets, and how far it is from what was sent."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

import fastrtc_anyio
from fastrtc_anyio._cli.wav import read_wav
from fastrtc_anyio._media.convert import AudioConverter
from fastrtc_anyio._media.decode import create_decoder
from fastrtc_anyio._media.encode import OpusOptions, create_encoder
from fastrtc_anyio._media.frames import FRAMES_PER_SECOND, AudioFrame, Int16Array
from fastrtc_anyio._media.reception import RTP_MODULUS, Received, Reception
from fastrtc_anyio.testing.link import EmulatedLink, LinkFaults

Codec = Literal["opus", "opus+fec", "PCMU", "PCMA", "G722"]
CODECS: tuple[Codec, ...] = ("opus", "opus+fec", "PCMU", "PCMA", "G722")

_OPUS = {
    "opus": OpusOptions(bitrate=24_000, application="voip"),
    "opus+fec": OpusOptions(
        bitrate=24_000, application="voip", inband_fec=True, packet_loss_percent=20
    ),
}
_QUIET = 100.0
"""Maximum RMS of a frame in a pause, int16. Losses there are not heard."""
_FLOOR = 1.0
"""Power that is added to each line of a spectrum: that of the rounding noise of int16."""
_BAND = 8_000


def read_speech() -> Int16Array:
    """Return 4 s of speech at 16 kHz: int16, shape ``(1, n)``."""
    return read_wav(Path(fastrtc_anyio.__file__).parent / "_cli" / "speech.wav", 16_000)


@dataclass
class Heard:
    """Result of a transmission.

    Attributes:
        samples: the received audio, int16, shape ``(n,)``.
        lost: whether each frame of 20 ms was lost.
        recovered: fraction of the lost time that came from redundancy.
        concealed: fraction that was concealed.
    """

    samples: Int16Array
    lost: NDArray[np.bool_]
    recovered: float
    concealed: float


class Packets:
    """The packets of some speech, one for each 20 ms."""

    def __init__(self, codec: Codec, speech: Int16Array, sample_rate: int = 16_000) -> None:
        self.name = codec.partition("+")[0]
        encoder = create_encoder(self.name, sample_rate, 1, _OPUS.get(codec))
        size = encoder.sample_rate // FRAMES_PER_SECOND
        speech = AudioConverter(encoder.sample_rate, 1)(AudioFrame(sample_rate, speech))
        frames = [speech[:, i : i + size] for i in range(0, speech.shape[1] - size + 1, size)]
        self.payloads = [encoder.encode(frame) for frame in frames]
        self.increment = encoder.rtp_increment
        encoder.close()

    def transmit(self, faults: LinkFaults, *, conceal: bool = True) -> Heard:
        """Decode the packets that arrive. The first one does.

        Args:
            faults: the line.
            conceal: whether to conceal losses. Otherwise they are silence.
        """
        decoder = create_decoder(self.name, channels=1)
        link = EmulatedLink(faults)
        arrives = [
            link.transmit(i / FRAMES_PER_SECOND) is not None or i == 0
            for i in range(len(self.payloads))
        ]
        reception = Reception(decoder, tolerance=0.005, modulus=RTP_MODULUS)
        size = decoder.sample_rate // FRAMES_PER_SECOND
        pieces: list[Received] = []
        lost = 0
        for i, payload in enumerate(self.payloads):
            if arrives[i]:
                pieces += reception.receive(payload, i * self.increment, lost if conceal else 0)
                lost = 0
            else:
                lost += 1
        parts: list[Int16Array] = []
        for piece in pieces:
            parts.append(np.zeros(round((piece.gap or 0) * decoder.sample_rate), np.int16))
            parts.append(piece.frame.samples[0])
        length = size * len(self.payloads)
        samples = np.zeros(length, np.int16)
        heard = np.concatenate(parts)[:length]
        samples[: heard.size] = heard
        time = max(1, arrives.count(False)) / FRAMES_PER_SECOND
        return Heard(
            samples,
            ~np.array(arrives),
            sum(piece.frame.duration for piece in pieces if piece.recovered) / time,
            sum(piece.frame.duration for piece in pieces if piece.concealed) / time,
        )


def spectral_distance(heard: Int16Array, said: Int16Array, sample_rate: int) -> NDArray[np.float64]:
    """Return the log-spectral distance of each 20 ms frame in dB, NaN in pauses.

    The distance is the RMS difference of the levels of all lines up to 8 kHz.
    """
    size = sample_rate // FRAMES_PER_SECOND
    window = np.hanning(size)
    count = said.size // size

    def levels(samples: Int16Array) -> NDArray[np.float64]:
        frames = samples[: count * size].reshape(count, size) * window
        power = np.square(np.abs(np.fft.rfft(frames, axis=1))) / size
        return 10 * np.log10(power[:, : _BAND // FRAMES_PER_SECOND] + _FLOOR)

    distance = np.sqrt(np.square(levels(heard) - levels(said)).mean(axis=1))
    loud = np.sqrt(np.square(said[: count * size].reshape(count, size).astype(float)).mean(axis=1))
    return np.where(loud > _QUIET, distance, np.nan)
