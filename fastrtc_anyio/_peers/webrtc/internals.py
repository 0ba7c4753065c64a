"""Access to private names of aiortc and aioice. No other module may use them.

The libraries have no setting for the behaviour changed here, so each function reads or replaces an
attribute of a live object. Its docstring states the reason, the upstream issue if there is one, and
when the function can go. Policy (limits, ports, timing) belongs to the callers.
:mod:`.sctp_internals` does the same for data channels, :mod:`.ice_internals` for the checks of ICE,
:mod:`.media_internals` for senders and receivers, :mod:`.socket_internals` for sockets,
:mod:`.task_internals` for tasks.

Verified against aiortc 1.16.0 and aioice 0.13.0. :data:`REQUIRED` is checked on import.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from functools import partial
from types import ModuleType
from typing import Any

from aioice import ice
from aioice.candidate import Candidate
from aiortc import RTCPeerConnection, RTCRtpTransceiver, rtcdtlstransport
from aiortc.rtcdtlstransport import RTCCertificate, RTCDtlsParameters, RTCDtlsTransport, State
from aiortc.rtcicetransport import RTCIceTransport
from aiortc.rtcrtpparameters import RTCRtpCodecParameters
from aiortc.rtcsctptransport import RTCSctpTransport

from fastrtc_anyio._core.required import check_required

SUPPORTED = {"aiortc": ">=1.16,<1.17", "aioice": ">=0.13,<0.14"}
"""Versions that this module was verified against, as in pyproject.toml."""

SSL: Any = getattr(rtcdtlstransport, "SSL")  # noqa: B009 - not exported
"""The module of pyOpenSSL, which aiortc requires."""

REQUIRED: Mapping[type | ModuleType, tuple[str, ...]] = {
    RTCPeerConnection: ("__certificates", "__connect"),
    RTCRtpTransceiver: ("_codecs",),
    RTCCertificate: ("_cert", "_create_ssl_context", "_key"),
    RTCDtlsTransport: ("_handle_rtcp_data", "_handle_rtp_data", "_set_state", "_ssl"),
    RTCIceTransport: ("_connection",),
    RTCSctpTransport: ("_handle_data",),
    ice: ("get_host_addresses",),
    ice.Connection: ("get_component_candidates",),
}
"""Undocumented names by the class or module that has them."""

check_required(REQUIRED, SUPPORTED)


def replace_attribute(target: object, name: str, value: object) -> None:
    """Set an attribute that the type checker knows as a method or does not know."""
    setattr(target, name, value)


# Negotiation.


def get_codecs(transceiver: RTCRtpTransceiver) -> list[RTCRtpCodecParameters]:
    """Return the codecs that both sides support, the preferred one first; empty before negotiation.

    aiortc 1.16 exposes them only in the answer, which does not exist yet when the encoder is made.
    Can go once ``RTCRtpSender.getParameters()`` exists.
    """
    return transceiver._codecs


def set_codecs(transceiver: RTCRtpTransceiver, codecs: list[RTCRtpCodecParameters]) -> None:
    """Set the codecs of the answer. Both sides send the first.

    aiortc 1.16 compares H.264 profiles for equality, though libavcodec decodes all of them, and
    answers other payload types for those below 96. ``RTCRtpTransceiver.setCodecPreferences()`` has
    no effect after the offer is applied, and earlier the transceiver does not exist. Can go once
    aiortc negotiates profiles and keeps payload types.
    """
    transceiver._codecs = codecs


def set_up_dtls(pc: RTCPeerConnection) -> None:
    """Accept RSA certificates, such as GStreamer's, ignore chains of certificates, and save memory.

    aiortc 1.16 offers suites for ECDSA only (aiortc#1421, #1434). The added suites have the same
    forward secrecy and encryption. Our certificate stays ECDSA (RFC 8827 6.5), and the peer's is
    verified by its fingerprint.

    OpenSSL would verify up to 100 further certificates that the peer sends, on the loop that all
    connections share. It would also keep its buffers for records while none is under way, 40 kB for
    each connection. Can go once aiortc does the same.
    """
    name = "_RTCPeerConnection__certificates"
    made: list[RTCCertificate] = getattr(pc, name)
    setattr(pc, name, [_Certificate(one._key, one._cert) for one in made])


class _Certificate(RTCCertificate):
    def _create_ssl_context(self, *args: Any, **options: Any) -> Any:
        context = super()._create_ssl_context(*args, **options)
        context.set_cipher_list(_CIPHERS)
        context.set_verify_depth(0)
        context.set_mode(SSL.MODE_RELEASE_BUFFERS)
        return context


_CIPHERS = b":".join(
    b"ECDHE-" + key + b"-" + cipher
    for cipher in (b"AES128-GCM-SHA256", b"CHACHA20-POLY1305", b"AES128-SHA", b"AES256-SHA")
    for key in (b"ECDSA", b"RSA")
)
"""The suites of aiortc, each for ECDSA and for RSA."""


def skip_hopeless_handshake(transport: RTCDtlsTransport) -> None:
    """Let DTLS fail at once if ICE has failed.

    aiortc 1.16 prepares the handshake first, which takes 0.5 ms and 120 kB, and then cannot send:
    many clients that vanish at once would cost a multiple of that. Can go once aiortc does the
    same.
    """
    start = transport.start

    async def start_dtls(remote: RTCDtlsParameters) -> None:
        if transport.transport.state == "failed":
            transport._set_state(State.FAILED)
        else:
            await start(remote)

    replace_attribute(transport, "start", start_dtls)


def wrap_connect(
    pc: RTCPeerConnection, run: Callable[[Callable[[], Coroutine[Any, Any, None]]], Any]
) -> None:
    """Call ``run`` with the coroutine function that performs ICE and DTLS, in place of it.

    aiortc 1.16 starts it as a task without a reference: ``close()`` neither awaits nor cancels it,
    and its exception is logged as never retrieved (aiortc#429). Can go once ``close()`` ends it.
    """
    name = "_RTCPeerConnection__connect"
    replace_attribute(pc, name, partial(run, getattr(pc, name)))


# Gathering.


def list_host_addresses() -> list[str]:
    """Return the IP addresses that aioice 0.13 gathers by default: all except loopback.

    Can go once aioice documents a function for it.
    """
    return ice.get_host_addresses(use_ipv4=True, use_ipv6=True)


Gatherer = Callable[[list[str], float], Awaitable[list[Candidate]]]
"""Gathers candidates: the addresses, and the timeout of STUN and TURN servers in seconds."""


def replace_gathering(
    transport: RTCDtlsTransport,
    gather: Callable[[Gatherer, list[str]], Awaitable[list[Candidate]]],
) -> None:
    """Gather local candidates with ``gather``, called with aioice's function and default addresses.

    aioice 0.13 gathers on all addresses except loopback, and waits 5 s for a server that does not
    answer, without a setting for either. Can go once ``RTCConfiguration`` has both.
    """
    connection = transport.transport._connection
    original: Any = connection.get_component_candidates

    async def get_component_candidates(
        component: int, addresses: list[str], timeout: float = 0
    ) -> list[Candidate]:
        return await gather(partial(original, component), addresses)

    replace_attribute(connection, "get_component_candidates", get_component_candidates)


Address = tuple[str, int]
ProtocolFactory = Callable[[], asyncio.DatagramProtocol]
Endpoint = tuple[asyncio.DatagramTransport, asyncio.DatagramProtocol]
OpenEndpoint = Callable[[ProtocolFactory, Address], Awaitable[Endpoint]]


def replace_socket_opening(
    loop: asyncio.AbstractEventLoop,
    open_socket: Callable[[OpenEndpoint, ProtocolFactory, str], Awaitable[Endpoint]],
    on_failure: Callable[[Exception], None],
) -> None:
    """Open the loop's UDP sockets for port 0 with ``open_socket``. Idempotent for each loop.

    aioice 0.13 always binds to port 0 (aioice#47, #112), and only logs why a socket could not be
    opened. The loop's method is the only place to choose the port. The other sockets are those of
    TURN and mDNS, whose parsers raise exceptions for what any host sends; asyncio would log a
    traceback for each. ``on_failure`` is called instead. Can go once ``aioice.Connection`` takes a
    port range, raises the error, and drops malformed datagrams.
    """
    if "create_datagram_endpoint" in vars(loop):
        return
    create: Any = loop.create_datagram_endpoint

    async def create_datagram_endpoint(
        factory: Any, local_addr: Any = None, *args: Any, **options: Any
    ) -> Any:
        if local_addr is None or local_addr[1] != 0:
            contained = partial(_contain_failures, factory, on_failure)
            return await create(contained, local_addr, *args, **options)
        return await open_socket(
            lambda factory, address: create(factory, address, *args, **options),
            factory,
            local_addr[0],
        )

    replace_attribute(loop, "create_datagram_endpoint", create_datagram_endpoint)


def _contain_failures(
    factory: ProtocolFactory, on_failure: Callable[[Exception], None]
) -> asyncio.DatagramProtocol:
    protocol = factory()
    receive = protocol.datagram_received

    def datagram_received(data: bytes, address: Any) -> None:
        try:
            receive(data, address)
        except Exception as exc:
            on_failure(exc)

    replace_attribute(protocol, "datagram_received", datagram_received)
    return protocol


# Packets.


async def contain(
    on_malformed: Callable[[Exception], None], handling: Coroutine[Any, Any, None]
) -> None:
    """Await aiortc's handling of a packet or message, and pass its exception to a function."""
    try:
        await handling
    except ConnectionError:  # aiortc's signal for the regular end of the transport
        raise
    except Exception as exc:  # of any type
        on_malformed(exc)


def watch_packets(
    transport: RTCDtlsTransport,
    sctp: RTCSctpTransport | None,
    on_packet: Callable[[], None],
    on_malformed: Callable[[Exception], None],
) -> None:
    """Call ``on_packet`` for each authenticated packet of a transport: SRTP, SRTCP or SCTP.

    ``on_malformed`` is called with the exception of one that cannot be processed.

    aiortc 1.16 counts packets before it authenticates them, and has no ``disconnected`` state
    (aiortc#25). The methods wrapped here run after authentication. Their exceptions, of any type,
    end the transport. Can go once aiortc exposes the time of the last authenticated packet, and
    drops malformed packets.
    """

    def watch(target: RTCDtlsTransport | RTCSctpTransport, name: str) -> None:
        function = getattr(target, name)

        async def call(*args: Any, **options: Any) -> None:
            on_packet()
            await contain(on_malformed, function(*args, **options))

        replace_attribute(target, name, call)

    watch(transport, "_handle_rtp_data")
    watch(transport, "_handle_rtcp_data")
    if sctp is not None:
        watch(sctp, "_handle_data")


_RECEIVED_SHUTDOWN = 2
"""OpenSSL's ``SSL_RECEIVED_SHUTDOWN``."""


def is_closed_by_client(transport: RTCDtlsTransport) -> bool:
    """Return whether the client has closed a transport with a DTLS alert.

    aiortc 1.16 has one state, ``closed``, for that and for each failure after the handshake. Can go
    once it has two.
    """
    connection = transport._ssl
    return connection is not None and bool(connection.get_shutdown() & _RECEIVED_SHUTDOWN)
