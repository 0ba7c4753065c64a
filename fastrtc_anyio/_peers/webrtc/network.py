"""Local addresses and UDP ports of a connection, and the time to gather its candidates."""

from __future__ import annotations

import asyncio
import errno
import secrets
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import partial
from typing import Any, cast

import ifaddr
from aioice.candidate import Candidate
from aiortc.rtcconfiguration import (
    RTCBundlePolicy,
    RTCConfiguration,
    RTCIceServer,
    RTCIceTransportPolicy,
)
from aiortc.rtcdtlstransport import RTCDtlsTransport

from fastrtc_anyio._core.log import logger
from fastrtc_anyio._overload import as_overloaded
from fastrtc_anyio._signaling.ice import RtcConfiguration
from fastrtc_anyio.errors import FastRTCError, NoFreePort, PeerFailed

from . import fast_internals, internals, sockets
from .socket_internals import IceSockets


@dataclass
class _Sockets:
    """The ports one connection may use, and the errors of sockets that could not be opened."""

    ports: tuple[int, int] | None
    guarded: IceSockets
    errors: list[OSError] = field(default_factory=list)


_sockets: ContextVar[_Sockets | None] = ContextVar("sockets", default=None)
"""The sockets of the connection that gathers candidates in this context."""


def local_addresses() -> tuple[str, ...]:
    """Return the IP addresses of this machine that ICE uses by default: all except loopback."""
    return tuple(internals.list_host_addresses())


def convert_configuration(configuration: RtcConfiguration) -> RTCConfiguration:
    """Return the configuration as aiortc takes it. :func:`choose_addresses` applies the rest."""
    return RTCConfiguration(
        iceServers=[
            RTCIceServer(list(server.urls), server.username, server.credential)
            for server in configuration.ice_servers
        ],
        iceTransportPolicy=RTCIceTransportPolicy(configuration.ice_transport_policy),
        # By default a second section of a kind shares the transport of the first, and keeps it
        # when BUNDLE replaces that one.
        bundlePolicy=RTCBundlePolicy.MAX_COMPAT,
    )


def choose_addresses(
    transport: RTCDtlsTransport, configuration: RtcConfiguration, guarded: IceSockets
) -> None:
    """Gather candidates on the configured addresses and ports, within the configured time.

    ``guarded`` guards the sockets as soon as they are open.
    """

    async def gather(collect: internals.Gatherer, addresses: list[str]) -> list[Candidate]:
        if configuration.ice_transport_policy == "all":
            addresses = list(_local(configuration) or addresses or ("127.0.0.1",))
        internals.replace_socket_opening(asyncio.get_running_loop(), _open_socket, _on_failure)
        sockets = _Sockets(configuration.ports, guarded)
        token = _sockets.set(sockets)
        try:
            found = await collect(addresses, configuration.gather_timeout)
        finally:
            _sockets.reset(token)
        if not found:
            raise _explain(configuration, addresses, sockets.errors)
        guarded.watch_all()  # the relays, too
        return found

    internals.replace_gathering(transport, gather)


def _local(configuration: RtcConfiguration) -> tuple[str, ...]:
    if configuration.interfaces is None:
        return configuration.addresses or ()
    adapters = {adapter.nice_name: adapter for adapter in ifaddr.get_adapters()}
    missing = set(configuration.interfaces) - set(adapters)
    if missing:
        names = ", ".join(sorted(missing))
        raise PeerFailed(f"interfaces must be names of network interfaces; got {names}")
    found: list[str] = []
    for ip in (ip for name in configuration.interfaces for ip in adapters[name].ips):
        if isinstance(ip.ip, str):
            found.append(ip.ip)
        elif not ip.ip[2]:  # link-local addresses need a scope id, which aioice does not support
            found.append(ip.ip[0])
    return tuple(found)


def _explain(
    configuration: RtcConfiguration, addresses: list[str], errors: list[OSError]
) -> FastRTCError:
    refusals = (as_overloaded(error) for error in errors)
    if (refusal := next(filter(None, refusals), None)) is not None:
        return refusal
    if configuration.ice_transport_policy == "relay":
        limit = configuration.gather_timeout
        return PeerFailed(
            f"no relayed candidate: the TURN server refused (check the credentials), or did not "
            f"answer within {limit:g} s"
        )
    hosts = ", ".join(addresses)
    if all(exc.errno != errno.EADDRINUSE for exc in errors):
        why = "; ".join(sorted({str(exc) for exc in errors}))
        return PeerFailed(f"could not open a UDP socket on {hosts}: {why}")
    if configuration.ports is None:
        error = NoFreePort(f"no free UDP port on {hosts}")
    else:
        first, last = configuration.ports
        error = NoFreePort(
            f"no free UDP port from {first} to {last} on {hosts}: each connection needs one of the "
            "ports in server_rtc_configuration"
        )
    logger.warning("rejected a connection: %s", error, event="webrtc.no_socket")
    return error


async def _open_socket(
    create: internals.OpenEndpoint, factory: internals.ProtocolFactory, host: str
) -> internals.Endpoint:
    """Open a socket on a free port of the range, and record the error if that fails.

    The socket of a caller that does not gather candidates is opened as requested.
    """
    chosen = _sockets.get()
    if chosen is None:
        return await create(factory, (host, 0))
    guarded = partial(_make_guarded, factory, chosen.guarded)
    loop = asyncio.get_running_loop()
    shares_reading = fast_internals.is_usable() and sockets.can_open(loop)
    first, last = chosen.ports or (0, 0)
    size = last - first + 1
    start = secrets.randbelow(size)  # calls that start together should not race for one port
    for i in range(size):
        address = host, first + (start + i) % size
        try:
            if shares_reading:
                return sockets.open_socket(loop, guarded, address)
            return await create(guarded, address)
        except OSError as exc:
            if exc.errno != errno.EADDRINUSE:
                chosen.errors.append(exc)
                raise
    error = OSError(errno.EADDRINUSE, f"all ports from {first} to {last} are in use")
    chosen.errors.append(error)
    raise error


def _make_guarded(
    factory: internals.ProtocolFactory, guarded: IceSockets
) -> asyncio.DatagramProtocol:
    protocol: Any = factory()
    guarded.watch(protocol)
    return cast(asyncio.DatagramProtocol, protocol)


def _on_failure(error: Exception) -> None:
    logger.debug("dropped a datagram of TURN or mDNS: %r", error, event="datagram.dropped")
