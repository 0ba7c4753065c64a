"""Calls over bad networks: ``python -m tests.soak.networks asyncio|trio TRIALS``.

Each call lasts some seconds, in the middle of which its network has one fault. It prints a line of
JSON for each fault.
"""

from __future__ import annotations

import json
import math
import statistics
import sys
import time
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, Protocol, TypeVar

import anyio

from fastrtc_anyio import Session
from fastrtc_anyio.abc import AudioInStatistics
from tests.kit.aiortc_client import AiortcClient
from tests.kit.calls import make_stream, only_session, place_call
from tests.kit.network import Network, open_network

from .control import on_packets
from .ladder import FRAME, Ladder, Listener, make_payloads

_SETTLES = 1.5
_FAULT = 4.0
_AFTER = 2.0
_LONGEST = 15.0
"""Seconds to wait for the end of a call on a network that stays dead."""
_AT_A_TIME = 6
_ATTEMPTS = 3
"""Attempts of a call until one is as promised. A busy machine spoils one, a defect each."""
RECOVERED = 0.06
"""Additional delay after a fault, in seconds, at which a call has recovered: three frames."""
_BACK = 0.8
"""Fraction of the echo's packets after a fault, at least. A delay of 1 s makes one of 2 s late."""
_VANISHES = (4.9, 7.0)
"""Seconds after which a call ends on a network that stays dead: ``Limits.liveness`` since the last
packet, which may have come a frame before."""


def has_vanished(after: float | None) -> bool:
    """Return whether a call has ended in time on a network that stays dead."""
    return after is not None and _VANISHES[0] <= after <= _VANISHES[1]


@dataclass(frozen=True)
class Fault:
    """A fault of both directions of a network.

    Attributes:
        name: its name in the table.
        changes: attributes of the network while it lasts.
        seconds: duration; infinite if it does not end.
        rebinds: whether the NAT gets new ports at its beginning.
    """

    name: str
    changes: dict[str, Any]
    seconds: float = _FAULT
    rebinds: bool = False


DEAD = "dead for good"
FAULTS = [
    Fault("none", {}),
    *[Fault(f"loss of {percent} %", {"loss": percent / 100}) for percent in (1, 5, 10, 20, 30)],
    Fault("loss of 5 % in bursts of 3", {"loss": 0.05, "burst": 3}),
    Fault("loss of 10 % in bursts of 10", {"loss": 0.1, "burst": 10}),
    Fault("jitter of 100 ms", {"jitter": 0.1}),
    Fault("jitter of 300 ms", {"jitter": 0.3}),
    Fault("delay of 300 ms", {"delay": 0.3}),
    Fault("20 % arrive twice", {"duplicates": 0.2}),
    Fault("10 % arrive 50 ms later", {"detours": 0.1}),
    Fault("100 kbit/s", {"rate": 100_000}),
    Fault("40 kbit/s", {"rate": 40_000}),
    Fault("20 kbit/s", {"rate": 20_000}),
    Fault("dead for 1 s", {"outage": True}, 1.0),
    Fault("dead for 3 s", {"outage": True}, 3.0),
    Fault("dead to the server for 3 s", {"outage_up": True}, 3.0),
    Fault("the NAT uses new ports", {}, rebinds=True),
    Fault(DEAD, {"outage": True}, math.inf),
]


@contextmanager
def faulty(network: Network, fault: Fault) -> Generator[None, None, None]:
    """Give a network a fault."""
    for name, value in fault.changes.items():
        setattr(network, name, value)
    if fault.rebinds:
        network.rebind()
    yield
    for name, value in fault.changes.items():
        setattr(network, name, type(value)())


class Promised(Protocol):
    """The outcome of a call."""

    @property
    def is_as_promised(self) -> bool: ...


Kept = TypeVar("Kept", bound=Promised)


@dataclass
class Outcome:
    """One call.

    Attributes:
        fault: its name.
        ended: the reason, if the call ended by itself.
        ended_after: seconds from the beginning of the fault.
        recovered: fraction of the time of the fault that FEC recovered.
        concealed: fraction that was concealed.
        silent: fraction that was silence.
        delay: median of the additional delay to the handler in seconds, during the fault.
        delay_most: its 95th percentile.
        delay_after: its median after the fault.
        back: fraction of the packets of the echo that reached the client.
        back_after: the same after the fault.
    """

    fault: str
    ended: str | None
    ended_after: float | None
    recovered: float
    concealed: float
    silent: float
    delay: float | None
    delay_most: float | None
    delay_after: float | None
    back: float
    back_after: float

    @property
    def is_as_promised(self) -> bool:
        """Whether the call has ended if and only if the network stayed dead, or has recovered."""
        if self.fault == DEAD:
            return self.ended == "vanished" and has_vanished(self.ended_after)
        if self.ended is not None or self.delay_after is None:
            return False
        return self.delay_after < RECOVERED and self.back_after > _BACK


class Call:
    """A call that measures."""

    def __init__(
        self, network: Network, client: AiortcClient, session: Session, listener: Listener
    ) -> None:
        self.network, self.client, self.session = network, client, session
        self.listener = listener
        self.numbers: set[int] = set()
        on_packets(client, lambda packet: self.numbers.add(packet.sequence_number))

    def audio(self) -> AudioInStatistics:
        found = self.session.statistics().audio_in
        assert found is not None
        return found

    def delays(self, begin: float, end: float) -> list[float]:
        return [delay for at, delay in self.listener.delays if begin <= at < end]

    async def count_echo(self, seconds: float) -> float:
        """Return the fraction of the packets that arrive in some time."""
        self.numbers.clear()
        await self._wait(seconds)
        return len(self.numbers) / (seconds / FRAME)

    async def _wait(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end and self.session.closed is None:
            await anyio.sleep(min(0.02, max(end - time.monotonic(), 0)))

    async def measure(self, fault: Fault) -> Outcome:
        await self._wait(_SETTLES)
        before = self.audio()
        began = time.monotonic()
        usual = statistics.median(self.delays(began - 1.0, began))
        with faulty(self.network, fault):
            back = await self.count_echo(min(fault.seconds, _LONGEST))
        ended_at = time.monotonic()
        await self._wait(_AFTER / 2)
        # The gap of an outage is known when it is over.
        during, settled = self.audio(), time.monotonic()
        back_after = await self.count_echo(_AFTER / 2)
        delays = sorted(self.delays(began, ended_at))
        after = self.delays(settled, math.inf)
        closed = self.session.closed

        def share(name: str) -> float:
            return float(getattr(during, name) - getattr(before, name)) / (ended_at - began)

        return Outcome(
            fault.name,
            None if closed is None else closed.reason.value,
            None if closed is None else ended_at - began,
            share("recovered_seconds"),
            share("concealed_seconds"),
            share("silence_seconds"),
            statistics.median(delays) - usual if delays else None,
            delays[int(len(delays) * 0.95)] - usual if delays else None,
            statistics.median(after) - usual if after else None,
            back,
            back_after,
        )


async def place(payloads: list[bytes], fault: Fault, seed: int) -> Outcome:
    """Call over a network with this fault."""
    ladder = Ladder(payloads)
    listener = Listener(ladder)

    async def echo(session: Session) -> None:
        async for frame in session.audio_in:
            listener.hear(frame.samples[0], time.monotonic())
            await session.audio_out.send(frame)

    microphone: Any = ladder
    with open_network(delay=0.02, seed=seed) as network:
        async with (
            make_stream(echo, verbose=False) as stream,
            place_call(stream, network=network, microphone=microphone) as client,
        ):
            return await Call(network, client, only_session(stream), listener).measure(fault)


async def run_all(
    faults: list[Fault],
    place: Callable[[Fault, int], Awaitable[Kept]],
    at_a_time: int,
    trials: int,
    report: Callable[[Kept], None],
) -> None:
    """Call over each network, by ``place`` with the fault and the seed of the network."""
    limiter = anyio.Semaphore(at_a_time)

    async def run(fault: Fault, seed: int) -> None:
        for _ in range(_ATTEMPTS):
            async with limiter:
                outcome = await place(fault, seed)
            report(outcome)
            if outcome.is_as_promised:
                return

    async with anyio.create_task_group() as tasks:
        for trial in range(trials):
            for fault in faults:
                tasks.start_soon(run, fault, trial)


def print_outcome(outcome: Any) -> None:
    print(json.dumps(asdict(outcome)), flush=True)


if __name__ == "__main__":
    audio = partial(place, make_payloads())
    main = partial(run_all, FAULTS, audio, _AT_A_TIME, int(sys.argv[2]), print_outcome)
    anyio.run(main, backend=sys.argv[1])
