"""Outgoing audio of a call: its playout as encoded packets.

:class:`AudioSender` sends at the ticks that all calls share. :class:`PlayoutTrack` alone does the
same for a sender of aiortc, whose loop reads a packet every 20 ms.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from fractions import Fraction
from functools import partial
from typing import Any

from aiortc import MediaStreamTrack, RTCRtpSender
from aiortc.rtcrtpparameters import RTCRtpCodecParameters
from av import Packet

from fastrtc_anyio._media.encode import AudioEncoder
from fastrtc_anyio._peers.streams.audio import AudioOutput

from . import fast_internals
from .phase import PhaseChoice
from .rtp import Header
from .ticks import PERIOD, Registration, Ticks

PTIME = 0.02
LATE_LIMIT = 0.2
"""Seconds. After a longer stall of this thread playout resumes from now, without a burst."""
_OWED_TICKS = 5
"""Ticks in which audio may make up for those that were missed. Silence does so from then on."""
_MARGIN = 2
"""Most frames that playout needs to keep after a pull."""
_FORGOTTEN = 1 / 50
"""Part of a frame by which the margin that playout has needed is forgotten at a tick."""
_FIRST_NUMBERS = 2**15
"""First sequence numbers are lower, so that none wraps before the client has got a packet: it could
not know the roll-over counter of SRTP."""


class PlayoutTrack(MediaStreamTrack):
    """Outgoing audio: one encoded packet every 20 ms, silence when the queue is empty.

    ``recv`` never raises and never returns None: aiortc 1.16 would stop the sender without an
    error. An empty payload is not sent, and its timestamp is skipped.
    """

    kind = "audio"

    def __init__(
        self, output: AudioOutput, encoder: AudioEncoder, on_broken: Callable[[Exception], None]
    ) -> None:
        super().__init__()
        self.output = output
        self.rtp_increment = encoder.rtp_increment
        """RTP timestamp units per packet."""
        self._encoder = encoder
        self._on_broken: Callable[[Exception], None] | None = on_broken
        self._time_base = Fraction(1, encoder.clock_rate)
        self._timestamp = 0
        self._due: float | None = None
        self._payload = b""

    async def recv(self) -> Packet[Any]:
        await self._wait_due()
        while not (payload := self.encode_next()):
            self._timestamp += self.rtp_increment
            await self._wait_due()
        packet = Packet(payload)
        packet.pts = self._timestamp
        packet.time_base = self._time_base
        self._timestamp += self.rtp_increment
        return packet

    async def _wait_due(self) -> None:
        now = asyncio.get_running_loop().time()
        if self._due is None:
            self._due = now
        elif now - self._due > LATE_LIMIT:
            self.output.skip(now - self._due)
            self._due = now
        elif self._due > now:
            await asyncio.sleep(self._due - now)
        self._due += PTIME

    def encode_next(self) -> bytes:
        """Return the payload of the next 20 ms, empty if none is to be sent. Never raises."""
        try:
            self._payload = self._encoder.encode(self.output.pull())
        except Exception as exc:  # reported once; the last packet is repeated from then on
            if self._on_broken is not None:
                self._on_broken(exc)
                self._on_broken = None
        return self._payload


class AudioSender:
    """Sends a track at the ticks of the loop, for a sender of aiortc.

    The timestamps follow the clock: that of the packet for the *n*-th 20 ms is *n* increments after
    the first, at any phase of the ticks. Playout that was missed during a stall is owed: it is
    made up for as soon as there is more audio than playout needs, such as the audio that arrived
    during the stall. If there is none for some ticks, the timestamps skip it. Pulling it at once
    would play silence, and what arrived during the stall later, for the rest of the call.

    Args:
        sender: aiortc's sender.
        track: its track.
        clock: the clock of the output.
    """

    def __init__(
        self,
        sender: RTCRtpSender,
        track: PlayoutTrack,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._sender = sender
        self._track = track
        self._number = random.randrange(_FIRST_NUMBERS)
        self._first_timestamp = random.getrandbits(32)
        self._header = Header(0, 0)
        self._srtp = fast_internals.make_encryption()
        self._clock = clock
        self._began: float | None = None
        self._position = 0  # 20 ms that were sent or skipped
        self._owed = 0  # 20 ms to make up for
        self._owing = 0  # ticks with playout owed
        self._usual = 0.0  # frames left after a pull, of late the most
        self._phase = PhaseChoice()
        self._ticks: Registration | None = None

    async def run(self, codec: RTCRtpCodecParameters) -> None:
        """Send until the task is cancelled, or the transport ends.

        Raises:
            Exception: what ended the step of a tick.
        """
        sender = self._sender
        extensions = fast_internals.get_header_extensions(sender)
        ssrc = fast_internals.get_ssrc(sender)
        self._header = Header(codec.payloadType or 0, ssrc, extensions)
        loop = asyncio.get_running_loop()
        ended: asyncio.Future[BaseException] = loop.create_future()
        self._ticks = Ticks.of(loop).add_sender(self.step, partial(_resolve, ended))
        try:
            raise await ended
        except (asyncio.CancelledError, ConnectionError):  # the end of the sender or transport
            return
        finally:
            self._ticks.remove()
            del ended  # which keeps the exception, whose traceback keeps this frame

    def step(self, due: float) -> None:
        """Send the packet for a tick, and what is owed if there is audio for it."""
        track, output = self._track, self._track.output
        if self._sender.track is not track:  # replaced by None: idle, as aiortc's loop
            return
        if self._began is None:
            self._began = due
        ahead = self._phase.moves * PERIOD
        owed = round((due + ahead - self._began) / PTIME) - self._position
        if owed * PTIME > LATE_LIMIT:
            self._skip(owed)
            owed = 0
        if owed > self._owed and not output.count_frames():
            # This tick is late, and so is the audio for it.
            self._owed = owed + 1
            return
        self._send()
        if owed:
            while owed and output.frames_left > self._usual + 0.5:
                self._send()
                owed -= 1
            self._owing = self._owing + 1 if owed else 0
            if self._owing > _OWED_TICKS:
                self._skip(owed)
                owed = self._owing = 0
        else:
            left = min(output.frames_left, _MARGIN)
            self._usual = max(left, self._usual - _FORGOTTEN)
        self._owed = owed
        moves = self._phase.changes(self._clock(), output.pushed_at, output.needed_at)
        if moves and self._ticks is not None:
            self._ticks.move()

    def _skip(self, owed: int) -> None:
        self._position += owed
        self._track.output.skip(owed * PTIME)

    def _send(self) -> None:
        track = self._track
        timestamp = (self._first_timestamp + self._position * track.rtp_increment) & 0xFFFFFFFF
        self._position += 1
        if not fast_internals.is_enabled(self._sender):
            track.output.pull()  # playout goes on
            return
        payload = track.encode_next()
        if not payload:
            return
        packet = self._header.pack(self._number, timestamp, payload)
        fast_internals.send_packet(self._sender, self._srtp, packet, len(payload), timestamp)
        self._number = (self._number + 1) & 0xFFFF


def _resolve(future: asyncio.Future[BaseException], error: BaseException) -> None:
    if not future.done():
        future.set_result(error)
