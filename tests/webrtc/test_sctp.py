"""Numbers of SCTP chunks: noted at a low cost, with the results of aiortc."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from aiortc import RTCSctpTransport
from hypothesis import given
from hypothesis import strategies as st

from fastrtc_anyio._peers.webrtc.sctp_internals import mark_received

START, END = 1000, (1 << 32) - 1


def association(last: int = START) -> Any:
    return SimpleNamespace(
        _last_received_tsn=last, _sack_misordered=set(), _sack_duplicates=list[int]()
    )


@given(st.lists(st.integers(-3, 20), max_size=40))
def test_numbers_are_noted_as_in_aiortc(steps: list[int]) -> None:
    ours, theirs = association(), association()
    for step in steps:
        theirs_found = RTCSctpTransport._mark_received(theirs, START + step)
        assert mark_received(ours, START + step) == theirs_found
        assert vars(ours) == vars(theirs)


class Numbers(set[int]):
    """Fails if all numbers are visited."""

    def __iter__(self) -> Any:
        raise AssertionError("all numbers are visited")


def test_chunk_in_order_costs_little_while_others_wait() -> None:
    ours = association(END)
    ours._sack_misordered = Numbers(range(5000, 6000))
    for number in range(70):
        assert not mark_received(ours, number)
    assert ours._last_received_tsn == 69
    assert len(ours._sack_misordered) == 1000
