"""Consent, liveness and the choice of a path, on virtual time and without a network."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

import pytest

from fastrtc_anyio._peers.webrtc.consent import Clock, Consent, wait_silent
from tests.kit.virtual_asyncio import VirtualLoop


@dataclass
class FakePaths:
    """Paths with a round trip, of which some answer checks."""

    round_trip: float = 0.0
    alive: set[str] = field(default_factory=lambda: {"old"})
    selected: str | None = "old"
    nominated: set[str] = field(default_factory=set)
    sent: list[tuple[float, str]] = field(default_factory=list)
    waiting: int = 0

    def select(self, origin: str) -> None:
        self.selected = origin

    def is_nominated(self, origin: str) -> bool:
        return origin in self.nominated

    def send_check(self, origin: str, on_answer: Callable[[], None]) -> Callable[[], None]:
        loop = asyncio.get_running_loop()
        self.sent.append((loop.time(), origin))
        self.waiting += 1
        forgotten = False

        def answer() -> None:
            if origin in self.alive and not forgotten:
                on_answer()

        def forget() -> None:
            nonlocal forgotten
            self.waiting -= not forgotten
            forgotten = True

        loop.call_later(self.round_trip, answer)
        return forget


class Call:
    """The watched client of a test."""

    def __init__(self, liveness: float | None, **paths: Any) -> None:
        self.paths = FakePaths(**paths)
        self.clock = Clock()
        self.consent = Consent(self.paths, self.clock)
        self.end = asyncio.create_task(wait_silent([self.consent], liveness, self.clock))

    async def send(self, origin: str, seconds: float, every: float = 0.02) -> None:
        """Receive the client's packets from a path for some seconds."""
        for _ in range(round(seconds / every)):
            self.consent.hear(origin)
            await asyncio.sleep(every)

    async def wait_end(self) -> tuple[str, float]:
        """Return the reason for the end, and the seconds until then."""
        began = asyncio.get_running_loop().time()
        text = await self.end
        return text, asyncio.get_running_loop().time() - began


def run(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(main())


@pytest.mark.parametrize("liveness", [5.0, 30.0, None])
@pytest.mark.parametrize("round_trip", [0.1, 0.6, 2.0])
def test_late_answers_keep_a_silent_client_alive(liveness: float | None, round_trip: float) -> None:
    async def main() -> None:
        call = Call(liveness, round_trip=round_trip)
        await asyncio.sleep(300)
        assert not call.end.done()
        assert call.paths.waiting < 40  # answers are awaited for 30 s, not for ever
        call.paths.alive.clear()
        text, seconds = await call.wait_end()
        limit = liveness or 30.0
        assert text == f"no packet from the client for {limit:g} s"
        assert limit - 6 - 2 * round_trip < seconds <= limit + 0.5  # the last answer came before
        call.consent.close()
        assert call.paths.waiting == 0

    run(main)


def test_consent_checks_of_a_client_that_sends_are_five_seconds_apart() -> None:
    async def main() -> None:
        call = Call(5.0)
        await call.send("old", 60)
        times = [time for time, _ in call.paths.sent]
        gaps = [after - before for before, after in itertools.pairwise(times)]
        assert all(3.9 < gap < 7.1 for gap in gaps)
        assert len(set(gaps)) > 1  # randomised

    run(main)


def test_packets_are_signs_of_life_without_answers() -> None:
    async def main() -> None:
        call = Call(5.0, alive=set())
        await call.send("old", 60, every=4.0)
        assert not call.end.done()
        _, seconds = await call.wait_end()
        assert seconds == pytest.approx(1.0, abs=0.2)  # 4 s have passed

    run(main)


def test_stall_of_process_does_not_count_as_silence() -> None:
    async def main() -> None:
        call = Call(5.0, alive=set())
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        await asyncio.sleep(4.5)
        loop.stall(20.0)
        await asyncio.sleep(0.05)
        assert not call.end.done()
        call.consent.hear("old")  # it waited in the socket
        await asyncio.sleep(4.5)
        assert not call.end.done()
        await asyncio.wait_for(call.end, 1)

    run(main)


def test_path_of_a_moved_client_is_used_once_the_old_one_is_silent() -> None:
    async def main() -> None:
        call = Call(5.0, round_trip=0.1, alive={"old", "new"})
        await call.send("old", 3)
        call.consent.hear("new")  # packets on another path alone do not cause a move
        await call.send("old", 3)
        assert call.paths.selected == "old"
        assert ("new" in {to for _, to in call.paths.sent}) is False
        call.paths.alive.discard("old")
        await call.send("new", 1.3)
        assert call.paths.selected == "new"
        await call.send("new", 30)
        assert call.paths.selected == "new"
        call.paths.alive = {"old"}
        await call.send("old", 1.3)
        assert call.paths.selected == "old"
        assert not call.end.done()

    run(main)


def test_address_that_answers_no_check_is_never_used() -> None:
    async def main() -> None:
        call = Call(5.0, alive=set())
        await call.send("spoofed", 20)
        assert call.paths.selected == "old"
        checks = [time for time, to in call.paths.sent if to == "spoofed"]
        assert len(checks) < 50  # for a thousand packets

    run(main)


def test_packets_that_are_not_authenticated_cause_few_checks_and_only_in_silence() -> None:
    async def main() -> None:
        call = Call(5.0, alive={"old"})

        async def suspect(seconds: float) -> list[str]:
            before = len(call.paths.sent)
            for number in range(round(seconds / 0.001)):
                if call.consent.misses_packets:
                    call.consent.suspect(f"stranger {number}")
                await asyncio.sleep(0.001)
            return [to for _, to in call.paths.sent[before:] if to != "old"]

        talking = asyncio.create_task(call.send("old", 3))
        assert await suspect(2.9) == []
        await talking
        call.paths.alive.clear()
        assert 20 <= len(await suspect(3.1)) <= 31
        assert call.paths.selected == "old"
        call.paths.alive.add("new")
        call.consent.suspect("new")
        await asyncio.sleep(0.1)
        assert call.paths.selected == "new"

    run(main)


def test_nominated_path_is_used_at_once() -> None:
    async def main() -> None:
        call = Call(5.0, alive={"old", "new"}, nominated={"new"})
        await call.send("old", 1)
        call.consent.hear("new", nominates=True)
        await call.send("old", 0.1)
        assert call.paths.selected == "new"

    run(main)


def test_every_transport_needs_consent() -> None:
    async def main() -> None:
        clock = Clock()
        alive, dead = Consent(FakePaths(), clock), Consent(FakePaths(alive=set()), clock)
        text = await wait_silent([alive, dead], 5.0, clock)
        assert text == "no packet from the client for 30 s on one of its transports"
        assert asyncio.get_running_loop().time() == pytest.approx(30, abs=1)

    run(main)
