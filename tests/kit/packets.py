"""The RTP and RTCP packets of a call with a client made of plain aiortc, in plain text."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, TypeVar

import pytest
from aiortc import rtcrtpsender
from aiortc.rtp import AnyRtcpPacket, RtcpPacket, is_rtcp
from aiortc.utils import random32

from fastrtc_anyio._peers.webrtc import fast_internals, sending

T = TypeVar("T")

PATHS = ("short", "aiortc")
"""Paths of audio: that of this package, and that of aiortc."""
FIRST_NUMBER = 65_500
FIRST_TIMESTAMP = 2**32 - 30_000


def choose_path(monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    """Let audio of the calls that begin from now on take one of :data:`PATHS`."""
    monkeypatch.setenv(fast_internals.VARIABLE, "0" if path == "aiortc" else "1")


def begin_near_the_wrap(monkeypatch: pytest.MonkeyPatch) -> None:
    """Begin with sequence numbers that wrap after 36 packets, and timestamps that do after 31.

    The numbers of a client of this process do so, too.
    """

    def first_timestamp() -> int:
        return random32() if threading.current_thread().name == "client" else FIRST_TIMESTAMP

    fixed = SimpleNamespace(
        randrange=lambda end: FIRST_NUMBER, getrandbits=lambda bits: FIRST_TIMESTAMP
    )
    monkeypatch.setattr(rtcrtpsender, "random_sequence_number", lambda: FIRST_NUMBER)
    monkeypatch.setattr(rtcrtpsender, "random32", first_timestamp)
    monkeypatch.setattr(sending, "random", fixed)


@dataclass(frozen=True)
class RtpFields:
    """An RTP packet without contributing sources and padding, which aiortc does not send."""

    data: bytes

    @property
    def payload_type(self) -> int:
        return self.data[1] & 0x7F

    @property
    def marker(self) -> int:
        return self.data[1] >> 7

    @property
    def number(self) -> int:
        return int.from_bytes(self.data[2:4])

    @property
    def timestamp(self) -> int:
        return int.from_bytes(self.data[4:8])

    @property
    def ssrc(self) -> int:
        return int.from_bytes(self.data[8:12])

    @property
    def extensions(self) -> dict[int, bytes]:
        """Header extensions of one byte (RFC 8285 4.2) by their number."""
        found: dict[int, bytes] = {}
        if self.data[0] & 0x10:
            assert self.data[12:14] == b"\xbe\xde"
            i, end = 16, self._begin
            while i < end:
                number, size = self.data[i] >> 4, (self.data[i] & 15) + 1
                if number == 0:  # padding
                    i += 1
                    continue
                found[number] = self.data[i + 1 : i + 1 + size]
                i += 1 + size
        return found

    @property
    def payload(self) -> bytes:
        return self.data[self._begin :]

    @property
    def _begin(self) -> int:
        return 16 + 4 * int.from_bytes(self.data[14:16]) if self.data[0] & 0x10 else 12


@dataclass(frozen=True)
class Record:
    """A packet, and the time in seconds since 1970 at which the client sent or received it."""

    at: float
    rtp: RtpFields | None
    rtcp: tuple[AnyRtcpPacket, ...] = ()


class PacketLog:
    """Records the packets of a client's transport. Install it before the connection.

    Args:
        transport: the client's ``RTCDtlsTransport``.
        loses: whether an RTP packet is lost, by its sequence number. It is then recorded as lost.
    """

    def __init__(self, transport: Any, loses: Callable[[int], bool] = lambda number: False) -> None:
        self.sent: list[Record] = []
        self.received: list[Record] = []
        self.lost_up: list[RtpFields] = []
        self.lost_down: list[RtpFields] = []
        self.rewrite: Callable[[bytes], bytes] = lambda data: data
        """Changes RTP packets before they are sent."""
        self._transport = transport
        self._loses = loses
        self._send, transport._send_rtp = transport._send_rtp, self._on_send
        self._rtp, transport._handle_rtp_data = transport._handle_rtp_data, self._on_rtp
        self._rtcp, transport._handle_rtcp_data = transport._handle_rtcp_data, self._on_rtcp

    async def _on_send(self, data: bytes) -> None:
        if is_rtcp(data):
            self.sent.append(_record_rtcp(data))
        else:
            data = self.rewrite(data)
            packet = RtpFields(data)
            if self._loses(packet.number):
                self.lost_up.append(packet)
                return
            self.sent.append(Record(time.time(), packet))
        await self._send(data)

    async def _on_rtp(self, data: bytes, arrival_time_ms: int) -> None:
        packet = RtpFields(data)
        self.received.append(Record(time.time(), packet))
        if self._loses(packet.number):  # after it was recorded: it was on the wire
            self.lost_down.append(packet)
        else:
            await self._rtp(data, arrival_time_ms)

    async def _on_rtcp(self, data: bytes) -> None:
        self.received.append(_record_rtcp(data))
        await self._rtcp(data)


def _record_rtcp(data: bytes) -> Record:
    return Record(time.time(), None, tuple(RtcpPacket.parse(data)))


def rtp_of(records: Sequence[Record]) -> list[RtpFields]:
    """Return the RTP packets among records."""
    return [record.rtp for record in records if record.rtp is not None]


def rtcp_of(records: Sequence[Record], kind: type[T]) -> list[tuple[int, T]]:
    """Return the RTCP packets of a kind, each with the index of its record."""
    return [
        (i, packet)
        for i, record in enumerate(records)
        for packet in record.rtcp
        if isinstance(packet, kind)
    ]
