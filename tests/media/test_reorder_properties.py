"""Reordering of incoming packets: in order, lost, late, repeated, overdue and distant ones."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from fastrtc_anyio._media.reorder import HOLD_SECONDS, LEAST_HOLD_SECONDS, Ordered, ReorderBuffer

REORDER_LIMIT = 3
CHUNK_LIMIT = 5

starts = st.integers(0, 0xFFFF)


def in_order(*packets: int, lost: int = 0) -> list[Ordered[int]]:
    """Return packets in a row behind ``lost`` missing ones."""
    return [Ordered(packet, 0 if i else lost) for i, packet in enumerate(packets)]


def push_all(buffer: ReorderBuffer[int], numbers: list[int], now: float = 0.0) -> list[int]:
    """Push numbers as their own packets, at one time; return the packets that passed."""
    return [item.packet for number in numbers for item in buffer.push(number, number, now)]


@given(starts, st.integers(1, 300))
def test_packets_in_order_pass_at_once(start: int, count: int) -> None:
    buffer: ReorderBuffer[int] = ReorderBuffer.rtp()
    for i in range(count):
        assert buffer.push((start + i) & 0xFFFF, i, i * 0.02) == in_order(i)
        assert buffer.due is None
    assert buffer.lost == buffer.late == 0


@given(starts, st.lists(st.integers(-4, 4), min_size=1, max_size=60))
def test_packet_that_passes_is_what_a_push_would_return(start: int, steps: list[int]) -> None:
    """Asking first, as for each packet of a call, changes nothing."""
    pushed: ReorderBuffer[int] = ReorderBuffer.rtp()
    asked: ReorderBuffer[int] = ReorderBuffer.rtp()
    for i, step in enumerate(steps):
        number, now = (start + i + step) & 0xFFFF, i * 0.02
        expected = pushed.push(number, i, now)
        if asked.passes(number):
            assert expected == in_order(i)
        else:
            assert asked.push(number, i, now) == expected
        assert asked.due == pushed.due
    assert (asked.lost, asked.late) == (pushed.lost, pushed.late)


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
    buffer: ReorderBuffer[int] = ReorderBuffer(REORDER_LIMIT, 1000, modulus=1 << 16)
    out = [
        item
        for n, i in enumerate(order)
        for item in buffer.push((start + i) & 0xFFFF, i, n * HOLD_SECONDS / REORDER_LIMIT)
    ]
    assert out == in_order(*range(count))


@given(
    starts,
    st.lists(st.tuples(st.booleans(), st.floats(0, 0.1)), min_size=1, max_size=200),
)
def test_every_packet_is_passed_dropped_or_held(
    start: int, packets: list[tuple[bool, float]]
) -> None:
    """No packet is held beyond the limit, in number or in time."""
    buffer: ReorderBuffer[int] = ReorderBuffer.rtp()
    out: list[Ordered[int]] = []
    pushed, now = 0, 0.0
    for i, (keep, step) in enumerate([(True, 0.0), *packets]):
        now += step
        if keep:
            pushed += 1
            out += buffer.push((start + i) & 0xFFFF, i, now)
        else:
            out += buffer.poll(now)
        assert buffer.due is None or now < buffer.due <= now + HOLD_SECONDS
    passed = [item.packet for item in out]
    assert passed == sorted(passed)
    assert len(passed) + len(buffer._held) + buffer.late == pushed
    assert len(buffer._held) <= REORDER_LIMIT
    assert sum(item.lost for item in out) == buffer.lost


@given(starts, st.integers(1, 200))
def test_loss_leaves_no_delay(start: int, gap: int) -> None:
    buffer: ReorderBuffer[int] = ReorderBuffer.rtp()
    buffer.push(start, 0, 0.0)
    after = [buffer.push((start + 1 + gap + i) & 0xFFFF, i, 0.0) for i in range(10)]
    assert after[:REORDER_LIMIT] == [[]] * REORDER_LIMIT
    assert after[REORDER_LIMIT] == in_order(*range(REORDER_LIMIT + 1), lost=gap)
    assert after[REORDER_LIMIT + 1 :] == [in_order(i) for i in range(REORDER_LIMIT + 1, 10)]
    assert buffer.lost == gap


def test_packet_behind_a_gap_is_released_in_time() -> None:
    """As with DTX, where the next packet comes 400 ms later."""
    buffer: ReorderBuffer[int] = ReorderBuffer(REORDER_LIMIT, 1000, modulus=1 << 16)
    buffer.push(0, 0, 1.0)
    assert buffer.push(2, 2, 1.4) == []
    due = buffer.due
    assert due == 1.4 + HOLD_SECONDS
    assert buffer.poll(1.4 + HOLD_SECONDS / 2) == []
    assert buffer.poll(1.4 + HOLD_SECONDS) == in_order(2, lost=1)
    assert buffer.due is None
    assert buffer.push(1, 1, 1.5) == []
    assert buffer.late == 1
    # Without a call of poll, the next packet gives the gap up.
    assert buffer.push(4, 4, 1.8) == []
    assert buffer.push(5, 5, 1.8 + HOLD_SECONDS) == in_order(4, 5, lost=1)


def test_second_gap_has_its_own_time() -> None:
    buffer: ReorderBuffer[int] = ReorderBuffer(REORDER_LIMIT, 1000, modulus=1 << 16)
    buffer.push(0, 0, 0.0)
    assert buffer.push(2, 2, 0.04) == []
    assert buffer.push(4, 4, 0.08) == []
    assert buffer.poll(0.04 + HOLD_SECONDS) == in_order(2, lost=1)
    assert buffer.due == 0.08 + HOLD_SECONDS
    assert buffer.push(3, 3, 0.11) == in_order(3, 4)


def run(buffer: ReorderBuffer[int], arrivals: list[tuple[float, int]]) -> dict[int, float]:
    """Push packets at their arrivals; return when each one passed."""
    passed: dict[int, float] = {}
    for now, number in sorted(arrivals):
        while (due := buffer.due) is not None and due < now:
            passed |= {item.packet: due for item in buffer.poll(due)}
        passed |= {item.packet: now for item in buffer.push(number & 0xFFFF, number, now)}
    return passed


@given(
    st.lists(st.floats(0, 0.05), min_size=1, max_size=20),
    st.lists(st.integers(1, 400), max_size=10),
)
def test_network_that_overtakes_packets_loses_few_of_them(
    delays: list[float], lost: list[int]
) -> None:
    """A packet may overtake another while its delay is unknown, but not for long."""
    buffer: ReorderBuffer[int] = ReorderBuffer.rtp()
    arrivals = [
        (number * 0.02 + delays[number % len(delays)], number)
        for number in range(1, 1000)
        if number not in lost
    ]
    passed = run(buffer, arrivals)
    assert list(passed) == sorted(passed)
    assert buffer.late <= 6
    assert len(passed) + len(buffer._held) + buffer.late == len(arrivals)


def test_gap_passes_at_once_where_packets_keep_their_order() -> None:
    buffer: ReorderBuffer[int] = ReorderBuffer.rtp()
    lost = {100, 800, 801, 950}
    arrivals = [(number * 0.02, number) for number in range(1000) if number not in lost]
    passed = run(buffer, arrivals)
    waited = {number: passed[number] - at for at, number in arrivals if passed[number] > at}
    # In the first seconds the network is not known.
    assert waited.keys() == {101, 802, 951}
    assert waited[101] <= 0.021
    assert max(waited[802], waited[951]) <= LEAST_HOLD_SECONDS + 1e-9


def test_packets_read_in_a_burst_are_reordered_without_a_hold() -> None:
    buffer: ReorderBuffer[int] = ReorderBuffer.rtp()
    arrivals = [(number * 0.02, number) for number in range(1000)]
    arrivals[900:902] = [(18.02, 901), (18.02 + LEAST_HOLD_SECONDS / 2, 900)]
    assert len(run(buffer, arrivals)) == 1000
    assert buffer.late == 0


@given(st.floats(0.002, 0.045), st.integers(600, 900))
def test_late_packet_lengthens_the_hold(overtaken: float, number: int) -> None:
    buffer: ReorderBuffer[int] = ReorderBuffer.rtp()
    arrivals = [(n * 0.02, n) for n in range(1000)]
    for late in (number, number + 50):
        arrivals[late] = (late * 0.02 + 0.02 + overtaken, late)
    passed = run(buffer, arrivals)
    assert set(range(1000)) - set(passed) == {number}


def test_late_or_repeated_packet_is_dropped_and_counted() -> None:
    buffer: ReorderBuffer[int] = ReorderBuffer.rtp()
    assert buffer.push(10, 1, 0.0) == in_order(1)
    assert buffer.push(10, 1, 0.0) == []
    assert buffer.push(9, 2, 0.0) == []
    assert buffer.late == 2
    assert buffer.push(11, 3, 0.0) == in_order(3)


def test_distant_number_starts_a_new_stream() -> None:
    buffer: ReorderBuffer[int] = ReorderBuffer.rtp()
    buffer.push(10, 1, 0.0)
    assert buffer.push(30_000, 2, 0.0) == in_order(2)
    assert buffer.push(30_001, 3, 0.0) == in_order(3)
    assert buffer.lost == 0


@given(st.permutations(range(CHUNK_LIMIT)), st.integers(0, 300))
def test_chunks_out_of_order_within_the_limit_are_reordered(
    shuffled: list[int], before: int
) -> None:
    order: ReorderBuffer[int] = ReorderBuffer.chunks()
    for chunk in range(1, before + 1):
        assert order.push(chunk, chunk, 0.0) == in_order(chunk)  # in order, so none is held
    chunks = [before + 1 + chunk for chunk in shuffled]
    assert push_all(order, chunks) == sorted(chunks)
    assert order.lost == 0


@given(st.lists(st.integers(1, 50), max_size=100))
def test_every_chunk_is_passed_once_in_order_or_lost(chunks: list[int]) -> None:
    order: ReorderBuffer[int] = ReorderBuffer.chunks()
    heard: list[int] = []
    for chunk in chunks:
        heard += push_all(order, [chunk])
        assert len(order._held) <= CHUNK_LIMIT
    heard += [item.packet for item in order.flush()]
    assert heard == sorted(set(heard))
    assert set(heard) <= set(chunks)
    # All numbers up to the last one passed, except those passed.
    assert order.lost == max(heard, default=0) - len(heard)


def test_late_chunk_of_a_closed_gap_is_dropped() -> None:
    order: ReorderBuffer[int] = ReorderBuffer.chunks()
    assert push_all(order, list(range(2, 2 + CHUNK_LIMIT))) == []
    assert order.push(7, 7, 0.0) == in_order(2, 3, 4, 5, 6, 7, lost=1)
    assert order.lost == 1
    assert order.push(1, 1, 0.0) == []
    assert order.push(8, 8, 0.0) == in_order(8)


def test_chunk_numbers_that_go_back_start_a_new_stream() -> None:
    order: ReorderBuffer[int] = ReorderBuffer.chunks()
    push_all(order, list(range(1, 101)))
    assert order.push(102, 102, 0.0) == []
    assert order.push(1, 1, 0.0) == [Ordered(102, 1), Ordered(1, 0)]
    assert order.push(2, 2, 0.0) == in_order(2)
    assert order.lost == 1
