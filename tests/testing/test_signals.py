"""Signal-to-noise ratio of tones and of other signals."""

from __future__ import annotations

import numpy as np

from fastrtc_anyio.testing import speech_like, tone, tone_snr


def test_tone_snr_ignores_phase_and_offset() -> None:
    samples = tone(440, 16_000, 0.5)[0, 1234:5678]
    assert tone_snr(samples, 440, 16_000) > 60
    assert tone_snr(samples + 500, 440, 16_000) > 60


def test_tone_snr_of_another_tone_and_of_noise_is_low() -> None:
    assert tone_snr(tone(450, 16_000, 0.5)[0], 440, 16_000) < 3
    assert tone_snr(speech_like(16_000, 0.5)[0], 440, 16_000) < 3


def test_tone_snr_of_silence_and_constant_is_0() -> None:
    assert tone_snr(np.zeros(960, np.int16), 440, 16_000) <= 0
    assert tone_snr(np.full(960, 1000, np.int16), 440, 16_000) <= 0
