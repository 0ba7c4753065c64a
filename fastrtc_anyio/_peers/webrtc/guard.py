"""Admission of datagrams to the sockets of a call, before aioice and aiortc see them.

A socket receives from any host. A datagram passes if its size and its first byte are those of a
peer (RFC 7983), and

* media and DTLS only from an origin that an authentic check of this call has established,
* checks only if they are authentic, of which a limited number is authenticated,
* answers only to checks of this side.

Nothing is sent in return for any other datagram. An origin stays established until ICE uses a path
of another generation, or until it is the longest silent one of too many.

A stranger who knows the address and port of the client and forges them as its own passes as the
client: then DTLS and SRTP authenticate the contents, except for the plaintext of the handshake.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import replace
from typing import Any, Generic, TypeAlias, TypeVar

from fastrtc_anyio._core.budget import Budget
from fastrtc_anyio._core.log import logger
from fastrtc_anyio._signaling.address_policy import AddressPolicy, is_loopback

from .consent import CONSENT

_SHORTEST = 12
"""Bytes of an RTP header, the shortest of all. RTCP has 8, but 22 with SRTCP's authentication."""
_LONGEST = 1500
"""Bytes that pylibsrtp 1.0 decrypts, and that a path carries in one piece."""
_STUN, _DATA = 1, 2
_KINDS = bytes(
    _STUN if first < 4 else _DATA if 20 <= first < 64 or 128 <= first < 192 else 0
    for first in range(256)
)
"""Kind of a datagram by its first byte (RFC 7983 7). ZRTP is not used. TURN's channels are read by
the sockets of TURN, which pass on the contents."""

_APPLICATION_DATA = 23
_RECORD_HEADER = 13
"""Bytes before the contents of a DTLS record (RFC 6347 4.1)."""

_CHECKS = 100
"""Checks of a call authenticated in a second, and in a burst. A browser sends 20 to 50."""
_RESERVED = 25
"""Checks of a burst for origins already established, and for answers."""
_UNANSWERED = 16
"""Checks to a host that has answered none, before they become rare."""
_RARE = 2.0
"""Seconds between two of them from then on."""
_HOSTS = 100
"""Hosts checked in a minute that have answered no check: one client has no more candidates."""
_MINUTE = 60.0
_LEARNED = 4
"""Addresses that a client may have besides its candidates, though it has sent the maximum."""

Address: TypeAlias = tuple[str, int]
S = TypeVar("S")


class CheckBudget:
    """Bounds the checks that are authenticated: each costs some 100 microseconds.

    Args:
        clock: the time in seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._budget = Budget(_CHECKS)

    def take(self, *, established: bool) -> bool:
        """Return whether to authenticate one more check, and count it."""
        return self._budget.take(self._clock(), reserve=0 if established else _RESERVED)


class Destinations:
    """Hosts to which a call may send, and how many checks.

    Args:
        policy: hosts to use.
        clock: the time in seconds.
    """

    def __init__(self, policy: AddressPolicy, clock: Callable[[], float]) -> None:
        self._policy = policy
        self._sources = replace(policy, loopback=True)
        self._clock = clock
        self._answered: set[str] = set()
        self._checks: dict[str, tuple[int, float]] = {}

    def add_local(self, host: str) -> None:
        """Permit destinations on loopback if a local candidate is there."""
        if is_loopback(host):
            self._policy = replace(self._policy, loopback=True)

    def permits(self, address: Address) -> bool:
        """Return whether to send to an address, and log it if not."""
        if self._policy.permits(*address):
            return True
        logger.info(
            "ignored an address of a client: the AddressPolicy does not permit it",
            event="address.ignored",
        )
        logger.debug("the ignored address is %s, port %d", *address, event="address.ignored")
        return False

    def accepts(self, origin: Address) -> bool:
        """Return whether to authenticate a check from an address."""
        return self._sources.permits(*origin)

    def permits_names(self) -> bool:
        """Return whether to resolve mDNS names, and log it if not."""
        if not self._policy.mdns:
            logger.info(
                "ignored a candidate of a client: AddressPolicy.mdns is False",
                event="candidate.ignored",
            )
        return self._policy.mdns

    def mark_authentic(self, origin: Address) -> None:
        """Note that an authentic check or answer has come from an address."""
        self._answered.add(_network_of(origin[0]))
        self.add_local(origin[0])

    def may_check(self, address: Address) -> bool:
        """Return whether to send a check to an address now, and count it.

        A client that names a host which is not its own makes this side send to it.
        """
        host = _network_of(address[0])
        if host in self._answered:
            return True
        now = self._clock()
        count, last = self._checks.get(host, (0, now))
        if count >= _UNANSWERED and now < last + _RARE:
            return False
        if count == 0 and len(self._checks) >= _HOSTS:
            recent = {one: sent for one, sent in self._checks.items() if sent[1] > now - _MINUTE}
            self._checks = recent
            if len(recent) >= _HOSTS:
                return False
        self._checks[host] = (count + 1, now)
        return True


def _network_of(host: str) -> str:
    """Return what counts as one host: an IPv4 address, or the /64 of an IPv6 address."""
    if ":" not in host:
        return host
    head, _, tail = host.partition("::")
    groups = head.split(":") if head else []
    rest = tail.split(":") if tail else []
    groups += ["0"] * (8 - len(groups) - len(rest)) + rest
    return ":".join(groups[:4])


class Admission:
    """Limits of one call, which its transports share.

    Args:
        clock: the time in seconds.
        policy: addresses to use.
        candidates: maximum candidates of the client on each transport, named or learned.
    """

    def __init__(self, clock: Callable[[], float], policy: AddressPolicy, candidates: int) -> None:
        self.checks = CheckBudget(clock)
        self.destinations = Destinations(policy, clock)
        self.candidates = candidates


def _is_read_at_once(data: bytes) -> bool:
    """Return whether a datagram of DTLS has at most one record of application data, and that alone.

    aiortc 1.16 reads one such record for each datagram. Further ones would pile up in OpenSSL's
    memory, without a limit. Peers send each in a separate datagram.
    """
    position = 0
    while position + _RECORD_HEADER <= len(data):
        end = position + _RECORD_HEADER + int.from_bytes(data[position + 11 : position + 13])
        if data[position] == _APPLICATION_DATA:
            return position == 0 and end == len(data)
        position = end
    return True


class Guard(Generic[S]):
    """Decides about the datagrams on the sockets of one ICE transport.

    Args:
        clock: the time in seconds.
        admission: the limits of the call.
    """

    def __init__(self, clock: Callable[[], float], admission: Admission) -> None:
        self._clock = clock
        self.checks = admission.checks
        self.destinations = admission.destinations
        self._limit = admission.candidates
        self._entries: dict[S, dict[Address, tuple[S, Address]]] = {}
        self._heard: dict[tuple[S, Address], float] = {}

    def make_filter(
        self,
        socket: S,
        on_data: Callable[[bytes, tuple[S, Address]], None],
        on_stun: Callable[[bytes, Address], None],
        on_stranger: Callable[[tuple[S, Address]], None],
    ) -> Callable[[bytes, Any], None]:
        """Return the function that receives the datagrams of a socket.

        Args:
            on_data: called with media or DTLS and its established origin.
            on_stun: called with what may be STUN.
            on_stranger: called with the origin of media or DTLS that was dropped.
        """
        entries = self._entries.setdefault(socket, {})

        def receive(data: bytes, address: Any) -> None:
            if not _SHORTEST <= len(data) <= _LONGEST:
                return
            kind = _KINDS[data[0]]
            if kind == _DATA:
                if data[0] < 64 and not _is_read_at_once(data):
                    return
                origin = entries.get(address) or entries.get(address[:2])  # IPv6 has four items
                if origin is not None:
                    on_data(data, origin)
                else:
                    on_stranger((socket, address[:2]))
            elif kind == _STUN:
                on_stun(data, address[:2])

        return receive

    def is_established(self, origin: tuple[S, Address]) -> bool:
        """Return whether an authentic check or answer has come from an origin."""
        return origin in self._heard

    def establish(
        self,
        origin: tuple[S, Address],
        named: Collection[Address],
        selected: tuple[S, Address] | None,
    ) -> list[tuple[S, Address]] | None:
        """Admit data from an origin of which an authentic check or answer has come.

        ``named`` are the addresses of the client's candidates. Returns the origins that were
        forgotten in return: those not named, long silent and not ``selected``. Returns None if the
        client has too many addresses.
        """
        forgotten: list[tuple[S, Address]] = []
        now = self._clock()
        if origin not in self._heard and origin[1] not in named:
            learned = [one for one in self._heard if one[1] not in named]
            if len(learned) >= max(self._limit - len(named), _LEARNED):
                before = now - CONSENT
                forgotten = [
                    one for one in learned if self._heard[one] < before and one != selected
                ]
                if not forgotten:
                    return None
                for one in forgotten:
                    self.forget(one)
        self._heard[origin] = now
        socket, address = origin
        self._entries.setdefault(socket, {})[address] = origin
        self.destinations.mark_authentic(address)
        return forgotten

    def hear(self, origin: tuple[S, Address]) -> None:
        """Note an authenticated packet of an established origin."""
        if origin in self._heard:
            self._heard[origin] = self._clock()

    def forget(self, origin: tuple[S, Address]) -> None:
        """Drop data from an origin from now on."""
        self._heard.pop(origin, None)
        self._entries.get(origin[0], {}).pop(origin[1], None)

    def retain(self, keep: Callable[[tuple[S, Address]], bool]) -> None:
        """Forget the origins for which ``keep`` returns False."""
        for origin in [one for one in self._heard if not keep(one)]:
            self.forget(origin)
