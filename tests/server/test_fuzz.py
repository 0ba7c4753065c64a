"""Mutated requests are answered, or refused with 4xx, and leave nothing behind: the short form."""

from __future__ import annotations

import pytest
from anyio import from_thread
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fuzz.connections import TARGETS
from tests.kit.resources import count_resources, wait_no_more


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@pytest.mark.parametrize("name", TARGETS)
def test_input_is_answered_or_refused_as_documented(name: str, backend: str) -> None:
    with (
        from_thread.start_blocking_portal(backend) as portal,
        portal.wrap_async_context_manager(TARGETS[name]()) as feed,
    ):
        portal.call(feed, b"")  # starts threads, and fills caches
        before = portal.call(count_resources)

        @settings(max_examples=60)
        @given(st.binary(max_size=96))
        def run(data: bytes) -> None:
            portal.call(feed, data)

        run()
        portal.call(wait_no_more, before)
