"""Pictures are those of aiortc's jitter buffer, in the same order, and never later."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from aiortc.jitterbuffer import JitterBuffer
from aiortc.rtp import RtpPacket
from hypothesis import given
from hypothesis import strategies as st

from fastrtc_anyio._media.picture_buffer import CAPACITY, PictureBuffer

sizes = st.lists(st.integers(1, 5), min_size=1, max_size=40)
"""Packets of each picture."""
origins = st.sampled_from([0, 1, 30_000, 65_500, 65_535])
clocks = st.sampled_from([0, 2**32 - 10_000, 2**32 - 1])


def packet(number: int, timestamp: int, marker: bool, payload: bytes | None = None) -> Any:
    made: Any = RtpPacket(
        sequence_number=number % 65536, timestamp=timestamp % 2**32, marker=int(marker)
    )
    made.payload = number.to_bytes(4, "big", signed=True) if payload is None else payload
    made._data = made.payload
    return made


def make_pictures(sizes: Sequence[int], origin: int = 0, clock: int = 0) -> list[list[Any]]:
    pictures = []
    for i, size in enumerate(sizes):
        numbers = range(origin, origin + size)
        timestamp = clock + 3000 * i
        pictures.append([packet(n, timestamp, n == numbers[-1]) for n in numbers])
        origin += size
    return pictures


class Both:
    """The buffer and its model, which get the same packets."""

    def __init__(self) -> None:
        self.buffer: PictureBuffer[Any] = PictureBuffer()
        self.model = JitterBuffer(CAPACITY, is_video=True)
        self.released: list[tuple[int, bytes]] = []
        self.modelled: list[tuple[int, bytes]] = []
        self.requests = 0
        self.modelled_requests = 0

    def add(self, one: Any) -> None:
        needs_key_frame, released = self.buffer.add(one)
        self.requests += needs_key_frame
        self.released += [(p[0].timestamp, join(p)) for p in released if join(p)]
        needs_key_frame, frame = self.model.add(one)
        self.modelled_requests += needs_key_frame
        if frame is not None and frame.data:
            self.modelled.append((frame.timestamp, frame.data))


def are_among(modelled: list[Any], released: list[Any]) -> bool:
    """Whether all are released, in the same order."""
    rest = iter(released)
    return all(one in rest for one in modelled)


def join(packets: list[Any]) -> bytes:
    return b"".join(one.payload for one in packets)


def flat(pictures: list[list[Any]]) -> list[Any]:
    return [one for picture in pictures for one in picture]


@st.composite
def arrivals(draw: st.DrawFn) -> list[Any]:
    """Packets that are lost, repeated, late by up to 60 packets, or have lost their markers."""
    packets = flat(make_pictures(draw(sizes), draw(origins), draw(clocks)))
    fates = st.sampled_from(["in time"] * 6 + ["lost", "late", "twice", "no marker"])
    arriving: list[tuple[float, Any]] = []
    for i, one in enumerate(packets):
        fate = draw(fates)
        if fate == "no marker":
            one.marker = 0
        if fate != "lost":
            arriving.append((i + draw(st.integers(1, 60)) + 0.5 if fate == "late" else i, one))
        if fate == "twice":
            arriving.append((i + draw(st.integers(0, 60)) + 0.7, one))
    return [one for _, one in sorted(arriving, key=lambda pair: pair[0])]


@given(arrivals())
def test_pictures_are_those_of_the_model_and_never_later(packets: list[Any]) -> None:
    both = Both()
    for one in packets:
        both.add(one)
        assert both.modelled == both.released[: len(both.modelled)]
    assert both.requests == both.modelled_requests == 0


@given(sizes, origins, clocks)
def test_pictures_are_released_with_their_last_packets(
    sizes: list[int], origin: int, clock: int
) -> None:
    buffer: PictureBuffer[Any] = PictureBuffer()
    for picture in make_pictures(sizes, origin, clock):
        for one in picture[:-1]:
            assert buffer.add(one) == (False, [])
        assert buffer.add(picture[-1]) == (False, [picture])


@given(sizes, st.data())
def test_packet_that_fills_a_gap_releases_all_complete_pictures(
    sizes: list[int], data: st.DataObject
) -> None:
    pictures = [*make_pictures([1]), *make_pictures(sizes, 1, 3000)]
    packets = flat(pictures)
    late = packets.pop(data.draw(st.integers(1, len(packets) - 1)))
    both = Both()
    for one in packets:
        both.add(one)
    behind = len(both.released)
    both.add(late)
    assert both.released == [(p[0].timestamp, join(p)) for p in pictures]
    assert 1 <= behind < len(pictures)


@given(sizes, st.data())
def test_wrong_markers_divide_pictures_at_most_once(sizes: list[int], data: st.DataObject) -> None:
    """From then on, pictures end as in the model."""
    pictures = make_pictures(sizes)
    for one in flat(pictures):
        one.marker = data.draw(st.integers(0, 1))
    both = Both()
    for one in flat([*pictures, *make_pictures([1], 1000)]):
        both.add(one)
    parts = [data for _, data in both.released]
    whole = [data for _, data in both.modelled]
    assert b"".join(parts).startswith(b"".join(whole))
    wrong = [i for i, p in enumerate(pictures) if any(one.marker for one in p[:-1])]
    if wrong:
        assert parts[: wrong[0]] == whole[: wrong[0]]
        assert parts[wrong[0] + 2 :] == whole[wrong[0] + 1 :]
    else:
        assert parts[: len(whole)] == whole


@given(sizes, st.integers(1, 3))
def test_padding_behind_a_picture_is_not_a_wrong_marker(sizes: list[int], padding: int) -> None:
    buffer: PictureBuffer[Any] = PictureBuffer()
    shift = 0
    for picture in make_pictures(sizes):
        for one in picture:
            one.sequence_number += shift
        got = [buffer.add(one)[1] for one in picture]
        assert [packets for release in got for packets in release if join(packets)] == [picture]
        last = picture[-1]
        for i in range(1, padding + 1):
            _, release = buffer.add(packet(last.sequence_number + i, last.timestamp, False, b""))
            assert not any(map(join, release))
        shift += padding


@given(
    st.lists(
        st.tuples(st.integers(0, 65535) | st.integers(-600, 600), st.integers(0, 3), st.booleans()),
        max_size=60,
    )
)
def test_any_packets_are_bounded_and_video_goes_on(steps: list[tuple[int, int, bool]]) -> None:
    buffer: PictureBuffer[Any] = PictureBuffer()
    number = 0
    for step, clock, marker in steps:
        number += step
        buffer.add(packet(number, clock * 3000, marker))
        assert len(buffer._packets) <= CAPACITY
    # Another stream, whose first two pictures may be lost.
    pictures = make_pictures([2] * 4, number + 20_000, 2**31)
    got = [picture for one in flat(pictures) for picture in buffer.add(one)[1]]
    assert got[-1] in pictures[-2:]
    assert len(got) >= 2


@given(st.integers(CAPACITY + 4, 40_000), sizes, st.sampled_from([1, -1]))
def test_jump_of_the_numbers_discards_the_old_and_requests_a_key_frame(
    jump: int, sizes: list[int], sign: int
) -> None:
    both = Both()
    number = 1000  # of a picture that the model discards
    for one in flat(make_pictures([1, 2, 1], number)):
        both.add(one)
    after = make_pictures([*sizes, 1], number + sign * jump, 2**31)
    for one in flat(after):
        both.add(one)
        assert are_among(both.modelled, both.released)
    assert both.requests == both.modelled_requests == 1
    assert both.released[-len(after) :] == [(p[0].timestamp, join(p)) for p in after]


@given(st.integers(CAPACITY, 2 * CAPACITY))
def test_picture_of_more_packets_than_the_capacity_is_cut_as_in_the_model(size: int) -> None:
    both = Both()
    for one in flat(make_pictures([2, size, 3, 2])):
        both.add(one)
        assert are_among(both.modelled, both.released)
    assert both.requests == (size > CAPACITY)


@given(st.integers(100, 30_000), sizes, clocks)
def test_repeated_packet_of_an_old_picture_changes_nothing(
    late: int, sizes: list[int], clock: int
) -> None:
    """At any delay: a client may retransmit a packet twice."""
    buffer: PictureBuffer[Any] = PictureBuffer()
    pictures = make_pictures([*[50] * (late // 50 + 1), *sizes], 65_000, clock)
    packets = flat(pictures)
    got = []
    for i, one in enumerate(packets):
        needs_key_frame, released = buffer.add(one)
        assert not needs_key_frame
        got += released
        # aiortc would clear its buffer, and wait for all packets since then to come again.
        old = packets[i - late] if i >= late else one
        if (one.timestamp - old.timestamp) % 2**32 < 9 * 90_000:
            assert buffer.add(old) == (False, [])
    assert got == pictures


@given(
    st.lists(
        st.tuples(
            st.integers(-3, 4) | st.sampled_from([-40_000, -200, 0, 200, 600, 40_000]),
            st.sampled_from([0, 0, 0, 3000, -3000, 2**31]),
            st.booleans(),
            st.sampled_from([b"x", b"x", b"x", b""]),
        ),
        max_size=80,
    ),
    origins,
    clocks,
)
def test_pictures_of_hostile_packets_are_consecutive_packets_of_one_time(
    steps: list[tuple[int, int, bool, bytes]], number: int, clock: int
) -> None:
    buffer: PictureBuffer[Any] = PictureBuffer()
    sent: set[int] = set()
    end: int | None = None
    for step, ticks, marker, payload in steps:
        number, clock = number + step, clock + ticks
        one = packet(number, clock, marker, payload)
        sent.add(id(one))
        discarded, released = buffer.add(one)
        if discarded:
            end = None
        for picture in released:
            first = picture[0].sequence_number
            numbers = [(first + i) % 65536 for i in range(len(picture))]
            assert [p.sequence_number for p in picture] == numbers
            assert len({p.timestamp for p in picture}) == 1
            assert all(id(p) in sent for p in picture)
            assert end in (None, first)
            end = (numbers[-1] + 1) % 65536
