"""Network emulation: loss, delay, jitter and outages of an EmulatedLink."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastrtc_anyio.testing.link import EmulatedLink, LinkFaults
from fastrtc_anyio.testing.strategies import link_faults

FRAME = 0.02


def arrivals(faults: LinkFaults, count: int) -> list[float | None]:
    link = EmulatedLink(faults)
    return [link.transmit(i * FRAME) for i in range(count)]


def test_perfect_link_has_no_loss_or_delay() -> None:
    assert arrivals(LinkFaults(), 100) == [i * FRAME for i in range(100)]


@pytest.mark.parametrize("burst", [1, 3, 10])
@pytest.mark.parametrize("loss", [0.01, 0.1, 0.5, 0.9])
def test_mean_loss_matches_the_option(loss: float, burst: int) -> None:
    link = EmulatedLink(LinkFaults(loss=loss, burst=burst, seed=7))
    count = 100_000
    for i in range(count):
        link.transmit(i * FRAME)
    assert link.sent == count
    bursts = loss * count / burst
    assert link.lost / count == pytest.approx(loss, rel=4 / bursts**0.5)


def test_loss_of_0_and_of_1() -> None:
    assert None not in arrivals(LinkFaults(loss=0.0, burst=5), 1000)
    assert set(arrivals(LinkFaults(loss=1.0, burst=5), 1000)) == {None}


def test_losses_are_multiples_of_burst() -> None:
    faults = LinkFaults(loss=0.05, burst=4, seed=1)
    text = "".join("x" if at is None else "." for at in arrivals(faults, 10_000))
    runs = [len(run) for run in text.strip("x").split(".") if run]
    assert len(runs) > 50
    assert all(run % 4 == 0 for run in runs)


def test_losses_depend_on_the_seed_alone() -> None:
    def lost(**faults: Any) -> list[bool]:
        return [at is None for at in arrivals(LinkFaults(loss=0.2, **faults), 500)]

    assert lost() == lost()
    assert lost() == lost(delay=0.1, jitter=0.5)
    assert lost() != lost(seed=1)


def test_arrivals_of_a_seed_are_fixed() -> None:
    got = arrivals(LinkFaults(loss=0.3, jitter=0.1, seed=42), 6)
    assert [at and round(at, 6) for at in got] == [0.002501, None, 0.10767, 0.10767, 0.10767, None]


def test_late_frame_delays_the_next_frames() -> None:
    got = arrivals(LinkFaults(delay=0.05, jitter=0.2, seed=3), 500)
    times = [at for at in got if at is not None]
    assert len(times) == 500
    assert times == sorted(times)
    delays = [at - i * FRAME for i, at in enumerate(times)]
    assert min(delays) >= 0.05 - 1e-9
    assert max(delays) <= 0.25 + 1e-9
    assert len(set(times)) < 500, "no frame was delayed by an earlier one"


def test_outage_loses_frames_sent_and_in_flight() -> None:
    link = EmulatedLink(LinkFaults(delay=0.5, outages=((1.0, 2.0), (5.0, math.inf))))
    sent = [0.4, 0.5, 0.9, 1.0, 1.9, 2.0, 4.4, 4.5, 5.0, 1e6]
    assert [link.transmit(at) for at in sent] == [
        0.9,
        None,  # in flight
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
def test_every_frame_arrives_in_order_or_is_counted_as_lost(
    faults: LinkFaults, gaps: list[float]
) -> None:
    link = EmulatedLink(faults)
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


def test_earlier_time_is_rejected() -> None:
    link = EmulatedLink(LinkFaults())
    link.transmit(1.0)
    link.transmit(1.0)
    with pytest.raises(ValueError, match=r"now must be at least 1\.0; got 0\.9"):
        link.transmit(0.9)
    with pytest.raises(ValueError, match="nan"):
        link.transmit(math.nan)
    assert link.sent == 2


@pytest.mark.parametrize(
    ("faults", "message"),
    [
        ({"loss": -0.1}, "loss must be a number at least 0 and at most 1; got -0.1"),
        ({"loss": 5}, "loss must be"),
        ({"loss": math.nan}, "loss must be"),
        ({"delay": -1}, "delay must be a number at least 0 seconds"),
        ({"delay": math.inf}, "delay must be"),
        ({"jitter": math.nan}, "jitter must be"),
        ({"burst": 0}, "burst must be an int at least 1"),
        ({"outages": ((2, 1),)}, r"an outage must satisfy .* got \(2, 1\)"),
        ({"outages": ((-1, 1),)}, "an outage must satisfy"),
        ({"outages": ((math.nan, 1),)}, "an outage must satisfy"),
        ({"outages": ((math.inf, math.inf),)}, "an outage must satisfy"),
        ({"outages": (1, 2)}, r"an outage must be \(start, end\)"),
        ({"outages": ((1, 2, 3),)}, r"an outage must be \(start, end\)"),
    ],
)
def test_invalid_fault_is_rejected(faults: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LinkFaults(**faults)


@pytest.mark.parametrize("faults", [{"burst": 1.5}, {"burst": True}, {"seed": "x"}])
def test_fault_of_wrong_type_is_rejected(faults: dict[str, Any]) -> None:
    with pytest.raises(TypeError, match=f"{next(iter(faults))} must be an int"):
        LinkFaults(**faults)


def test_link_faults_compare_hash_and_repr() -> None:
    faults = LinkFaults(loss=0.1, outages=[[1, 2]])  # type: ignore[arg-type]
    assert faults == LinkFaults(0.1, outages=((1, 2),))
    assert len({faults, LinkFaults(0.1, outages=((1, 2),))}) == 1
    assert repr(LinkFaults()) == "LinkFaults()"
    assert repr(faults) == "LinkFaults(loss=0.1, outages=((1, 2),))"
    assert eval(repr(faults)) == faults
