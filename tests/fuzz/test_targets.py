"""The short form of fuzzing, on virtual time: the same examples on every run."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from .targets import TARGETS

# Long enough that few decisions are those of an input that has ended.
mutations = st.binary(min_size=48, max_size=96)


@pytest.mark.parametrize("name", TARGETS)
@settings(max_examples=60)
@given(data=mutations)
@example(data=b"")
async def test_input_is_answered_or_refused_as_documented(name: str, data: bytes) -> None:
    await TARGETS[name](data)
