"""The client's end of a call: aiortc sets it up, and the pump moves its packets.

Aiortc no longer reads the socket of a connected call. This module reads it, keeps SRTP packets for
the analysis, and hands STUN and DTLS to aiortc. Uses private names of aiortc 1.16
and aioice 0.13.
"""

from __future__ import annotations

import asyncio
import re
import socket
import struct
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import pylibsrtp
from aioice import ice
from aiortc import (
    AudioStreamTrack,
    RTCConfiguration,
    RTCPeerConnection,
    RTCSessionDescription,
    VideoStreamTrack,
)

from benchmarks.load.analysis import Packet

SO_TIMESTAMPNS = 35
"""The kernel notes the time of arrival, so that the generator need not wake for each packet."""

Exchange = Callable[[str], Awaitable[str]]
"""Sends an offer's SDP, and returns the answer's."""


class SilentAudio(AudioStreamTrack):
    """A track that sends nothing."""

    async def recv(self) -> Any:
        await asyncio.Future()


class _SilentVideo(VideoStreamTrack):
    async def recv(self) -> Any:
        await asyncio.Future()


class _SharedSrtp:
    """Outgoing SRTP for RTCP of aiortc and RTP of the pump, on two threads: one buffer for both."""

    def __init__(self, session: pylibsrtp.Session) -> None:
        self._session = session
        self._lock = threading.Lock()

    def protect(self, packet: bytes) -> bytes:
        with self._lock:
            return self._session.protect(packet)

    def protect_rtcp(self, packet: bytes) -> bytes:
        with self._lock:
            return self._session.protect_rtcp(packet)


class Call:
    """A connected call."""

    def __init__(self, pc: RTCPeerConnection, payload_type: int) -> None:
        [sender] = pc.getSenders()
        connection = sender.transport.transport._connection
        [pair] = connection._nominated.values()
        transport = pair.protocol.transport
        self._pc = pc
        self._protocol = pair.protocol
        self._loop = asyncio.get_running_loop()
        self._srtp_out = _SharedSrtp(sender.transport._tx_srtp)
        vars(sender.transport)["_tx_srtp"] = self._srtp_out
        self._srtp_in: pylibsrtp.Session = sender.transport._rx_srtp
        self._ssrc = sender._ssrc
        self._payload_type = payload_type
        self._sequence = 0
        # A duplicate, because asyncio does not hand out the socket itself.
        descriptor = transport.get_extra_info("socket").dup()
        self.socket: socket.socket = descriptor
        self.socket.setblocking(False)
        self.socket.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        self.peer: tuple[str, int] = pair.remote_addr
        self._loop._remove_reader(transport.get_extra_info("socket").fileno())  # type: ignore[attr-defined]
        self.read_by_pump = False
        """Whether the data channel is open. Until then, asyncio reads, because each wait counts."""
        self.ended = False
        self._loop.add_reader(self.socket, self.read)
        self.sent: list[float] = []
        """Time at which each frame left the client, before the emulated network."""
        self.received: list[tuple[float, bytes]] = []
        """Times of arrival and SRTP packets."""

    def protect(self, payload: bytes, timestamp: int, marker: bool = False) -> bytes:
        """Return the next SRTP packet."""
        kind = self._payload_type | (0x80 if marker else 0)
        header = struct.pack(
            "!BBHII", 0x80, kind, self._sequence & 0xFFFF, timestamp & 0xFFFFFFFF, self._ssrc
        )
        self._sequence += 1
        return self._srtp_out.protect(header + payload)

    def read(self) -> None:
        """Read all datagrams that have arrived."""
        while True:
            try:
                data, ancillary, _, address = self.socket.recvmsg(2048, 64)
            except BlockingIOError:
                return
            except OSError:  # the server has closed its socket
                return
            if data[0] < 128:  # STUN or DTLS
                self._loop.call_soon_threadsafe(self._protocol.datagram_received, data, address)
            elif not 192 <= data[1] < 224:  # not RTCP
                seconds, nanoseconds = struct.unpack_from("qq", ancillary[0][2])
                self.received.append((seconds + nanoseconds * 1e-9, data))

    def open_packets(self) -> list[Packet]:
        """Decrypt the received packets."""
        packets: list[Packet] = []
        first: tuple[int, int] | None = None
        for arrived, data in self.received:
            try:
                plain = self._srtp_in.unprotect(data)
            except pylibsrtp.Error:
                continue
            sequence, timestamp = struct.unpack_from("!HI", plain, 2)
            first = first or (sequence, timestamp)
            # The nearest values that wrap to these: a call is shorter than half a wrap.
            sequence = (sequence - first[0] + 2**15) % 2**16 - 2**15
            timestamp = (timestamp - first[1] + 2**31) % 2**32 - 2**31
            packets.append(Packet(arrived, timestamp, _payload(plain), sequence))
        self.received.clear()
        return packets

    def hand_to_pump(self) -> None:
        """Let the pump read: the data channel is open."""
        self._loop.remove_reader(self.socket)
        self.read_by_pump = True

    async def close(self) -> None:
        """Close the call. The pump must not know it any more."""
        self._loop.remove_reader(self.socket)
        self.socket.close()
        await self._pc.close()


def _payload(packet: bytes) -> bytes:
    """Return the payload of an RTP packet: RFC 3550 5.1."""
    begin = 12 + 4 * (packet[0] & 0x0F)
    if packet[0] & 0x10:
        begin += 4 + 4 * struct.unpack_from("!H", packet, begin + 2)[0]
    return packet[begin : len(packet) - (packet[-1] if packet[0] & 0x20 else 0)]


async def connect(exchange: Exchange, *, video: bool = False, wait_open: bool = True) -> Call:
    """Place a call with the data channel that FastRTC's page opens.

    Args:
        exchange: sends the offer.
        video: whether to send pictures, not audio.
        wait_open: whether to wait for the data channel as well.
    """
    ice.get_host_addresses = lambda **options: ["127.0.0.1"]
    pc = RTCPeerConnection(RTCConfiguration(iceServers=[]))
    connected = asyncio.get_running_loop().create_future()
    opened = asyncio.Event()
    channel = pc.createDataChannel("text")
    channel.on("open", opened.set)

    @pc.on("connectionstatechange")
    def change() -> None:
        if not connected.done():
            if pc.connectionState == "connected":
                connected.set_result(None)
            elif pc.connectionState in ("failed", "closed"):
                connected.set_exception(ConnectionError("the server refused the call"))

    pc.addTrack(_SilentVideo() if video else SilentAudio())
    await pc.setLocalDescription(await pc.createOffer())
    answer = await exchange(pc.localDescription.sdp)
    await pc.setRemoteDescription(RTCSessionDescription(answer, "answer"))
    await asyncio.wait_for(connected, 30)
    kind = "video" if video else "audio"
    match = re.search(rf"m={kind} \d+ \S+ (\d+)", answer)
    assert match is not None
    call = Call(pc, int(match[1]))
    if wait_open:
        await asyncio.wait_for(opened.wait(), 30)
        call.hand_to_pump()
    return call
