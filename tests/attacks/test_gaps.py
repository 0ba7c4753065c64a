"""No input of one client leaves a gap of more than 60 ms in the call of another."""

from __future__ import annotations

from collections.abc import Generator
from functools import partial

import pytest

from tests.kit.gaps import LIMIT, Target, open_target

from .costly_inputs import ATTACKS


@pytest.fixture(scope="module", params=["asyncio", "trio"])
def target(request: pytest.FixtureRequest) -> Generator[Target, None, None]:
    """A server on each backend, with a live call."""
    with open_target(request.param) as opened:
        yield opened


@pytest.mark.alone
@pytest.mark.parametrize("name", ATTACKS)
def test_costly_input_leaves_no_gap_in_another_call(name: str, target: Target) -> None:
    assert target.find_gap(partial(ATTACKS[name], target.url)) <= LIMIT
