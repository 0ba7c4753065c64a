"""Access to private names of aiortc and aioice for the end of a connection and for its tasks.

The rules are those of :mod:`.internals`, which does the same for everything else.

Verified against aiortc 1.16.0 and aioice 0.13.0. :data:`REQUIRED` is checked on import.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Mapping
from types import ModuleType

from aioice import ice, turn
from aiortc import RTCDataChannel, RTCPeerConnection, RTCRtpReceiver, RTCRtpSender
from aiortc.rtcdtlstransport import RTCDtlsTransport
from aiortc.rtcicetransport import RTCIceTransport

from fastrtc_anyio._core.required import check_required

from .internals import SSL, SUPPORTED

REQUIRED: Mapping[type | ModuleType, tuple[str, ...]] = {
    SSL.Connection: ("_verify_helper",),
    ice.Connection: ("_check_list",),
    RTCDtlsTransport: ("_ssl",),
    RTCIceTransport: ("_connection",),
    RTCPeerConnection: ("__closeTask",),
    RTCRtpReceiver: (
        "__decoder_queue",
        "__decoder_thread",
        "__rtcp_exited",
        "__rtcp_started",
        "__rtcp_task",
    ),
    RTCRtpSender: (
        "__rtcp_exited",
        "__rtcp_started",
        "__rtcp_task",
        "__rtp_exited",
        "__rtp_started",
        "__rtp_task",
    ),
    turn.TurnTransport: ("__inner_protocol",),
}
"""Undocumented names by the class or module that has them."""

check_required(REQUIRED, SUPPORTED)

HANDLED = frozenset(
    {
        # Awaited by gather() in the function that starts them.
        "Event.wait",
        "RTCIceGatherer.gather",
        "add_remote_candidates",
        "replace_gathering.<locals>.get_component_candidates",
        # A STUN or TURN server that fails costs a candidate.
        "relayed_candidate",
        "server_reflexive_candidate",
        # TurnTransport passes the error to the protocol.
        "TurnClientMixin.send_data",
    }
)
"""Names of coroutines whose errors are handled by the code that starts them as tasks."""
SWALLOWING = ("aiortc.rtcdtlstransport", "aiortc.rtcrtpsender")
"""Names of the loggers to which aiortc 1.16 writes exceptions as text before it drops them."""


def get_close_task(pc: RTCPeerConnection) -> asyncio.Task[None] | None:
    """Return the task in which a connection closes itself, after its transports were closed.

    If that task fails, ``close()`` of aiortc 1.16 waits for ever. Can go once it does not.
    """
    task: asyncio.Task[None] | None = getattr(pc, "_RTCPeerConnection__closeTask")  # noqa: B009
    return task


def release_ended(pc: RTCPeerConnection) -> None:
    """Let ``stop()`` of senders and receivers return although their tasks have failed.

    In aiortc 1.16 it waits until the tasks report their end, which one that was ended by an
    unexpected exception never does. Can go once it waits for the tasks themselves.
    """
    for transceiver in pc.getTransceivers():
        for part in (transceiver.sender, transceiver.receiver):
            for task_name, started, exited in _TASKS[type(part)]:
                task: asyncio.Task[None] | None = getattr(part, task_name)
                if task is not None and task.done():
                    getattr(part, started).set()
                    getattr(part, exited).set()


# Made once: Python's cache of attributes keeps the name of each lookup, and a name that is made
# for one lookup is not found there by the next.
_TASKS: Mapping[type, tuple[tuple[str, str, str], ...]] = {
    part: tuple(
        (f"{name}_task", f"{name}_started", f"{name}_exited")
        for name in (f"_{part.__name__}__{kind}" for kind in kinds)
    )
    for part, kinds in ((RTCRtpSender, ("rtp", "rtcp")), (RTCRtpReceiver, ("rtcp",)))
}


def end_decoders(pc: RTCPeerConnection) -> None:
    """Have the decoder threads end that are left, without waiting for them.

    A receiver of aiortc 1.16 leaves its thread, which is not a daemon, if ``stop()`` fails.
    """
    for transceiver in pc.getTransceivers():
        receiver = transceiver.receiver
        if getattr(receiver, "_RTCRtpReceiver__decoder_thread") is not None:  # noqa: B009
            getattr(receiver, "_RTCRtpReceiver__decoder_queue").put(None)  # noqa: B009


def abort_sockets(protocols: Iterable[ice.StunProtocol]) -> None:
    """Close sockets at once, those of relays without a word to the TURN server.

    ``close()`` of aioice 0.13 waits up to 32 s for a TURN server that does not answer. Can go once
    it has a limit.
    """
    for protocol in protocols:
        transport: object = protocol.transport
        if isinstance(transport, turn.TurnTransport):
            transport = getattr(transport, "_TurnTransport__inner_protocol").transport  # noqa: B009
        abort = getattr(transport, "abort", None)
        if abort is not None:
            abort()


def release_connection(
    pc: RTCPeerConnection,
    transports: Iterable[RTCDtlsTransport],
    channels: Iterable[RTCDataChannel],
) -> None:
    """Free the memory of a closed connection. It must have no task and no timer any more.

    ``transports`` and ``channels`` are those that it has used: ``close()`` forgets some of them.

    A closed connection of aiortc 1.16 consists of reference cycles, with 130 kB each of OpenSSL and
    libsrtp, of which the garbage collector knows nothing. It would keep those of a hundred
    connections until it next looks for cycles, and each search stops all threads. Can go once
    ``close()`` leaves no cycle.
    """
    for part in list(_parts(pc, transports, channels)):
        vars(part).clear()


def _parts(
    pc: RTCPeerConnection,
    transports: Iterable[RTCDtlsTransport],
    channels: Iterable[RTCDataChannel],
) -> Iterator[object]:
    yield pc
    yield from channels
    if pc.sctp is not None:
        yield pc.sctp
    for transceiver in pc.getTransceivers():
        sender, receiver = transceiver.sender, transceiver.receiver
        yield from (transceiver, sender, receiver)
        track: object | None = receiver.track  # aiortc makes it for the other side's description
        if track is not None:
            yield track
    for transport in transports:
        path = transport.transport
        yield from path._connection._check_list  # each pair with the task of its checks
        if transport._ssl is not None and transport._ssl._verify_helper is not None:
            yield transport._ssl._verify_helper
        yield from (transport, path, path.iceGatherer, path._connection)


def release_socket(protocol: ice.StunProtocol) -> None:
    """Free the memory of a closed socket or relay, for the same reason."""
    vars(protocol).clear()
