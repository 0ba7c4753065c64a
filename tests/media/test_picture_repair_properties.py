"""Video over a path that loses packets, requests and retransmissions: whole pictures, and soon."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fastrtc_anyio._media.picture_buffer import CAPACITY
from fastrtc_anyio._media.picture_repair import (
    GIVE_UP,
    KEY_FRAME_INTERVAL,
    MOST_MISSING,
    PATIENCE,
    PictureRepair,
)

FPS = 20
ONE_WAY = 0.02
FAULT = 4.0
AFTER = 3.0
RECOVERY = 1.5
"""Seconds after a fault: for a gap, a request and the key frame, each of which may be repeated."""


@dataclass
class Packet:
    sequence_number: int
    timestamp: int
    marker: int
    picture: int
    first: bool
    key: bool
    payload: bytes = b"x"


def new_repair() -> PictureRepair[Packet]:
    return PictureRepair(lambda p: p.first and p.key, lambda picture: picture[0].key)


@dataclass
class Client:
    """Sends pictures of one to four packets, and key frames of eight."""

    rng: random.Random
    number: int = 65_000
    pictures: int = 0
    wants_key_frame: bool = True
    history: dict[int, Packet] = field(default_factory=dict)

    def send(self) -> list[Packet]:
        key, self.wants_key_frame = self.wants_key_frame, False
        count = 8 if key else self.rng.randint(1, 4)
        made = []
        for i in range(count):
            one = Packet(
                self.number % 65536, 4500 * self.pictures, i == count - 1, self.pictures, not i, key
            )
            self.number += 1
            self.history[one.sequence_number] = one
            made.append(one)
        self.pictures += 1
        for old in list(self.history)[:-128]:
            del self.history[old]
        return made


class Path:
    """A client and a receiver on one clock, with a path between them."""

    def __init__(self, seed: int, *, answers: bool = True) -> None:
        self.rng = random.Random(seed)
        self.client = Client(self.rng)
        self.repair = new_repair()
        self.loss = 0.0
        self.answers = answers
        self.now = 0.0
        self.released: list[tuple[float, int, bool]] = []
        self._under_way: list[tuple[float, int, Packet | list[int] | None]] = []
        self._count = 0

    def run(self, seconds: float) -> None:
        end = self.now + seconds
        next_picture = self.now
        while self.now < end:
            if self.now >= next_picture - 1e-9:
                next_picture += 1 / FPS
                for packet in self.client.send():
                    self._carry(packet)
            due = sorted(one for one in self._under_way if one[0] <= self.now)
            self._under_way = [one for one in self._under_way if one[0] > self.now]
            for _, _, item in due:
                self._deliver(item)
            self.now += 0.005

    def _carry(self, item: Packet | list[int] | None) -> None:
        if self.rng.random() >= self.loss:
            self._count += 1
            self._under_way.append((self.now + ONE_WAY, self._count, item))

    def _deliver(self, item: Packet | list[int] | None) -> None:
        if isinstance(item, Packet):
            missing = self.repair.find_missing(item.sequence_number, self.now)
            if missing:
                self._carry(missing)
            needs_key_frame, pictures = self.repair.add(item, self.now)
            if needs_key_frame:
                self._carry(None)
            for packets in pictures:
                first = packets[0]
                assert [one.picture for one in packets] == [first.picture] * len(packets)
                self.released.append((self.now, first.picture, first.key and first.first))
        elif not self.answers:
            return
        elif item is None:
            self.client.wants_key_frame = True
        else:
            for number in item:
                if number in self.client.history:
                    self._carry(self.client.history[number])


@given(st.integers(0, 2**32), st.floats(0, 0.5))
@example(2_308_576_249, 0.4609375)  # no key frame arrives for longer than GIVE_UP
def test_all_pictures_are_decodable_and_current_soon_after_a_fault(seed: int, loss: float) -> None:
    path = Path(seed)
    path.run(1.0)
    path.loss = loss
    path.run(FAULT)
    path.loss = 0.0
    path.run(RECOVERY)
    settled = path.now
    path.run(AFTER)
    expected, latest = 0, 0.0
    for at, number, key in path.released:
        assert key or number == expected or at - latest > GIVE_UP
        expected, latest = number + 1, at
    late = [at - number / FPS for at, number, _ in path.released if at > settled]
    assert len(late) >= AFTER * FPS - 2
    assert max(late) < ONE_WAY + 0.02


@given(st.integers(0, 2**32), st.floats(0.2, 4.0))
def test_picture_is_whole_soon_after_an_outage(seed: int, seconds: float) -> None:
    path = Path(seed)
    path.run(1.0)
    path.loss = 1.0
    path.run(seconds)
    path.loss = 0.0
    ended = path.now
    path.run(2.0)
    back = next(at for at, number, _ in path.released if at > ended and number / FPS > at - 0.1)
    assert back - ended < 0.35


@given(st.integers(0, 2**32))
def test_lost_packet_is_requested_until_it_arrives_or_a_key_frame_is(seed: int) -> None:
    rng = random.Random(seed)
    repair, client = new_repair(), Client(rng)
    packets = [one for _ in range(200) for one in client.send()]
    lost = rng.randrange(10, 30)
    requests, key_frames, now = [], [], 0.0
    for i, one in enumerate(packets):
        if i == lost:
            continue
        now = i * 0.01
        requests += [now for number in repair.find_missing(one.sequence_number, now)]
        key_frames += [now] * repair.add(one, now)[0]
    times = [at - (lost + 1) * 0.01 for at in requests]
    assert times[0] == pytest.approx(0)
    assert 4 <= len([at for at in times if at < 1.0]) <= 8
    since = [at - (lost + 1) * 0.01 for at in key_frames]
    assert since[0] == pytest.approx(PATIENCE, abs=0.02)
    assert since[1] - since[0] == pytest.approx(KEY_FRAME_INTERVAL, abs=0.02)


def test_client_that_answers_nothing_is_seen_again() -> None:
    path = Path(1, answers=False)
    path.run(1.0)
    path.loss = 1.0
    path.run(0.5)
    path.loss = 0.0
    path.run(GIVE_UP + 0.2)
    assert path.released[-1][0] > 1.5 + GIVE_UP
    assert max(at for at, _, _ in path.released if at < 1.5 + GIVE_UP - 0.1) < 1.1
    path.run(1.0)
    assert path.now - path.released[-1][0] < 0.1


def test_gap_too_large_to_repair_requests_a_key_frame_at_once() -> None:
    repair, client = new_repair(), Client(random.Random(1))
    first, second = client.send(), client.send()
    for one in first:
        assert repair.find_missing(one.sequence_number, 0.0) == []
        repair.add(one, 0.0)
    for gap, requested in ((MOST_MISSING, False), (MOST_MISSING + 1, True)):
        repair = new_repair()
        repair.find_missing(0, 0.0)
        repair.add(Packet(0, 0, 1, 0, True, True), 0.0)
        assert len(repair.find_missing(gap + 1, 1.0)) == (0 if requested else gap)
        assert repair.add(Packet(gap + 1, 4500, 1, 1, True, False), 1.0)[0] is requested
    assert second


def test_pictures_behind_an_undecoded_one_are_dropped_until_a_key_frame() -> None:
    repair = new_repair()
    released = []
    requests = 0
    for i in range(20):
        packet = Packet(i, 4500 * i, 1, i, True, i in (0, 16))
        repair.find_missing(i, i / FPS)
        requested, pictures = repair.add(packet, i / FPS)
        requests += requested
        released += [one.picture for picture in pictures for one in picture]
        if i == 3:
            repair.note_damage(i / FPS)
    assert released == [0, 1, 2, 3, *range(16, 20)]
    assert requests == 2  # at 0.2 and 0.75 s


@given(st.lists(st.integers(1, 40_000), max_size=60))
def test_each_gap_costs_little(steps: list[int]) -> None:
    repair = new_repair()
    number = 0
    for i, step in enumerate(steps):
        number += step
        found = repair.find_missing(number % 65536, float(i))
        assert len(found) <= MOST_MISSING
        assert len(repair._missing) <= CAPACITY
        repair.add(Packet(number % 65536, 4500 * number, 1, number, True, False), float(i))
