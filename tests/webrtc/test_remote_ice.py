"""Candidates of several ICE generations, in any order, without a network."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any, cast

import pytest

from fastrtc_anyio import RequestLimits
from fastrtc_anyio._peers.discards import Discards
from fastrtc_anyio._peers.webrtc.ice_path import IcePath
from fastrtc_anyio._peers.webrtc.remote_ice import RemoteIce
from fastrtc_anyio._signaling.requests import IceCandidate
from fastrtc_anyio._signaling.restart import IceCredentials
from fastrtc_anyio.errors import InvalidCandidate, InvalidStateError, LimitExceeded
from tests.kit.virtual_asyncio import VirtualLoop
from tests.signaling.test_restart import NEW, first_negotiation


class FakePath:
    """Records what an ICE transport receives."""

    mids = ("0", "1")
    is_started = True

    def __init__(self) -> None:
        self.generation = 0
        self.candidates: list[tuple[int, str]] = []
        self.errors: dict[str, Exception] = {}

    def restart(self, remote: IceCredentials, local: IceCredentials) -> None:
        self.generation += 1

    async def add_candidate(self, candidate: Any) -> None:
        if candidate.ip in self.errors:
            raise self.errors.pop(candidate.ip)
        self.candidates.append((self.generation, candidate.ip))


def candidate(address: str, user: str | None, *, inside: bool = False) -> IceCandidate:
    extension = f" ufrag {user}" if inside else ""
    text = f"candidate:1 1 udp 1 {address} 9 typ host{extension}"
    return IceCandidate(text, "0", None, None if inside else user)


def open_ice(limits: RequestLimits, discards: Discards | None = None) -> tuple[RemoteIce, FakePath]:
    path = FakePath()
    negotiation, answer = first_negotiation()
    tasks = set()

    def spawn(coroutine: Coroutine[Any, Any, object]) -> None:
        tasks.add(asyncio.get_running_loop().create_task(coroutine))

    paths = cast(list[IcePath], [path])
    return RemoteIce(negotiation, answer, paths, limits, spawn, discards or Discards()), path


def run(main: Coroutine[Any, Any, None]) -> None:
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(main)


def test_each_candidate_joins_its_generation() -> None:
    async def main() -> None:
        ice, path = open_ice(RequestLimits())
        ice.add(candidate("10.0.0.1", None))
        ice.add(candidate("10.0.0.2", "user"))
        ice.add(candidate("10.0.0.3", "other"))  # overtakes the offer
        ice.add(candidate("10.0.0.4", "other", inside=True))
        ice.add(candidate("10.0.0.5", "never"))
        await asyncio.sleep(0)
        assert path.candidates == [(0, "10.0.0.1"), (0, "10.0.0.2")]
        assert await ice.restart(NEW) is not None
        ice.add(candidate("10.0.0.6", "other"))
        ice.add(candidate("10.0.0.7", None))
        with pytest.raises(InvalidStateError, match="replaced"):
            ice.add(candidate("10.0.0.8", "user"))
        await asyncio.sleep(0)
        assert sorted(path.candidates[2:]) == [(1, f"10.0.0.{i}") for i in (3, 4, 6, 7)]

    run(main())


def test_restarts_of_a_minute_are_limited() -> None:
    async def main() -> None:
        ice, path = open_ice(RequestLimits(restarts=2))

        def restart(number: int) -> None:
            ice.restart_with({None: IceCredentials(f"user{number}", str(number) * 30)})

        for minute in range(3):
            restart(3 * minute)
            restart(3 * minute + 1)
            with pytest.raises(LimitExceeded, match="2 times a minute"):
                restart(3 * minute + 2)
            await asyncio.sleep(60)
        assert path.generation == 6

    run(main())


def test_candidates_of_each_generation_are_limited() -> None:
    async def main() -> None:
        ice, _ = open_ice(RequestLimits(candidates=2))
        for text in ("user", "other"):
            for number in range(2):
                ice.add(candidate(f"10.0.0.{number}", text))
            with pytest.raises(LimitExceeded):
                ice.add(candidate("10.0.0.9", text))
            if text == "user":
                await ice.restart(NEW)

    run(main())


USABLE = [
    "candidate:1 1 udp 1 10.0.0.1 9 typ host",
    "a=candidate:1 1 udp 1 10.0.0.1 9 typ host",
    "1 1 udp 1 10.0.0.1 9 typ host",
    "  candidate:1 1 UDP 1 10.0.0.1 9 TYP HOST \r\n",
    "candidate:1 1 udp 1 10.0.0.1 9 typ host generation x network-id",
    "candidate:1 1 udp 1 10.0.0.1 9 typ srflx raddr rport -7 future \ud800",
    "candidate:1 1 tcp 1 10.0.0.1 9 typ host tcptype active",
    "candidate:1 1 udp 1 3a1b.local 9 typ host",
    "candidate:1 1 udp 1 2001:db8::1 9 typ host",
    "candidate:1 1 udp 1 fe80::1%eth0 9 typ host",
    "candidate:1 1 udp 1 host.example 9 typ host",
    "candidate:1 1 udp 1 10.0.0.1 0 typ host",
]
MALFORMED = [
    "candidate",
    "candidate:",
    "candidate:1 1 udp 1 10.0.0.1 9",
    "candidate:1 1 udp 1 10.0.0.1 70000 typ host",
    "candidate:1 1 udp 1 10.0.0.1 -1 typ host",
    "candidate:1 one udp 1 10.0.0.1 9 typ host",
    "candidate:1 1 udp high 10.0.0.1 9 typ host",
    "candidate:1 1 udp 1 10.0.0.1 9 host typ",
    "\ud800" * 8,
]


def test_malformed_candidates_affect_nothing_else(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    discards = Discards()

    async def main() -> None:
        ice, path = open_ice(RequestLimits(), discards)
        for text in MALFORMED:
            with pytest.raises(InvalidCandidate):
                ice.add(IceCandidate(text, "0"))
            ice.add(candidate("10.0.0.1", None))
        for text in USABLE:
            ice.add(IceCandidate(text, "0"))
        await asyncio.sleep(0)
        assert len(path.candidates) == len(MALFORMED) + len(USABLE)

    run(main())
    assert discards.statistics().candidates == len(MALFORMED)
    (entry,) = caplog.messages
    assert "an ICE candidate is malformed" in entry


@pytest.mark.parametrize(
    "error", [OSError("no multicast"), RuntimeError("closing"), UnicodeError("label too long")]
)
def test_candidate_that_cannot_be_added_ends_nothing(error: Exception) -> None:
    async def main() -> None:
        ice, path = open_ice(RequestLimits())
        path.errors["gone.local"] = error
        for address in ("10.0.0.1", "gone.local", "10.0.0.2"):
            ice.add(candidate(address, None))
        await asyncio.gather(*asyncio.all_tasks() - {asyncio.current_task()})  # none has failed
        assert not path.errors
        assert [address for _, address in path.candidates] == ["10.0.0.1", "10.0.0.2"]

    run(main())
