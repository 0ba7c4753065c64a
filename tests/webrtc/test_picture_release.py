"""A receiver decodes each picture with its last packet."""

from __future__ import annotations

from fractions import Fraction
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from aiortc import RTCRtpReceiver
from aiortc.codecs import get_encoder
from aiortc.rtcrtpparameters import RTCRtpCodecParameters
from aiortc.rtp import RtpPacket, wrap_rtx
from av import VideoFrame as AvVideoFrame

from fastrtc_anyio._peers.webrtc import media_internals

RTX = RTCRtpCodecParameters("video/rtx", 90_000, payloadType=97, parameters={"apt": 96})


class Receiver:
    """A receiver of aiortc without a transport and a decoder thread, and a client's encoder."""

    def __init__(self, codec: str) -> None:
        transport: Any = SimpleNamespace(state="new")
        self.codec = RTCRtpCodecParameters(f"video/{codec}", 90_000, payloadType=96)
        receiver: Any = RTCRtpReceiver("video", transport)
        self.receiver = receiver
        receiver._RTCRtpReceiver__codecs.update({96: self.codec, 97: RTX})
        receiver._RTCRtpReceiver__rtx_ssrc[2] = 1
        self.refused: list[int] = []
        self.frames: list[Any] = []
        self.failures: list[bool] = []
        self.now = 0.0
        media_internals.receive_pictures(
            receiver,
            self.frames.append,
            lambda codec, data, waiting: waiting not in self.refused,
            lambda: self.now,
            lambda: self.failures.append(True),
        )
        self.encoder = get_encoder(self.codec)
        self.count = 0
        self.number = 65_530
        self.rng = np.random.default_rng(1)

    def make_picture(self, size: tuple[int, int] = (240, 320)) -> list[RtpPacket]:
        noise = self.rng.integers(0, 255, (*size, 3), np.uint8)
        frame = AvVideoFrame.from_ndarray(noise, "bgr24")
        frame.pts, frame.time_base = self.count * 3000, Fraction(1, 90_000)
        payloads, timestamp = self.encoder.encode(frame)
        self.count += 1
        packets = []
        for payload in payloads:
            packet = RtpPacket(96, 0, self.number % 65536, (2**32 - 4000 + timestamp) % 2**32, 1)
            packet.payload = payload
            packets.append(packet)
            self.number += 1
        packets[-1].marker = 1
        return packets

    async def handle(self, packet: RtpPacket) -> int:
        """Return the number of pictures that wait for the decoder."""
        await self.receiver._handle_rtp_packet(packet, 0)
        waiting: int = self.receiver._RTCRtpReceiver__decoder_queue.qsize()
        return waiting

    def decode(self) -> list[int]:
        """Return the numbers of the pictures, by their timestamps."""
        tasks = self.receiver._RTCRtpReceiver__decoder_queue
        tasks.put(None)
        assert tasks.get() is None
        # Rounded, because libvpx rounds.
        return [round(frame.pts / 3000) for frame in self.frames]


@pytest.mark.parametrize("codec", ["VP8", "H264"])
async def test_picture_is_decoded_with_its_last_packet(codec: str) -> None:
    receiver = Receiver(codec)
    for i in range(4):
        *others, last = receiver.make_picture()
        assert others
        assert {await receiver.handle(packet) for packet in others} == {i}
        assert await receiver.handle(last) == i + 1
    assert receiver.decode() == [0, 1, 2, 3]


@pytest.mark.parametrize("codec", ["VP8", "H264"])
@pytest.mark.parametrize("retransmitted", [False, True])
async def test_late_packet_completes_all_pictures_behind_it(
    codec: str, retransmitted: bool
) -> None:
    receiver = Receiver(codec)
    first = receiver.make_picture((16, 16))
    late = receiver.make_picture((16, 16))
    behind = [receiver.make_picture((16, 16)) for _ in range(3)]
    assert len(late) == 1
    assert {await receiver.handle(packet) for packet in first} == {1}
    assert {await receiver.handle(packet) for picture in behind for packet in picture} == {1}
    (packet,) = late
    if retransmitted:
        packet = wrap_rtx(packet, payload_type=97, sequence_number=5, ssrc=2)
    assert await receiver.handle(packet) == 5
    assert receiver.decode() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("codec", ["VP8", "H264"])
async def test_pictures_behind_a_refused_one_are_decoded_from_a_key_frame_on(codec: str) -> None:
    receiver = Receiver(codec)
    receiver.refused = [2]
    requests: list[int] = []

    async def send_pli(ssrc: int) -> None:
        requests.append(ssrc)

    receiver.receiver._send_rtcp_pli = send_pli
    waiting = []
    for i in range(6):
        receiver.now = 0.2 * i
        if i == 4:
            receiver.encoder = get_encoder(receiver.codec)
        counts = [await receiver.handle(packet) for packet in receiver.make_picture((16, 16))]
        receiver.refused = [2] if i < 2 else []
        waiting.append(counts[-1])
    assert waiting == [1, 2, 2, 2, 3, 4]
    assert requests == [1]
    assert receiver.decode() == [0, 1, 4, 5]


@pytest.mark.parametrize("codec", ["VP8", "H264"])
async def test_complete_key_frame_behind_a_gap_is_decoded_at_once(codec: str) -> None:
    receiver = Receiver(codec)
    for i in range(6):
        if i == 4:
            receiver.encoder = get_encoder(receiver.codec)
        for packet in receiver.make_picture((16, 16)):
            if i != 1:
                await receiver.handle(packet)
    assert receiver.decode() == [0, 4, 5]


@pytest.mark.parametrize("codec", ["VP8", "H264"])
async def test_lost_packet_is_requested_again(codec: str) -> None:
    receiver = Receiver(codec)
    requests: list[list[int]] = []

    async def send_nack(ssrc: int, lost: list[int]) -> None:
        requests.append(lost)

    receiver.receiver._send_rtcp_nack = send_nack
    for i in range(6):
        receiver.now = 0.04 * i
        (packet,) = receiver.make_picture((16, 16))
        if i != 1:
            await receiver.handle(packet)
    assert requests == [[65_531]] * 2
