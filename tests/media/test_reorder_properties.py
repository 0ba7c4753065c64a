"""Reordering of incoming packets: in order, lost, late, repeated and distant ones."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from fastrtc_anyio._media.reorder import MAX_CONCEALED, ReorderBuffer

REORDER_LIMIT = 3
CHUNK_LIMIT = 5

starts = st.integers(0, 0xFFFF)


def received(packets: list[int | None]) -> list[int]:
    return [packet for packet in packets if packet is not None]


@given(starts, st.integers(1, 300))
def test_packets_in_order_pass_at_once(start: int, count: int) -> None:
    buffer: ReorderBuffer[int] = ReorderBuffer.rtp()
    for i in range(count):
        assert buffer.push((start + i) & 0xFFFF, i) == [i]
    assert buffer.lost == buffer.late == 0


@given(starts, st.data())
def test_small_disorder_is_reordered_without_loss(start: int, data: st.DataObject) -> None:
    """Packets overtaken by fewer than the limit come out in order."""
    count = 60
    waiting, order = list(range(count)), []
    order.append(waiting.pop(0))
    while waiting:
        # The packet at the front may be overtaken by at most REORDER_LIMIT - 1 later ones.
        overtaking = [p for p in order if p > waiting[0]]
        room = REORDER_LIMIT - 1 - len(overtaking)
        order.append(waiting.pop(data.draw(st.integers(0, min(room, len(waiting) - 1)))))
    buffer: ReorderBuffer[int] = ReorderBuffer.rtp()
    out = [p for i in order for p in buffer.push((start + i) & 0xFFFF, i)]
    assert out == list(range(count))


@given(starts, st.lists(st.booleans(), min_size=1, max_size=200), st.integers(0, 2**32))
def test_every_packet_is_passed_dropped_or_held(start: int, kept: list[bool], seed: int) -> None:
    buffer: ReorderBuffer[int] = ReorderBuffer.rtp()
    out: list[int | None] = []
    pushed = 0
    for i, keep in enumerate([True, *kept]):
        if keep:
            pushed += 1
            out += buffer.push((start + i) & 0xFFFF, i)
    passed = [p for p in out if p is not None]
    assert passed == sorted(passed)
    assert len(passed) + len(buffer._held) + buffer.late == pushed
    assert len(buffer._held) <= REORDER_LIMIT


@given(starts, st.integers(1, 200))
def test_loss_leaves_no_delay(start: int, gap: int) -> None:
    buffer: ReorderBuffer[int] = ReorderBuffer.rtp()
    buffer.push(start, 0)
    after = [buffer.push((start + 1 + gap + i) & 0xFFFF, i) for i in range(10)]
    assert after[:REORDER_LIMIT] == [[]] * REORDER_LIMIT
    held = list(range(REORDER_LIMIT + 1))
    assert after[REORDER_LIMIT] == [None] * min(gap, MAX_CONCEALED) + held
    assert after[REORDER_LIMIT + 1 :] == [[i] for i in range(REORDER_LIMIT + 1, 10)]
    assert buffer.lost == gap


def test_late_or_repeated_packet_is_dropped_and_counted() -> None:
    buffer: ReorderBuffer[str] = ReorderBuffer.rtp()
    assert buffer.push(10, "a") == ["a"]
    assert buffer.push(10, "a") == []
    assert buffer.push(9, "b") == []
    assert buffer.late == 2
    assert buffer.push(11, "c") == ["c"]


def test_distant_number_starts_a_new_stream() -> None:
    buffer: ReorderBuffer[str] = ReorderBuffer.rtp()
    buffer.push(10, "a")
    assert buffer.push(30_000, "b") == ["b"]
    assert buffer.push(30_001, "c") == ["c"]
    assert buffer.lost == 0


@given(st.permutations(range(CHUNK_LIMIT)), st.integers(0, 300))
def test_chunks_out_of_order_within_the_limit_are_reordered(
    shuffled: list[int], before: int
) -> None:
    order: ReorderBuffer[int] = ReorderBuffer.chunks()
    for chunk in range(1, before + 1):
        assert order.push(chunk, chunk) == [chunk]  # in order, so none is held
    chunks = [before + 1 + chunk for chunk in shuffled]
    heard = [item for chunk in chunks for item in order.push(chunk, chunk)]
    assert heard == sorted(chunks)
    assert order.lost == 0


@given(st.lists(st.integers(1, 50), max_size=100))
def test_every_chunk_is_passed_once_in_order_or_lost(chunks: list[int]) -> None:
    order: ReorderBuffer[int] = ReorderBuffer.chunks()
    heard: list[int] = []
    for chunk in chunks:
        heard += received(order.push(chunk, chunk))
        assert len(order._held) <= CHUNK_LIMIT
    heard += received(order.flush())
    assert heard == sorted(set(heard))
    assert set(heard) <= set(chunks)
    # All numbers up to the last one passed, except those passed.
    assert order.lost == max(heard, default=0) - len(heard)


def test_late_chunk_of_a_closed_gap_is_dropped() -> None:
    order: ReorderBuffer[int] = ReorderBuffer.chunks()
    early = range(2, 2 + CHUNK_LIMIT)
    assert [item for chunk in early for item in order.push(chunk, chunk)] == []
    assert order.push(7, 7) == [None, 2, 3, 4, 5, 6, 7]
    assert order.lost == 1
    assert order.push(1, 1) == []
    assert order.push(8, 8) == [8]


def test_chunk_numbers_that_go_back_start_a_new_stream() -> None:
    order: ReorderBuffer[int] = ReorderBuffer.chunks()
    for chunk in range(1, 101):
        order.push(chunk, chunk)
    assert order.push(102, 102) == []
    assert order.push(1, 1) == [None, 102, 1]
    assert order.push(2, 2) == [2]
    assert order.lost == 1
