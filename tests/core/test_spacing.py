"""Does a burst of work leave pauses, and is other work not delayed?"""

from __future__ import annotations

import anyio
from hypothesis import given
from hypothesis import strategies as st

from fastrtc_anyio._core.spacing import Spacing
from tests.kit.virtual_asyncio import VirtualLoop


async def time_work(batch: int, gaps: list[float]) -> float:
    """Return the seconds that work with these gaps between its pieces waits."""
    spacing, waited = Spacing(batch), 0.0
    for gap in gaps:
        await anyio.sleep(gap)
        began = anyio.current_time()
        await spacing.wait()
        waited += anyio.current_time() - began
    return waited


async def test_burst_pauses_after_each_batch() -> None:
    waited = await time_work(16, [0.0] * 100)
    assert round(waited, 6) == 0.06


async def test_steady_work_is_not_delayed() -> None:
    assert await time_work(16, [0.02] * 200) == 0


@given(st.integers(1, 20), st.lists(st.floats(0, 0.1), max_size=60))
def test_pauses_are_few(batch: int, gaps: list[float]) -> None:
    options = {"loop_factory": VirtualLoop}
    waited = anyio.run(time_work, batch, gaps, backend="asyncio", backend_options=options)
    assert waited <= 0.01 * (len(gaps) // batch) + 1e-9
