from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from fastrtc_anyio._media.reorder import MAX_CONCEALED, REORDER_LIMIT, JitterBuffer

starts = st.integers(0, 0xFFFF)


@given(starts, st.integers(1, 300))
def test_packets_in_order_pass_at_once(start: int, count: int) -> None:
    buffer: JitterBuffer[int] = JitterBuffer()
    for i in range(count):
        assert buffer.push((start + i) & 0xFFFF, i) == [i]
    assert buffer.lost == buffer.late == 0


@given(starts, st.data())
def test_small_disorder_is_undone_without_loss(start: int, data: st.DataObject) -> None:
    """Any order in which no packet is overtaken by more than the limit comes out right."""
    count = 60
    waiting, order = list(range(count)), []
    order.append(waiting.pop(0))
    while waiting:
        # The packet at the front may be overtaken by at most REORDER_LIMIT - 1 later ones.
        overtaking = [p for p in order if p > waiting[0]]
        room = REORDER_LIMIT - 1 - len(overtaking)
        order.append(waiting.pop(data.draw(st.integers(0, min(room, len(waiting) - 1)))))
    buffer: JitterBuffer[int] = JitterBuffer()
    out = [p for i in order for p in buffer.push((start + i) & 0xFFFF, i)]
    assert out == list(range(count))


@given(starts, st.lists(st.booleans(), min_size=1, max_size=200), st.integers(0, 2**32))
def test_every_packet_is_passed_dropped_or_held(start: int, kept: list[bool], seed: int) -> None:
    buffer: JitterBuffer[int] = JitterBuffer()
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
def test_after_a_loss_there_is_no_delay(start: int, gap: int) -> None:
    buffer: JitterBuffer[int] = JitterBuffer()
    buffer.push(start, 0)
    after = [buffer.push((start + 1 + gap + i) & 0xFFFF, i) for i in range(10)]
    assert after[:REORDER_LIMIT] == [[]] * REORDER_LIMIT
    held = list(range(REORDER_LIMIT + 1))
    assert after[REORDER_LIMIT] == [None] * min(gap, MAX_CONCEALED) + held
    assert after[REORDER_LIMIT + 1 :] == [[i] for i in range(REORDER_LIMIT + 1, 10)]
    assert buffer.lost == gap


def test_a_late_or_repeated_packet_is_dropped_and_counted() -> None:
    buffer: JitterBuffer[str] = JitterBuffer()
    assert buffer.push(10, "a") == ["a"]
    assert buffer.push(10, "a") == []
    assert buffer.push(9, "b") == []
    assert buffer.late == 2
    assert buffer.push(11, "c") == ["c"]


def test_a_new_stream_starts_afresh() -> None:
    buffer: JitterBuffer[str] = JitterBuffer()
    buffer.push(10, "a")
    assert buffer.push(30_000, "b") == ["b"]
    assert buffer.push(30_001, "c") == ["c"]
    assert buffer.lost == 0
