from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastrtc_anyio.testing.link import Link, LinkFaults
from fastrtc_anyio.testing.strategies import link_faults

FRAME = 0.02


def arrivals(faults: LinkFaults, count: int) -> list[float | None]:
    link = Link(faults)
    return [link.transmit(i * FRAME) for i in range(count)]


def test_without_faults_everything_arrives_at_once() -> None:
    assert arrivals(LinkFaults(), 100) == [i * FRAME for i in range(100)]


@pytest.mark.parametrize("burst", [1, 3, 10])
@pytest.mark.parametrize("loss", [0.01, 0.1, 0.5, 0.9])
def test_the_mean_loss_is_what_was_asked_for(loss: float, burst: int) -> None:
    link = Link(LinkFaults(loss=loss, burst=burst, seed=7))
    count = 100_000
    for i in range(count):
        link.transmit(i * FRAME)
    assert link.sent == count
    bursts = loss * count / burst
    assert link.lost / count == pytest.approx(loss, rel=4 / bursts**0.5)


def test_nothing_or_everything_is_lost() -> None:
    assert None not in arrivals(LinkFaults(loss=0.0, burst=5), 1000)
    assert set(arrivals(LinkFaults(loss=1.0, burst=5), 1000)) == {None}


def test_frames_are_lost_in_bursts() -> None:
    faults = LinkFaults(loss=0.05, burst=4, seed=1)
    text = "".join("x" if at is None else "." for at in arrivals(faults, 10_000))
    runs = [len(run) for run in text.strip("x").split(".") if run]
    assert len(runs) > 50
    assert all(run % 4 == 0 for run in runs)


def test_the_seed_decides_what_is_lost_and_nothing_else_does() -> None:
    def lost(**faults: Any) -> list[bool]:
        return [at is None for at in arrivals(LinkFaults(loss=0.2, **faults), 500)]

    assert lost() == lost()
    assert lost() == lost(delay=0.1, jitter=0.5)
    assert lost() != lost(seed=1)


def test_the_answers_are_the_same_everywhere() -> None:
    got = arrivals(LinkFaults(loss=0.3, jitter=0.1, seed=42), 6)
    assert [at and round(at, 6) for at in got] == [0.002501, None, 0.10767, 0.10767, 0.10767, None]


def test_a_late_frame_holds_up_those_behind_it() -> None:
    got = arrivals(LinkFaults(delay=0.05, jitter=0.2, seed=3), 500)
    times = [at for at in got if at is not None]
    assert len(times) == 500
    assert times == sorted(times)
    delays = [at - i * FRAME for i, at in enumerate(times)]
    assert min(delays) >= 0.05 - 1e-9
    assert max(delays) <= 0.25 + 1e-9
    assert len(set(times)) < 500, "some had to wait"


def test_in_an_outage_nothing_is_sent_and_nothing_arrives() -> None:
    link = Link(LinkFaults(delay=0.5, outages=((1.0, 2.0), (5.0, math.inf))))
    sent = [0.4, 0.5, 0.9, 1.0, 1.9, 2.0, 4.4, 4.5, 5.0, 1e6]
    assert [link.transmit(at) for at in sent] == [
        0.9,
        None,  # was on its way
        None,
        None,
        None,
        2.5,
        4.9,
        None,
        None,
        None,
    ]
    assert (link.sent, link.lost) == (10, 7)


@given(link_faults(), st.lists(st.floats(0, 1), max_size=50))
def test_any_link_accounts_for_every_frame(faults: LinkFaults, gaps: list[float]) -> None:
    link = Link(faults)
    now = 0.0
    arrived = []
    for gap in gaps:
        now += gap
        at = link.transmit(now)
        if at is not None:
            assert at >= now + faults.delay
            assert not any(start <= at < end for start, end in faults.outages)
            arrived.append(at)
    assert arrived == sorted(arrived)
    assert (link.sent, link.lost) == (len(gaps), len(gaps) - len(arrived))


def test_time_does_not_go_back() -> None:
    link = Link(LinkFaults())
    link.transmit(1.0)
    link.transmit(1.0)
    with pytest.raises(ValueError, match=r"sent at 0\.9 s, after a frame sent at 1\.0 s"):
        link.transmit(0.9)
    with pytest.raises(ValueError, match="nan"):
        link.transmit(math.nan)
    assert link.sent == 2


@pytest.mark.parametrize(
    ("faults", "message"),
    [
        ({"loss": -0.1}, "loss must be from 0 to 1; got -0.1"),
        ({"loss": 5}, "loss must be"),
        ({"loss": math.nan}, "loss must be"),
        ({"delay": -1}, "delay must be 0 s or more"),
        ({"delay": math.inf}, "delay must be"),
        ({"jitter": math.nan}, "jitter must be"),
        ({"burst": 0}, "burst must be 1 frame or more"),
        ({"burst": 1.5}, "burst must be an int"),
        ({"burst": True}, "burst must be an int"),
        ({"seed": "x"}, "seed must be an int"),
        ({"outages": ((2, 1),)}, r"an outage must start .* got \(2, 1\)"),
        ({"outages": ((-1, 1),)}, "an outage must start"),
        ({"outages": ((math.nan, 1),)}, "an outage must start"),
        ({"outages": ((math.inf, math.inf),)}, "an outage must start"),
        ({"outages": (1, 2)}, r"an outage is \(start, end\)"),
        ({"outages": ((1, 2, 3),)}, r"an outage is \(start, end\)"),
    ],
)
def test_what_is_not_possible_is_refused(faults: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LinkFaults(**faults)


def test_faults_are_values() -> None:
    faults = LinkFaults(loss=0.1, outages=[[1, 2]])  # type: ignore[arg-type]
    assert faults == LinkFaults(0.1, outages=((1, 2),))
    assert len({faults, LinkFaults(0.1, outages=((1, 2),))}) == 1
    assert repr(LinkFaults()) == "LinkFaults()"
    assert repr(faults) == "LinkFaults(loss=0.1, outages=((1, 2),))"
    assert eval(repr(faults)) == faults
