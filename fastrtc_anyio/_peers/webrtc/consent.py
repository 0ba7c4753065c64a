"""Signs of life of the client: liveness, consent to send (RFC 7675), and which path is alive.

aioice 0.13 counts the answer of a consent check only if it comes within 0.5 s, and closes the
connection after six that do not. Here each authenticated packet is a sign of life, and an answer
counts for as long as consent lasts.
"""

from __future__ import annotations

import asyncio
import math
import random
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from functools import partial
from typing import Generic, Protocol, TypeVar

CONSENT = 30.0
"""Seconds for which the client's last sign of life permits to send (RFC 7675 5.1)."""
_INTERVAL = 5.0
"""Seconds between two consent checks; randomised (RFC 7675 5.1)."""
_QUIET = 1.0
"""Seconds of silence on the selected path after which another path can replace it."""
_PROBE = 0.1
"""Seconds of silence after which :meth:`Consent.probe` sends a check, and between two of them."""
_STEPS = 5
"""Checks of a silent client within the liveness limit."""
_LATE = 0.1
"""Seconds a timer may be late before the delay counts as a stall of this process."""

O = TypeVar("O", bound=Hashable)  # noqa: E741 - the origin of a packet
P = TypeVar("P", bound=Hashable, contravariant=True)


class Paths(Protocol[O]):
    """Paths to one client, and checks of them."""

    @property
    def selected(self) -> O | None: ...

    def select(self, origin: O) -> None: ...

    def is_nominated(self, origin: O) -> bool: ...

    def send_check(self, origin: O, on_answer: Callable[[], None]) -> Callable[[], None]: ...


class Clock:
    """Time in seconds, without the stalls of this process.

    During a stall packets wait in the socket unread: such time is not silence of the client.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.stalled = 0.0

    def __call__(self) -> float:
        return self._loop.time() - self.stalled

    async def sleep(self, seconds: float) -> bool:
        """Sleep, and return whether the process did not stall meanwhile."""
        due = self._loop.time() + seconds
        await asyncio.sleep(seconds)
        late = self._loop.time() - due
        if late > _LATE:
            self.stalled += late
        return late <= _LATE


class Consent(Generic[O]):
    """Checks the paths of one ICE transport, and selects one that is alive.

    A client whose address changes, by another network or by its NAT, sends from a path that is not
    selected. Once the selected one is silent, the other is checked, and selected if it answers
    (RFC 8445 7.3.1.4; libwebrtc does the same). Nothing is sent to an address that answers none.

    Args:
        paths: the paths of the ICE agent in use.
        clock: the time in seconds.
    """

    def __init__(self, paths: Paths[O], clock: Clock) -> None:
        self._paths = paths
        self._clock = clock
        self.heard = clock()
        """Time of the last authenticated packet."""
        self._selected: O | None = None
        self._selected_heard = self.heard
        self._due = self.heard
        self._suspected = -math.inf
        self._checks: deque[tuple[float, O, Callable[[], None]]] = deque()

    @property
    def heard_on_loop(self) -> float:
        """Time of the last authenticated packet on the loop's clock."""
        return self.heard + self._clock.stalled

    def use(self, paths: Paths[O]) -> None:
        """Check the paths of another ICE agent from now on."""
        self._forget_checks(len(self._checks))
        self._paths = paths

    def hear(self, origin: O | None, *, nominates: bool = False) -> None:
        """Record an authenticated packet: SRTP, SRTCP, a message or a STUN check."""
        now = self.heard = self._clock()
        quiet = self._silence(now) >= _QUIET
        if origin is None or self._selected is None:
            return
        if origin == self._selected:
            self._selected_heard = now
        elif quiet or nominates:
            self._check_once(origin, now)

    @property
    def misses_packets(self) -> bool:
        """Whether the selected path is silent, so that the client may use another."""
        now = self._clock()
        return (
            now - self._suspected >= _PROBE
            and self._silence(now) >= _QUIET
            and self._selected is not None
        )

    def suspect(self, origin: O) -> None:
        """Check a path from which a packet came that is not authenticated.

        Must be called only if :attr:`misses_packets`.
        """
        self._suspected = self._clock()
        self._check_once(origin, self._suspected)

    def probe(self) -> None:
        """Check the selected path now, unless a packet came or a check left a moment ago."""
        now = self._clock()
        silence = self._silence(now)
        checked = self._checks[-1][0] if self._checks else -math.inf
        if self._selected is not None and min(silence, now - checked) >= _PROBE:
            self._check(self._selected)

    def check(self, limit: float) -> None:
        """Check the selected path if it is time, with ``limit`` seconds of silence permitted."""
        now = self._clock()
        expired = [sent for sent, _, _ in self._checks if sent <= now - CONSENT]
        self._forget_checks(len(expired))
        silence = self._silence(now)
        if self._selected is not None and (silence >= limit / _STEPS or now >= self._due):
            self._due = now + _INTERVAL * random.uniform(0.8, 1.2)
            self._check(self._selected)

    def close(self) -> None:
        """Wait for no further answer."""
        self._forget_checks(len(self._checks))

    def _silence(self, now: float) -> float:
        if self._paths.selected != self._selected:  # ICE has nominated another path
            self._selected, self._selected_heard = self._paths.selected, now
        return now - self._selected_heard

    def _check_once(self, origin: O, now: float) -> None:
        """Check a path unless an answer may be under way: not once for each packet."""
        if all(sent < now - _QUIET / 2 or to != origin for sent, to, _ in self._checks):
            self._check(origin)

    def _check(self, origin: O) -> None:
        forget = self._paths.send_check(origin, partial(self._on_answer, self._paths, origin))
        self._checks.append((self._clock(), origin, forget))

    def _on_answer(self, paths: Paths[O], origin: O) -> None:
        now = self.heard = self._clock()
        silence = self._silence(now)
        if origin != self._selected and (silence >= _QUIET or paths.is_nominated(origin)):
            paths.select(origin)
            self._selected = origin
        if origin == self._selected:
            self._selected_heard = now

    def _forget_checks(self, count: int) -> None:
        for _ in range(count):
            self._checks.popleft()[2]()


class Reach(Generic[O]):
    """Whether packets reach the client and come back, for readers on other threads."""

    def __init__(self) -> None:
        self.consents: list[Consent[O]] = []

    def heard(self) -> float:
        """Return the time of the client's last packet, in seconds of the loop; infinite before."""
        return max((consent.heard_on_loop for consent in self.consents), default=math.inf)

    def probe(self) -> None:
        """Ask the client for a packet. Must be called on the loop."""
        for consent in self.consents:
            consent.probe()


async def wait_silent(consents: Sequence[Consent[P]], liveness: float | None, clock: Clock) -> str:
    """Check the client on all its transports until it is silent for too long; return the reason.

    ``liveness`` is the limit in seconds for the client as a whole. Each transport needs consent.
    """
    limit = min(liveness or CONSENT, CONSENT)
    step = min(1.0, limit / _STEPS)
    on_time = True
    for consent in consents:
        consent.hear(None)  # the end of the handshake; the packets before it do not count
    while True:
        now = clock()
        heard = max(consent.heard for consent in consents)
        if on_time and now >= heard + limit:
            return f"no packet from the client for {limit:g} s"
        if on_time and any(now >= consent.heard + CONSENT for consent in consents):
            return f"no packet from the client for {CONSENT:g} s on one of its transports"
        for consent in consents:
            consent.check(limit)
        # After a stall the sockets are read before silence counts again.
        on_time = await clock.sleep(max(_LATE, min(step, heard + limit - now)))
