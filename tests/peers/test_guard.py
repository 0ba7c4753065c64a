"""Admission of datagrams to the sockets of a call, with a simulated clock and no network."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from fastrtc_anyio import AddressPolicy
from fastrtc_anyio._peers.webrtc.consent import CONSENT
from fastrtc_anyio._peers.webrtc.guard import Admission, CheckBudget, Destinations, Guard

CLIENT = ("10.0.0.1", 5000)
STRANGER = ("10.0.0.2", 5000)
SOCKETS = ("wlan", "relay")
LIMIT = 8


@dataclass
class Door:
    """A guard with recorders behind it."""

    now: float = 0.0
    policy: AddressPolicy = field(default_factory=AddressPolicy)
    data: list[tuple[bytes, Any]] = field(default_factory=list)
    stun: list[tuple[bytes, Any]] = field(default_factory=list)
    strangers: list[Any] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.guard: Guard[str] = Guard(self.clock, Admission(self.clock, self.policy, LIMIT))
        self.receive = {
            socket: self.guard.make_filter(
                socket,
                lambda data, origin: self.data.append((data, origin)),
                lambda data, address: self.stun.append((data, address)),
                self.strangers.append,
            )
            for socket in SOCKETS
        }

    def clock(self) -> float:
        return self.now

    def establish(self, socket: str, address: Any, *, named: Any = ()) -> Any:
        return self.guard.establish((socket, address), named, None)


DTLS = {*range(20, 64)} - {23}
"""First bytes of DTLS, without those of application data."""


@given(st.binary(max_size=1600), st.sampled_from([CLIENT, STRANGER]), st.sampled_from(SOCKETS))
def test_only_an_established_origin_passes_data(data: bytes, source: Any, socket: str) -> None:
    assume(b"\x17" not in data[1:])  # other tests hide such records
    door = Door()
    door.establish("wlan", CLIENT)
    door.receive[socket](data, source)
    fits = 12 <= len(data) <= 1500
    is_stun = fits and data[0] < 4
    is_data = fits and (data[0] in DTLS or 128 <= data[0] < 192)
    is_established = (socket, source) == ("wlan", CLIENT)
    assert door.stun == [(data, source)] * is_stun
    assert door.data == [(data, ("wlan", CLIENT))] * (is_data and is_established)
    assert door.strangers == [(socket, source)] * (is_data and not is_established)


@given(st.integers(0, 255), st.integers(0, 70_000))
def test_sizes_and_first_bytes_of_no_peer_are_dropped(first: int, size: int) -> None:
    door = Door()
    door.establish("wlan", CLIENT)
    door.receive["wlan"](bytes([first]).ljust(size, b"\x41"), CLIENT)
    passed = door.data or door.stun
    assert bool(passed) == (
        12 <= size <= 1500 and (first < 4 or first in DTLS or 128 <= first < 192)
    )


def test_an_address_of_ipv6_has_four_items() -> None:
    door = Door()
    client = ("2001:db8::1", 5000)
    door.establish("wlan", client)
    door.receive["wlan"](b"\x80" * 20, (*client, 0, 0))
    door.receive["wlan"](b"\x80" * 20, ("2001:db8::2", 5000, 0, 0))
    assert door.data == [(b"\x80" * 20, ("wlan", client))]
    assert door.strangers == [("wlan", ("2001:db8::2", 5000))]


class Origins(RuleBasedStateMachine):
    """The origins of a client that has two candidates and moves at any time."""

    named = frozenset({("10.0.0.1", 1), ("10.0.0.1", 2)})

    def __init__(self) -> None:
        super().__init__()
        self.door = Door()
        self.heard: dict[Any, float] = {}

    @rule(port=st.integers(1, 30), socket=st.sampled_from(SOCKETS), wait=st.floats(0, CONSENT))
    def check(self, port: int, socket: str, wait: float) -> None:
        self.door.now += wait
        origin = (socket, ("10.0.0.1", port))
        forgotten = self.door.guard.establish(origin, self.named, ("wlan", ("10.0.0.1", 30)))
        learned = [one for one in self.heard if one[1] not in self.named]
        if origin not in self.heard and origin[1] not in self.named:
            assert (forgotten == []) == (len(learned) < LIMIT - len(self.named))
        if forgotten is None:  # all others have sent recently
            assert all(
                self.heard[one] >= self.door.now - CONSENT or one == ("wlan", ("10.0.0.1", 30))
                for one in learned
            )
            return
        for one in forgotten:
            assert one[1] not in self.named
            assert self.heard.pop(one) < self.door.now - CONSENT
        self.heard[origin] = self.door.now

    @rule(port=st.integers(1, 30), socket=st.sampled_from(SOCKETS))
    def hear(self, port: int, socket: str) -> None:
        origin = (socket, ("10.0.0.1", port))
        self.door.guard.hear(origin)
        if origin in self.heard:
            self.heard[origin] = self.door.now

    @rule(last=st.integers(1, 30))
    def restart(self, last: int) -> None:
        self.door.guard.retain(lambda origin: origin[1][1] <= last)
        self.heard = {one: at for one, at in self.heard.items() if one[1][1] <= last}

    @invariant()
    def data_passes_from_these_origins_alone(self) -> None:
        self.door.data.clear()
        for socket in SOCKETS:
            for port in range(1, 31):
                self.door.receive[socket](b"\x80" * 20, ("10.0.0.1", port))
        assert {origin for _, origin in self.door.data} == set(self.heard)


TestOrigins = Origins.TestCase


def test_learned_addresses_of_a_client_with_all_its_candidates_are_few() -> None:
    door = Door()
    named = {("10.0.0.1", port) for port in range(100)}
    found = [door.establish("wlan", ("10.9.9.9", port), named=named) for port in range(1, 9)]
    assert found == [[]] * 4 + [None] * 4
    assert door.establish("wlan", ("10.0.0.1", 7), named=named) == []


@given(st.lists(st.tuples(st.floats(0, 0.3), st.booleans()), max_size=400))
def test_checks_are_bounded_and_established_origins_come_first(
    events: list[tuple[float, bool]],
) -> None:
    now, taken = 0.0, 0
    budget = CheckBudget(lambda: now)
    asked = 0.0
    for wait, established in events:
        now += wait
        took = budget.take(established=established)
        taken += took
        assert taken <= 100 + 100 * now + 1
        if established and now >= asked + 0.01:
            asked = now  # at most 100 a second
            assert took
        elif established:
            return  # more than the budget


def test_a_flood_of_checks_leaves_room_for_the_client() -> None:
    now = 0.0
    budget = CheckBudget(lambda: now)
    taken = 0
    for number in range(5000):
        now = number / 1000
        taken += budget.take(established=False)
        if number % 40 == 0:  # 25 a second
            assert budget.take(established=True)
    assert taken < 500


def test_unanswered_host_gets_few_checks() -> None:
    now = 0.0
    destinations = Destinations(AddressPolicy(), lambda: now)
    victim = [("203.0.113.5", port) for port in range(1, 101)]
    sent = []
    for tick in range(1000):  # 20 s
        now = tick / 50
        sent += [now] * destinations.may_check(victim[tick % 100])
    assert len(sent) == 16 + 9
    assert destinations.may_check(CLIENT)
    destinations.mark_authentic(("203.0.113.5", 4))
    assert all(destinations.may_check(address) for address in victim)


def test_hosts_of_many_restarts_are_limited() -> None:
    now = 0.0
    destinations = Destinations(AddressPolicy(), lambda: now)
    found = []
    for minute in range(3):
        now = minute * 61.0
        hosts = [f"10.{minute}.0.{number}" for number in range(1, 200)]
        found.append(sum(destinations.may_check((host, 9)) for host in hosts))
        destinations.mark_authentic((f"10.{minute}.0.150", 9))
        assert destinations.may_check((f"10.{minute}.0.150", 9))
    assert found == [100, 100, 100]


def test_network_of_ipv6_counts_as_one_host() -> None:
    destinations = Destinations(AddressPolicy(), lambda: 0.0)
    hosts = [f"2001:db8:0:7::{number:x}" for number in range(1, 40)]
    hosts += [f"2001:db8:0:7:1:2:3:{number:x}" for number in range(1, 40)]
    assert sum(destinations.may_check((host, 9)) for host in hosts) == 16
    for other in ("2001:db8:0:8::1", "2001:db8::1", "::7"):
        assert destinations.may_check((other, 9))


def test_client_on_this_machine_opens_loopback() -> None:
    destinations = Destinations(AddressPolicy(private=False), lambda: 0.0)
    here = ("127.0.0.1", 9)
    assert not destinations.permits(here)
    assert destinations.accepts(here)  # a check from there, which may be authentic
    assert not destinations.accepts(CLIENT)
    destinations.mark_authentic(("8.8.8.8", 9))
    assert not destinations.permits(here)
    destinations.mark_authentic(("127.0.0.1", 10))
    assert destinations.permits(here)
    assert not destinations.permits(("127.0.0.1", 0))


def record(kind: int, size: int) -> bytes:
    """A record of DTLS 1.2."""
    return bytes([kind, 0xFE, 0xFD]) + bytes(8) + size.to_bytes(2) + bytes(size)


@pytest.mark.parametrize(
    ("data", "passes"),
    [
        (record(23, 40), True),
        (record(23, 0), True),
        (record(22, 40) + record(20, 1) + record(22, 60), True),
        (record(23, 40) * 2, False),
        (record(23, 40) + b"\0", False),
        (record(23, 40)[:-1], False),
        (record(22, 40) + record(23, 40), False),
        (record(22, 0) * 100 + record(23, 40), False),
    ],
)
def test_data_that_aiortc_would_read_in_part_is_dropped(data: bytes, passes: bool) -> None:
    door = Door()
    door.establish("wlan", CLIENT)
    door.receive["wlan"](data, CLIENT)
    assert bool(door.data) is passes
