"""Identify clients, and limit the number of their requests.

A client is the address that a connection comes from, or the value of ``client_key``. Behind a
proxy, all clients would have the address of the proxy, so forwarded addresses are read, but only if
a trusted proxy has written them: others can be forged.
"""

from __future__ import annotations

import re
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import TYPE_CHECKING

from anyio.lowlevel import checkpoint

from fastrtc_anyio._core.log import logger
from fastrtc_anyio._core.options import short_repr
from fastrtc_anyio._user_code import call_user_function
from fastrtc_anyio.errors import HandlerContractError, LimitExceeded
from fastrtc_anyio.limits import RequestLimits

if TYPE_CHECKING:  # so that a `Stream` can be made without Starlette
    from starlette.requests import HTTPConnection

__all__ = [
    "ClientKey",
    "Fairness",
    "RequestRates",
    "TrustedProxies",
    "client_address",
]

ClientKey = Callable[["HTTPConnection"], str | Awaitable[str]]
Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network
TrustedProxies = Iterable[str | Network]

_WINDOW = 60.0
"""Seconds in which ``RequestLimits.client_requests`` are counted."""
_MAX_CLIENTS = 10_000
"""Clients whose requests are counted. A further client replaces the one that was silent longest."""
_MAX_KEY_LENGTH = 256
_MAX_HOPS = 32
"""Forwarded addresses that are read, from the nearest proxy."""
_SITE_BITS = 64
"""Prefix of an IPv6 address that names the client, which owns all addresses below it."""
_FORWARDED_FOR = re.compile(r'(?:^|[;,])\s*for\s*=\s*("(?:[^"\\]|\\.)*"|[^;,\s]*)', re.IGNORECASE)


class RequestRates:
    """Counts the requests of each client, in bounded memory."""

    def __init__(self, per_minute: int) -> None:
        self._limit = per_minute
        self._interval = _WINDOW / per_minute
        # The time at which a client's budget is full again: each request moves it by an interval.
        self._full_at: OrderedDict[str, float] = OrderedDict()

    def __len__(self) -> int:
        return len(self._full_at)

    def count(self, client: str, now: float) -> None:
        """Count one request. ``now`` is in seconds.

        Raises:
            LimitExceeded: the client has sent too many in the last minute. This one is not counted.
        """
        full_at = max(self._full_at.pop(client, now), now) + self._interval
        wait = full_at - now - _WINDOW
        if wait > 1e-6:
            self._full_at[client] = full_at - self._interval
            text = (
                f"a client may send {self._limit} requests in a minute "
                "(RequestLimits.client_requests)"
            )
            raise LimitExceeded(text, 429, retry_after=wait)
        self._full_at[client] = full_at
        if len(self._full_at) > _MAX_CLIENTS:
            self._full_at.popitem(last=False)


class Fairness:
    """Names the client of each connection, and limits its requests.

    Args:
        limits: the number of requests.
        trusted_proxies: networks of the proxies whose forwarded addresses are used.
        client_key: names clients instead of their addresses.

    Raises:
        TypeError, ValueError: an argument is unsuitable.
    """

    def __init__(
        self,
        limits: RequestLimits,
        trusted_proxies: TrustedProxies = (),
        client_key: ClientKey | None = None,
    ) -> None:
        if client_key is not None and not callable(client_key):
            raise TypeError(f"client_key must be a function; got {short_repr(client_key)}")
        self.trusted_proxies: tuple[Network, ...] = _parse_networks(trusted_proxies)
        self.client_key = client_key
        self._rates = RequestRates(limits.client_requests)
        self._has_advised = False

    async def count(self, connection: HTTPConnection) -> str | None:
        """Count a request or WebSocket handshake, and return its client.

        None is a client without an address, which has no limits.

        Raises:
            LimitExceeded: the client has sent too many requests.
            HandlerContractError: ``client_key`` did not return a string.
            Any exception that ``client_key`` raises.
        """
        client = await self._name(connection)
        if client is not None:
            try:
                self._rates.count(client, time.monotonic())
            except LimitExceeded:
                self._advise(connection)
                raise
        return client

    async def _name(self, connection: HTTPConnection) -> str | None:
        if self.client_key is None:
            await checkpoint()
            return client_address(connection, self.trusted_proxies)
        key: object = await call_user_function(self.client_key, connection)
        if not isinstance(key, str) or not 0 < len(key) <= _MAX_KEY_LENGTH:
            raise HandlerContractError(
                f"client_key must return a string of 1 to {_MAX_KEY_LENGTH} characters; "
                f"got {short_repr(key)}"
            )
        return key

    def _advise(self, connection: HTTPConnection) -> None:
        """Log once that a proxy's clients are being counted as one."""
        forwarded = {"x-forwarded-for", "forwarded"} & set(connection.headers)
        if forwarded and self.client_key is None and not self._has_advised:
            self._has_advised = True
            logger.warning(
                "requests that a proxy forwards are counted as those of one client: name the "
                "proxy in Stream(trusted_proxies=[...])",
                event="client.behind_proxy",
            )


def client_address(connection: HTTPConnection, trusted: Iterable[Network]) -> str | None:
    """Return the address of a client, or its prefix for IPv6; None without an address.

    If a trusted proxy has sent the request, the address is the rightmost one in ``X-Forwarded-For``
    (or ``Forwarded``, RFC 7239) that is not a trusted proxy's.
    """
    given = connection.client
    if given is None:
        return None
    address = _parse_address(given.host)
    if address is None:  # a Unix socket, or a name that the server has made up
        return given.host or None
    for hop in _forwarded(connection):
        if not any(address in network for network in trusted):
            break
        before = _parse_address(hop)
        if before is None:  # "unknown", or an obfuscated name: the proxy is all that is known
            break
        address = before
    return _client_of(address)


def _forwarded(connection: HTTPConnection) -> list[str]:
    """Return the addresses that proxies have written, that of the nearest proxy's client first."""
    headers = connection.headers
    joined = ",".join(headers.getlist("x-forwarded-for"))
    if joined:
        hops = joined.rsplit(",", _MAX_HOPS)
    else:
        hops = _FORWARDED_FOR.findall(",".join(headers.getlist("forwarded")))
    return hops[: -_MAX_HOPS - 1 : -1]


def _parse_address(text: str) -> Address | None:
    """Parse an address with or without a port, quotes, brackets and a zone."""
    text = text.strip().strip('"')
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address


def _client_of(address: Address) -> str:
    if isinstance(address, IPv4Address):
        return str(address)
    return str(IPv6Network((address, _SITE_BITS), strict=False))


def _parse_networks(networks: TrustedProxies) -> tuple[Network, ...]:
    if isinstance(networks, str):
        raise TypeError(f"trusted_proxies must be a list of networks; got {networks!r}")
    try:
        return tuple(ip_network(network, strict=False) for network in networks)
    except ValueError as exc:
        raise ValueError(
            f'trusted_proxies must hold networks like "10.0.0.0/8" or addresses: {exc}'
        ) from None
