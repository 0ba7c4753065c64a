"""The short form of a target with connections: the same examples on every run."""

from __future__ import annotations

from anyio import from_thread
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.kit.resources import count_resources, wait_no_more

from .connections import OpenTarget


def run_short(open_target: OpenTarget, backend: str, examples: int) -> None:
    """Feed ``examples`` inputs to a target, and check that nothing is left of them."""
    with (
        from_thread.start_blocking_portal(backend) as portal,
        portal.wrap_async_context_manager(open_target()) as feed,
    ):
        portal.call(feed, b"")  # starts threads, and fills caches
        before = portal.call(count_resources)

        @settings(max_examples=examples)
        @given(st.binary(max_size=96))
        def run(data: bytes) -> None:
            portal.call(feed, data)

        run()
        portal.call(wait_no_more, before)
