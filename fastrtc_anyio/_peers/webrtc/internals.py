"""The private names of aiortc and aioice that this package depends on, all of them.

The two libraries have no setting for the behaviour changed here, so each function reads or replaces
an attribute of a live object. Its docstring states the reason, the upstream issue where there is
one, and when the function can go. Policy (limits, ports, timing) belongs to the modules that call
these functions.

Verified against aiortc 1.16.0 and aioice 0.13.0. :data:`REQUIRED` is checked at import.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from functools import partial
from types import ModuleType
from typing import Any, NamedTuple, Protocol

from aioice import ice
from aioice.candidate import Candidate
from aiortc import RTCPeerConnection, RTCRtpReceiver, RTCRtpSender, RTCRtpTransceiver
from aiortc.codecs.base import Encoder
from aiortc.codecs.h264 import H264Encoder
from aiortc.codecs.vpx import Vp8Encoder
from aiortc.rtcdtlstransport import RTCCertificate, RTCDtlsTransport
from aiortc.rtcicetransport import RTCIceTransport
from aiortc.rtcrtpparameters import RTCRtpCodecParameters
from aiortc.rtcsctptransport import DataChunk, InboundStream, RTCSctpTransport
from aiortc.rtp import AnyRtcpPacket, RtpPacket

from fastrtc_anyio._core.required import check_required

SUPPORTED = {"aiortc": ">=1.16,<1.17", "aioice": ">=0.13,<0.14"}
"""Versions that this module was verified against, as in pyproject.toml."""

REQUIRED: Mapping[type | ModuleType, tuple[str, ...]] = {
    RTCPeerConnection: ("__certificates", "__connect"),
    RTCRtpTransceiver: ("_codecs", "_offerDirection"),
    RTCRtpReceiver: ("__jitter_buffer", "_handle_rtcp_packet"),
    RTCRtpSender: ("__encoder",),
    H264Encoder: ("__target_bitrate",),
    Vp8Encoder: ("__target_bitrate",),
    RTCCertificate: ("_create_ssl_context",),
    RTCDtlsTransport: ("_handle_rtcp_data", "_handle_rtp_data"),
    RTCIceTransport: ("_connection",),
    RTCSctpTransport: (
        "_advertised_rwnd",
        "_data_channel_queue",
        "_handle_data",
        "_inbound_streams",
        "_outbound_queue",
        "_receive_data_chunk",
        "_sent_queue",
    ),
    InboundStream: ("reassembly",),
    DataChunk: ("stream_id",),
    ice: ("get_host_addresses",),
    ice.Connection: (
        "_nominated",
        "_query_consent_task",
        "build_request",
        "check_incoming",
        "get_component_candidates",
        "remote_password",
    ),
    ice.CandidatePair: ("protocol", "remote_addr"),
    ice.StunProtocol: ("datagram_received", "request"),
}
"""Undocumented names by the class or module that has them."""

check_required(REQUIRED, SUPPORTED)


# Negotiation.


def default_offer_direction(transceiver: RTCRtpTransceiver) -> None:
    """Take a media section without a direction attribute for ``sendrecv`` (RFC 8866 6.7).

    aiortc 1.16 keeps None, and then fails to compute the direction of the answer. Can go once
    aiortc's SDP parser applies the default.
    """
    if transceiver._offerDirection is None:
        transceiver._offerDirection = "sendrecv"


def get_codecs(transceiver: RTCRtpTransceiver) -> list[RTCRtpCodecParameters]:
    """The codecs that both sides have, the preferred codec first; empty before negotiation.

    aiortc 1.16 shows them in the SDP alone, which does not exist yet when the encoder is chosen.
    Can go once ``RTCRtpSender.getParameters()`` exists.
    """
    return transceiver._codecs


def prefer_codec(transceiver: RTCRtpTransceiver, name: str) -> None:
    """Name a codec first in the answer: its place decides what both sides send.

    ``RTCRtpTransceiver.setCodecPreferences`` (aiortc 1.16) works only before the offer is applied,
    when the offerer's section has no transceiver yet. Can go once it works for answers.
    """
    transceiver._codecs = sorted(transceiver._codecs, key=lambda codec: codec.name != name)


def accept_rsa_certificates(pc: RTCPeerConnection) -> None:
    """Complete the DTLS handshake with peers whose certificate is an RSA one, as GStreamer's is.

    aiortc 1.16 offers cipher suites for ECDSA only (aiortc#1421, #1434). The suites added have the
    same forward secrecy and authenticated encryption. Our certificate stays ECDSA
    (RFC 8827 6.5), and a peer's is verified by its fingerprint. Can go once aiortc offers them.
    """
    for certificate in _get(pc, "_RTCPeerConnection__certificates"):
        create = certificate._create_ssl_context

        def create_ssl_context(*, create: Any = create, **options: Any) -> Any:
            context = create(**options)
            context.set_cipher_list(_CIPHERS)
            return context

        certificate._create_ssl_context = create_ssl_context


_CIPHERS = b":".join(
    b"ECDHE-" + key + b"-" + cipher
    for cipher in (b"AES128-GCM-SHA256", b"CHACHA20-POLY1305", b"AES128-SHA", b"AES256-SHA")
    for key in (b"ECDSA", b"RSA")
)
"""aiortc's suites, and the same suites for RSA."""


def wrap_connect(
    pc: RTCPeerConnection, run: Callable[[Callable[[], Coroutine[Any, Any, None]]], Any]
) -> None:
    """Have ``run`` call the coroutine function in which a connection does ICE and DTLS.

    aiortc 1.16 starts it as a task without keeping a reference, so that ``close()`` neither awaits
    nor cancels it, and its exception is logged as never retrieved (aiortc#429). Can go once
    ``close()`` ends the task.
    """
    name = "_RTCPeerConnection__connect"
    _replace(pc, name, partial(run, _get(pc, name)))


# ICE.


def list_host_addresses() -> list[str]:
    """IP addresses of this machine without loopback, as aioice gathers them by default.

    Can go once aioice documents a function for it.
    """
    return ice.get_host_addresses(use_ipv4=True, use_ipv6=True)


class Gatherer(Protocol):
    """aioice's own gathering on given addresses, with seconds to wait for STUN and TURN servers."""

    def __call__(self, addresses: list[str], timeout: float) -> Awaitable[list[Candidate]]: ...


def replace_gathering(
    transport: RTCDtlsTransport,
    gather: Callable[[Gatherer, list[str]], Awaitable[list[Candidate]]],
) -> None:
    """Have ``gather`` collect local candidates; it gets aioice's function and default addresses.

    aioice 0.13 gathers on every address but loopback, and waits 5 s for a server that does not
    answer, without a setting for either. Can go once both are parameters of
    ``aioice.Connection`` that ``RTCConfiguration`` passes on.
    """
    connection = transport.transport._connection
    original = connection.get_component_candidates

    async def get_component_candidates(
        component: int, addresses: list[str], timeout: float = 0
    ) -> list[Candidate]:
        return await gather(partial(original, component), addresses)

    _replace(connection, "get_component_candidates", get_component_candidates)


Address = tuple[str, int]
ProtocolFactory = Callable[[], asyncio.DatagramProtocol]
Endpoint = tuple[asyncio.DatagramTransport, asyncio.DatagramProtocol]
OpenEndpoint = Callable[[ProtocolFactory, Address], Awaitable[Endpoint]]


def replace_socket_opening(
    loop: asyncio.AbstractEventLoop,
    open_socket: Callable[[OpenEndpoint, ProtocolFactory, str], Awaitable[Endpoint]],
) -> None:
    """Have ``open_socket`` open UDP sockets on any port of a host. Idempotent for each loop.

    aioice 0.13 always binds to port 0 (aioice#47, #112), and only logs the error of a socket that
    could not be opened. Replacing the loop's method is the one way to choose the port. Can go
    once ``aioice.Connection`` takes a port range and reports the error.
    """
    if "create_datagram_endpoint" in vars(loop):
        return
    create: Any = loop.create_datagram_endpoint

    async def create_datagram_endpoint(
        factory: Any, local_addr: Any = None, *args: Any, **options: Any
    ) -> Any:
        if local_addr is None or local_addr[1] != 0:
            return await create(factory, local_addr, *args, **options)
        return await open_socket(
            lambda factory, address: create(factory, address, *args, **options),
            factory,
            local_addr[0],
        )

    _replace(loop, "create_datagram_endpoint", create_datagram_endpoint)


Receive = Callable[[bytes, Any], None]


def guard_datagrams(
    factory: ProtocolFactory, receive: Callable[[Receive, bytes, Any], None]
) -> asyncio.DatagramProtocol:
    """Make a protocol whose datagrams go through ``receive``, which gets aioice's method first.

    An empty datagram ends the connection in aiortc 1.16 (``data[0]`` in ``_recv_next``), and
    aioice 0.13's STUN parser raises more than the ValueError it catches. Can go once both drop
    what they cannot parse.
    """
    protocol = factory()
    _replace(protocol, "datagram_received", partial(receive, protocol.datagram_received))
    return protocol


def cancel_consent_checks(transport: RTCDtlsTransport) -> None:
    """Cancel the consent checks (RFC 7675) of a transport that is closed.

    aioice 0.13 starts them at the end of ``connect()``, also if ``close()`` ran meanwhile; nothing
    ends them then. Can go once ``connect()`` checks for that.
    """
    task = transport.transport._connection._query_consent_task
    if task is not None:
        task.cancel()


def watch_packets(transport: RTCDtlsTransport, on_packet: Callable[[], None]) -> None:
    """Call ``on_packet`` for each authenticated packet: STUN check, SRTP or SRTCP.

    aiortc 1.16 counts packets before it authenticates them, and has no ``disconnected`` state
    (aiortc#25). The methods wrapped here are reached by authenticated packets only. Can go once
    aiortc shows when it last received such a packet.
    """

    def watched(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            on_packet()
            return function(*args, **options)

        return call

    connection = transport.transport._connection
    _replace(connection, "check_incoming", watched(connection.check_incoming))
    for name in ("_handle_rtp_data", "_handle_rtcp_data"):
        _replace(transport, name, watched(getattr(transport, name)))


async def send_binding_request(transport: RTCDtlsTransport) -> bool:
    """Send one STUN binding request on the selected pair; return whether it was answered.

    The request is that of a consent check (RFC 7675 5.1). aioice 0.13 makes those every 5 s and
    has no method for one more. Can go with aioice's own liveness API.
    """
    connection = transport.transport._connection
    pair = connection._nominated.get(1)
    if pair is None or connection.remote_password is None:
        return False
    request = connection.build_request(pair, nominate=False)
    key = connection.remote_password.encode()
    await pair.protocol.request(request, pair.remote_addr, integrity_key=key, retransmissions=0)
    return True


# Media.


class PacketBuffer(Protocol):
    """Takes packets; returns whether a key frame is needed, and a frame to decode."""

    def add(self, packet: RtpPacket) -> tuple[bool, None]: ...


def replace_audio_jitter_buffer(receiver: RTCRtpReceiver, buffer: PacketBuffer) -> None:
    """Pass a receiver's packets to ``buffer`` in place of aiortc's jitter buffer.

    In aiortc 1.16 that buffer adds 60 to 80 ms, and after one lost packet 280 ms to the end of the
    call (aiortc#543). RTCP and statistics stay aiortc's. Can go once the buffer is adaptive and
    its delay a setting.
    """
    _replace(receiver, "_RTCRtpReceiver__jitter_buffer", buffer)


def filter_rtcp(receiver: RTCRtpReceiver, accept: Callable[[AnyRtcpPacket], bool]) -> None:
    """Ignore the RTCP packets that ``accept`` rejects.

    aiortc 1.16 ends a track for good on a BYE; clients send one when their sender pauses and may
    resume later (the W3C track is muted then, w3c/webrtc-pc#961). Can go once aiortc mutes.
    """
    handle = receiver._handle_rtcp_packet

    async def handle_rtcp_packet(packet: AnyRtcpPacket) -> None:
        if accept(packet):
            await handle(packet)

    _replace(receiver, "_handle_rtcp_packet", handle_rtcp_packet)


def replace_encoder(sender: RTCRtpSender, encoder: Encoder) -> None:
    """Have a sender use ``encoder`` in place of the one aiortc would make.

    aiortc 1.16 has no setting for the bitrate (aiortc#402, #980). Can go once
    ``RTCRtpSender.setParameters()`` exists.
    """
    _replace(sender, "_RTCRtpSender__encoder", encoder)


def get_target_bitrate(encoder: Encoder) -> int:
    """Bits per second that an encoder of aiortc aims at."""
    return int(_get(encoder, _bitrate_name(encoder)))


def set_target_bitrate(encoder: Encoder, bitrate: int) -> None:
    """Set the bits per second that an encoder of aiortc aims at.

    The public setter clamps to a range that is fixed for each codec (aiortc 1.16; aiortc#402).
    Can go together with :func:`replace_encoder`.
    """
    _replace(encoder, _bitrate_name(encoder), bitrate)


def _bitrate_name(encoder: Encoder) -> str:
    return f"_{type(encoder).__name__}__target_bitrate"


# Data channels.


class SctpLoad(NamedTuple):
    """The memory one client holds in SCTP reassembly when a further chunk arrives."""

    streams: int
    """Inbound streams, that of the chunk included."""
    fragments: int
    """Fragments of unfinished messages on the chunk's stream."""
    window: int
    """Bytes left in the receive window; negative if the client exceeds it."""


def guard_sctp(
    sctp: RTCSctpTransport,
    on_packet: Callable[[Callable[[bytes], Awaitable[None]], bytes], Awaitable[None]],
    admit_chunk: Callable[[SctpLoad], bool],
) -> None:
    """Have ``on_packet`` call aiortc's SCTP packet handler, and drop chunks not admitted.

    aiortc 1.16 lets exceptions of its handler end the DTLS transport, and neither enforces the
    receive window it advertises nor bounds the fragments it keeps, which each new fragment walks
    through. Can go once aiortc drops malformed packets and enforces its window.
    """
    handle, receive = sctp._handle_data, sctp._receive_data_chunk

    async def receive_data_chunk(chunk: DataChunk) -> None:
        streams = sctp._inbound_streams
        stream = streams.get(chunk.stream_id)
        load = SctpLoad(
            streams=len(streams) + (stream is None),
            fragments=0 if stream is None else len(stream.reassembly),
            window=sctp._advertised_rwnd,
        )
        if admit_chunk(load):
            await receive(chunk)

    _replace(sctp, "_handle_data", partial(on_packet, handle))
    _replace(sctp, "_receive_data_chunk", receive_data_chunk)


def has_unacknowledged(sctp: RTCSctpTransport) -> bool:
    """Whether data channel messages are queued or not yet acknowledged by the client.

    aiortc 1.16 discards them in ``close()``; ``RTCDataChannel.bufferedAmount`` does not count
    those sent and not acknowledged. Can go once ``close()`` flushes.
    """
    return bool(sctp._data_channel_queue or sctp._outbound_queue or sctp._sent_queue)


def _get(target: object, name: str) -> Any:
    return getattr(target, name)


def _replace(target: object, name: str, value: object) -> None:
    """Set what the type checker knows as a method, or does not know at all."""
    setattr(target, name, value)
