"""Audio helpers: no sample is lost, for any division of the input."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from fastrtc_anyio.audio import aggregate_bytes_to_16bit, audio_to_float32, audio_to_int16


@given(st.lists(st.binary(max_size=9)))
def test_any_division_of_bytes_gives_the_same_samples(pieces: list[bytes]) -> None:
    arrays = list(aggregate_bytes_to_16bit(pieces))
    data = b"".join(pieces)
    assert all(array.shape == (1, array.size) and array.size for array in arrays)
    assert b"".join(array.astype("<i2").tobytes() for array in arrays) == data[: len(data) & ~1]


def test_int16_to_float32_and_back_is_exact() -> None:
    """All values but the lowest, which becomes FastRTC's value for -1.0."""
    every = np.arange(-32768, 32768).astype(np.int16)
    back = audio_to_int16(audio_to_float32(every))
    assert back[0] == -32767
    assert np.array_equal(back[1:], every[1:])
