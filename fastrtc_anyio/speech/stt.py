"""Speech to text: the protocols of a recogniser, and the audio format that recognisers take.

A recogniser blocks for a tenth of the audio's duration or more, so a coroutine runs it on a
thread::

    text = await run_sync(model.stt, audio)

:func:`.loaders.get_stt_model` loads a recogniser by name.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeAlias, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from fastrtc_anyio._media.frames import Int16Array, mix_channels
from fastrtc_anyio._media.read import read_audio
from fastrtc_anyio._media.resample import StreamResampler

__all__ = ["Audio", "PhraseSpotter", "STTModel", "STT_RATE", "resample_for_stt"]

Audio: TypeAlias = tuple[int, NDArray[np.int16] | NDArray[np.float32]]

STT_RATE = 16_000
"""Sample rate in Hz that recognisers are trained on."""


class STTModel(Protocol):
    """Speech recogniser."""

    def stt(self, audio: Audio) -> str:
        """Transcribe an utterance.

        Args:
            audio: ``(sample_rate, samples)``: any rate in Hz, int16 or float32 (full scale 1.0) of
                shape ``(n,)`` or ``(channels, n)``.

        Returns:
            The text; empty if nothing was understood.

        Raises:
            UnsupportedFormat: for anything else.
        """
        ...


@runtime_checkable
class PhraseSpotter(Protocol):
    """Recogniser that finds phrases within any other speech."""

    def spot(self, audio: Audio, phrases: Sequence[str]) -> float | None:
        """Find the phrase that ends first.

        Args:
            audio: as for :meth:`STTModel.stt`.
            phrases: the phrases to find.

        Returns:
            Seconds from the beginning of the audio to the end of the phrase, or None.

        Raises:
            UnsupportedFormat: for other audio.
            ValueError: the model cannot find one of the phrases.
        """
        ...


def resample_for_stt(audio: Audio) -> Int16Array:
    """Convert audio to the format that recognisers take.

    Args:
        audio: as for :meth:`STTModel.stt`; stereo is mixed.

    Returns:
        int16, shape ``(1, n)``, at 16 kHz.

    Raises:
        UnsupportedFormat: for anything else.
    """
    frame = read_audio(audio)
    resampler = StreamResampler(frame.sample_rate, STT_RATE, 1)
    mono = mix_channels(frame.samples, 1)
    return np.concatenate([resampler.push(mono), resampler.flush()], axis=1)
