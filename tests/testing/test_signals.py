"""What a tone is, and what is none."""

from __future__ import annotations

import numpy as np

from fastrtc_anyio.testing import speech_like, tone, tone_snr


def test_a_tone_is_clean_whatever_its_phase_and_offset() -> None:
    samples = tone(440, 16_000, 0.5)[0, 1234:5678]
    assert tone_snr(samples, 440, 16_000) > 60
    assert tone_snr(samples + 500, 440, 16_000) > 60


def test_another_tone_and_noise_are_not() -> None:
    assert tone_snr(tone(450, 16_000, 0.5)[0], 440, 16_000) < 3
    assert tone_snr(speech_like(16_000, 0.5)[0], 440, 16_000) < 3


def test_silence_and_an_offset_are_no_tone() -> None:
    assert tone_snr(np.zeros(960, np.int16), 440, 16_000) <= 0
    assert tone_snr(np.full(960, 1000, np.int16), 440, 16_000) <= 0
