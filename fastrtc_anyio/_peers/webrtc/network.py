"""What we need of ICE and DTLS that aiortc and aioice have no setting for."""

from __future__ import annotations

import asyncio
import errno
import logging
import secrets
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import ifaddr
from aioice.ice import get_host_addresses
from aiortc import RTCPeerConnection
from aiortc.rtcdtlstransport import RTCDtlsTransport

from fastrtc_anyio._signaling.ice import RtcConfiguration
from fastrtc_anyio.errors import NoFreePort, PeerFailed

__all__ = [
    "Heartbeat",
    "accept_rsa",
    "choose_addresses",
    "local_addresses",
    "stop_consent",
]

_LATE = 0.1
"""Seconds by which a timer may be late without anything being the matter."""

_CIPHERS = b":".join(
    b"ECDHE-" + key + b"-" + cipher
    for cipher in (b"AES128-GCM-SHA256", b"CHACHA20-POLY1305", b"AES128-SHA", b"AES256-SHA")
    for key in (b"ECDSA", b"RSA")
)
"""aiortc's, and as many for RSA."""

logger = logging.getLogger("fastrtc_anyio")


@dataclass
class _Sockets:
    """What a connection needs to know to open its sockets, and why it could not open some."""

    ports: tuple[int, int] | None
    errors: list[OSError] = field(default_factory=list)


_sockets: ContextVar[_Sockets | None] = ContextVar("sockets", default=None)
"""Those of the connection that is being made in this context."""


def local_addresses() -> tuple[str, ...]:
    """The IP addresses of this machine that ICE takes by default: all but loopback."""
    return tuple(get_host_addresses(use_ipv4=True, use_ipv6=True))


def choose_addresses(transport: RTCDtlsTransport, configuration: RtcConfiguration) -> None:
    """Take connections where the configuration says, and wait no longer for servers than it says.

    aioice takes every address but loopback's on any port and waits 5 s, and has a setting for none
    of it (checked in 0.13). One method of one object knows all.
    """
    connection: Any = transport.transport._connection
    gather = connection.get_component_candidates

    async def get_component_candidates(
        component: int, addresses: list[str], timeout: float = 0
    ) -> Any:
        if configuration.ice_transport_policy == "all":
            addresses = list(_local(configuration) or addresses or ("127.0.0.1",))
        _allow_ports_of_choice(asyncio.get_running_loop())
        sockets = _Sockets(configuration.ports)
        token = _sockets.set(sockets)
        try:
            found = await gather(component, addresses, configuration.gather_timeout)
        finally:
            _sockets.reset(token)
        if not found:
            raise _explain(configuration, addresses, sockets.errors)
        return found

    connection.get_component_candidates = get_component_candidates


def _local(configuration: RtcConfiguration) -> tuple[str, ...]:
    if configuration.interfaces is None:
        return configuration.addresses or ()
    adapters = {adapter.nice_name: adapter for adapter in ifaddr.get_adapters()}
    missing = set(configuration.interfaces) - set(adapters)
    if missing:
        raise PeerFailed(f"there is no network interface {', '.join(sorted(missing))}")
    found: list[str] = []
    for ip in (ip for name in configuration.interfaces for ip in adapters[name].ips):
        if isinstance(ip.ip, str):
            found.append(ip.ip)
        elif not ip.ip[2]:  # aioice has no notion of a scope, which link-local addresses need
            found.append(ip.ip[0])
    return tuple(found)


def _explain(
    configuration: RtcConfiguration, addresses: list[str], errors: list[OSError]
) -> PeerFailed:
    if configuration.ice_transport_policy == "relay":
        limit = configuration.gather_timeout
        why = f"the TURN server relays nothing (credentials?), or took over {limit:g} s"
        return PeerFailed(f"there is no way out: {why}")
    hosts = ", ".join(addresses)
    if all(exc.errno != errno.EADDRINUSE for exc in errors):
        why = "; ".join(sorted({str(exc) for exc in errors}))
        return PeerFailed(f"there is no way out: no socket could be opened on {hosts}: {why}")
    if configuration.ports is None:
        error = NoFreePort(f"no UDP port is free on {hosts}")
    else:
        range_ = "from {} to {}".format(*configuration.ports)
        error = NoFreePort(
            f"no UDP port {range_} is free on {hosts}: these are the ports of "
            "server_rtc_configuration, one for each connection"
        )
    logger.warning("a connection was refused: %s", error)
    return error


def _allow_ports_of_choice(loop: Any) -> None:
    """Have a loop open the sockets that aioice wants on any port on those of :data:`_sockets`.

    aioice asks for port 0 and cannot be told otherwise, and keeps to itself why a socket could not
    be opened (checked in 0.13).
    """
    if "create_datagram_endpoint" in vars(loop):
        return
    create = loop.create_datagram_endpoint

    async def create_datagram_endpoint(
        factory: Any, local_addr: Any = None, *args: Any, **options: Any
    ) -> Any:
        sockets = _sockets.get()
        if sockets is None or local_addr is None or local_addr[1] != 0:
            return await create(factory, local_addr, *args, **options)
        guarded = partial(_make_guarded, factory)
        host, (first, last) = local_addr[0], sockets.ports or (0, 0)
        size = last - first + 1
        start = secrets.randbelow(size)  # calls that begin together do not race for the first
        for i in range(size):
            try:
                address = (host, first + (start + i) % size)
                return await create(guarded, address, *args, **options)
            except OSError as exc:
                if exc.errno != errno.EADDRINUSE:
                    sockets.errors.append(exc)
                    raise
        error = OSError(errno.EADDRINUSE, f"every port from {first} to {last} is in use")
        sockets.errors.append(error)
        raise error

    loop.create_datagram_endpoint = create_datagram_endpoint


def _make_guarded(factory: Callable[[], Any]) -> Any:
    """A protocol that drops what is no packet: anybody can send to a socket.

    An empty one ends aiortc's connection (checked in 1.16), and aioice's parser knows more ways to
    fail than it expects (checked in 0.13).
    """
    protocol = factory()
    receive = protocol.datagram_received

    def datagram_received(data: bytes, address: Any) -> None:
        try:
            if data:
                receive(data, address)
        except Exception as exc:
            logger.debug("a datagram was dropped: %r", exc)

    protocol.datagram_received = datagram_received
    return protocol


def accept_rsa(pc: RTCPeerConnection) -> None:
    """Shake hands with peers whose certificate is an RSA one, too: GStreamer's is.

    aiortc offers suites for ECDSA only (checked in 1.16). Forward secrecy and authenticated
    encryption are the same. Ours stays ECDSA (RFC 8827 6.5), and a certificate is told by its
    fingerprint.
    """
    live: Any = pc
    for certificate in live._RTCPeerConnection__certificates:
        create = certificate._create_ssl_context

        def create_ssl_context(*, create: Any = create, **options: Any) -> Any:
            context = create(**options)
            context.set_cipher_list(_CIPHERS)
            return context

        certificate._create_ssl_context = create_ssl_context


def stop_consent(transport: RTCDtlsTransport) -> None:
    """End the consent checks of a transport that is closed (RFC 7675)."""
    connection: Any = transport.transport._connection
    task = connection._query_consent_task
    if task is not None:
        task.cancel()


class Heartbeat:
    """When the client was last heard: by SRTP, SRTCP or a STUN check, each once authenticated."""

    def __init__(self) -> None:
        self._heard = 0.0

    def listen(self, transport: RTCDtlsTransport) -> None:
        """Note what comes over a transport. These methods are reached by authentic packets only."""

        def noting(function: Callable[..., Any]) -> Callable[..., Any]:
            def note(*args: Any, **kwargs: Any) -> Any:
                self.beat()
                return function(*args, **kwargs)

            return note

        connection: Any = transport.transport._connection
        connection.check_incoming = noting(connection.check_incoming)
        live: Any = transport
        live._handle_rtp_data = noting(live._handle_rtp_data)
        live._handle_rtcp_data = noting(live._handle_rtcp_data)

    def beat(self) -> None:
        """The client was heard."""
        self._heard = asyncio.get_running_loop().time()

    async def wait_silent(self, limit: float, transport: RTCDtlsTransport) -> None:
        """Wait until the client was not heard for ``limit`` seconds.

        A muted or hidden client sends little, yet it answers when it is asked. After half the time
        it is.
        """
        loop = asyncio.get_running_loop()
        self.beat()
        async with asyncio.TaskGroup() as asking:
            while (silent := loop.time() - self._heard) < limit:
                if silent >= limit / 2:
                    asking.create_task(self._ask(transport))
                pause = min(limit / 5, limit - silent)
                due = loop.time() + pause
                await asyncio.sleep(pause)
                # While this process stood still nobody was heard, whoever may have spoken.
                self._heard += max(0.0, loop.time() - due - _LATE)

    async def _ask(self, transport: RTCDtlsTransport) -> None:
        """One STUN binding request on the selected pair, as for consent (RFC 7675 5.1)."""
        connection: Any = transport.transport._connection
        pair = connection._nominated.get(1)
        if pair is None:
            return
        request = connection.build_request(pair, nominate=False)
        key = connection.remote_password.encode()
        try:
            await pair.protocol.request(
                request, pair.remote_addr, integrity_key=key, retransmissions=0
            )
        except Exception as exc:  # a transaction that fails in any way says: not heard
            logger.debug("no answer from the client: %r", exc)
        else:
            self.beat()
