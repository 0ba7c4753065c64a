"""Mutated requests are answered, or refused with 4xx, and leave nothing behind: the short form."""

from __future__ import annotations

import pytest

from tests.fuzz.connections import TARGETS
from tests.fuzz.short import run_short


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@pytest.mark.parametrize("name", TARGETS)
def test_input_is_answered_or_refused_as_documented(name: str, backend: str) -> None:
    run_short(TARGETS[name], backend, 60)
