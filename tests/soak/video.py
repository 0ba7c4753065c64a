"""Video calls over bad networks: ``python -m tests.soak.video asyncio|trio TRIALS [FAULT ...]``.

The client sends pictures with numbers, which the server echoes. It prints a line of JSON for each
fault.
"""

from __future__ import annotations

import math
import statistics
import sys
import time
from dataclasses import dataclass
from functools import partial
from typing import Any

import anyio

from fastrtc_anyio import Session
from tests.kit.aiortc_client import AiortcClient
from tests.kit.calls import make_stream, only_session, place_call
from tests.kit.network import Network, open_network

from .networks import DEAD, Fault, faulty, has_vanished, print_outcome, run_all
from .networks import FAULTS as AUDIO_FAULTS
from .pictures import FPS, NumberedCamera, Watcher

_SETTLED = 2 * FPS
"""Pictures on each side before a fault."""
_FAULT = 4.0
_LONGEST = 15.0
_SMOOTH = 1.5
"""Seconds without a freeze after which a call has recovered."""
_FREEZE = 0.4
"""Seconds without a new whole picture that are a freeze."""
_SETTLING = 0.5
"""Seconds from then on, for which the delay is not read."""
_AT_A_TIME = 3
RECOVERS = 3.0
"""Seconds after the end of a fault in which the picture is whole again, at most."""
LATE = 0.1
"""Additional delay after a fault, in seconds, at which a call has recovered."""

_AUDIO_RATES = ("100 kbit/s", "40 kbit/s", "20 kbit/s")
FAULTS = [
    *[one for one in AUDIO_FAULTS if one.name not in _AUDIO_RATES],
    Fault("1 Mbit/s", {"rate": 1_000_000}),
    Fault("300 kbit/s", {"rate": 300_000}),
]
SHORT = ("loss of 10 %", "dead for 3 s", "300 kbit/s")
"""Faults of a short run."""


@dataclass
class Seen:
    """What one side has seen.

    Attributes:
        fps: new whole pictures in a second, during the fault.
        freeze: longest time between two of them in seconds, from the beginning of the fault.
        whole_after: seconds from its end until they come regularly; None: never.
        delay_after: additional delay in seconds, from then on.
    """

    fps: float
    freeze: float
    whole_after: float | None
    delay_after: float | None


@dataclass
class VideoOutcome:
    """One call.

    Attributes:
        fault: its name.
        ended: the reason, if the call ended by itself.
        ended_after: seconds from the beginning of the fault.
        server: what the handler has seen, of what the client has sent.
        client: what has come back to the client.
    """

    fault: str
    ended: str | None
    ended_after: float | None
    server: Seen
    client: Seen

    @property
    def is_as_promised(self) -> bool:
        """Whether the call has ended if and only if the network stayed dead, or has recovered."""
        if self.fault == DEAD:
            return self.ended == "vanished" and has_vanished(self.ended_after)
        # Not the client: with aiortc's receiver, a picture can stand still for 15 s.
        after = self.server.whole_after
        if self.ended is not None or after is None:
            return False
        return after < RECOVERS and (self.server.delay_after or 0.0) < LATE

    @classmethod
    def load(cls, values: dict[str, Any]) -> VideoOutcome:
        """Make an outcome of its JSON."""
        sides = {side: Seen(**values[side]) for side in ("server", "client")}
        return cls(**{**values, **sides})


def _find_seen(watcher: Watcher, began: float, ended: float) -> Seen:
    """Summarise what came since a fault."""
    usual = statistics.median([delay for at, delay in watcher.whole if at < began][-FPS:])
    times = [at for at, _ in watcher.whole if at >= began]
    gaps = [later - earlier for earlier, later in zip([began, *times], times, strict=False)]
    whole_at = _whole_since(times, ended)
    settled = math.inf if whole_at is None else max(whole_at, ended) + _SETTLING
    after = [delay for at, delay in watcher.whole if at >= settled]
    return Seen(
        sum(at < ended for at in times) / (ended - began),
        max(gaps, default=math.inf),
        None if whole_at is None else max(whole_at - ended, 0.0),
        statistics.median(after) - usual if after else None,
    )


def _whole_since(times: list[float], ended: float) -> float | None:
    """Return the time since which pictures have come without a freeze, if it is long enough."""
    if not times:
        return None
    since = times[-1]
    for at in reversed(times):
        if since - at > _FREEZE:
            break
        since = at
    return since if times[-1] - max(since, ended) > _SMOOTH - _FREEZE else None


class VideoCall:
    """A call that measures."""

    def __init__(
        self, network: Network, client: AiortcClient, session: Session, watchers: list[Watcher]
    ) -> None:
        self.network, self.client, self.session = network, client, session
        self.watchers = watchers
        self._read = 0

    def _look(self) -> None:
        """Read the pictures that the client has received."""
        new = self.client.seen[self._read :]
        self._read += len(new)
        for picture in new:
            self.watchers[1].see(picture.to_ndarray(format="gray"), time.monotonic())

    async def _wait(self, seconds: float, ended: float = math.inf) -> None:
        """Wait, or until the call has ended, or pictures are whole on both sides."""
        end = time.monotonic() + seconds
        while time.monotonic() < end and self.session.closed is None:
            await anyio.sleep(0.01)
            self._look()
            if all(_is_smooth(one, ended) for one in self.watchers):
                break

    async def measure(self, fault: Fault) -> VideoOutcome:
        with anyio.fail_after(_LONGEST):
            while any(len(one.whole) < _SETTLED for one in self.watchers):
                await self._wait(0.1)
        began = time.monotonic()
        with faulty(self.network, fault):
            await self._wait(min(fault.seconds, _LONGEST))
        ended = time.monotonic()
        await self._wait(_LONGEST, ended)
        closed = self.session.closed
        return VideoOutcome(
            fault.name,
            None if closed is None else closed.reason.value,
            None if closed is None else ended - began,
            *[_find_seen(one, began, ended) for one in self.watchers],
        )


def _is_smooth(watcher: Watcher, ended: float) -> bool:
    return _whole_since([at for at, _ in watcher.whole if at >= ended], ended) is not None


async def place(fault: Fault, seed: int, codec: str | None = None) -> VideoOutcome:
    """Call over a network with this fault."""
    camera: Any = NumberedCamera()
    watchers = [Watcher(camera), Watcher(camera)]

    async def echo(session: Session) -> None:
        async for picture in session.video_in:
            watchers[0].see(picture.to_ndarray("gray"), time.monotonic())
            await session.video_out.send(picture)

    with open_network(delay=0.02, seed=seed) as network:
        async with (
            make_stream(echo, modality="video", verbose=False) as stream,
            place_call(
                stream,
                network=network,
                camera=camera,
                audio=False,
                video="sendrecv",
                video_codec=codec,
            ) as client,
        ):
            return await VideoCall(network, client, only_session(stream), watchers).measure(fault)


if __name__ == "__main__":
    chosen = [one for one in FAULTS if one.name in (sys.argv[3:] or [one.name])]
    main = partial(run_all, chosen, place, _AT_A_TIME, int(sys.argv[2]), print_outcome)
    anyio.run(main, backend=sys.argv[1])
