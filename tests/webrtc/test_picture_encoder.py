"""The encoder of outgoing video: conversions, sharing of memory, key frames, and new encoders."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from aiortc.codecs import get_decoder, get_encoder
from aiortc.codecs.h264 import h264_depayload
from aiortc.codecs.vpx import vp8_depayload
from aiortc.jitterbuffer import JitterFrame
from aiortc.rtcrtpparameters import RTCRtpCodecParameters
from av import VideoFrame as AvVideoFrame
from hypothesis import given, settings
from hypothesis import strategies as st

from fastrtc_anyio import VideoFrame, VideoOptions
from fastrtc_anyio._media.video import as_video_frame
from fastrtc_anyio._peers.webrtc.picture_encoder import (
    OutgoingPicture,
    PictureConverter,
    PictureEncoder,
)

CODECS = pytest.mark.parametrize("codec", ["VP8", "H264"])
RED, BLUE = (0, 0, 255), (255, 0, 0)


def flat(color: Any = RED, height: int = 240, width: int = 320) -> Any:
    return np.full((height, width, 3), color, np.uint8)


def yuv(picture: Any) -> AvVideoFrame:
    return AvVideoFrame.from_ndarray(picture, "bgr24").reformat(format="yuv420p")


class Sender:
    def __init__(self, codec: str, **options: Any) -> None:
        self.codec = RTCRtpCodecParameters(f"video/{codec}", 90_000, payloadType=96)
        self.encoder = PictureEncoder(get_encoder(self.codec), codec, VideoOptions(**options))
        self.decoder = get_decoder(self.codec)
        self.now = 0.0
        self.sent_key_frame = False

    def send(self, outgoing: OutgoingPicture | object, force: bool = False) -> Any:
        """Return the picture that the client decodes."""
        if not isinstance(outgoing, OutgoingPicture):
            outgoing = OutgoingPicture(as_video_frame(outgoing))
        outgoing.pts = round(self.now * 90_000)
        payloads, timestamp = self.encoder.encode(outgoing, force)
        assert timestamp == outgoing.pts
        depayload = vp8_depayload if self.codec.name == "VP8" else h264_depayload
        data = b"".join(map(depayload, payloads))
        # VP8: RFC 6386 9.1. H.264: a picture that starts with parameter sets.
        self.sent_key_frame = (
            not data[0] & 1 if self.codec.name == "VP8" else data[4] & 31 in (5, 7)
        )
        (frame,) = self.decoder.decode(JitterFrame(data, timestamp))
        self.now += 1 / 30
        return frame

    def sends_key_frame(self, outgoing: object, force: bool = False) -> bool:
        self.send(outgoing, force)
        return self.sent_key_frame


def is_color(frame: Any, color: Any) -> bool:
    middle = frame.to_ndarray(format="bgr24")[60:180, 80:240].astype(int)
    return bool(np.abs(middle.mean(axis=(0, 1)) - color).max() < 20)


def test_native_picture_shares_its_planes_and_keeps_its_attributes() -> None:
    converter = PictureConverter()
    for size in ((240, 320), (48, 64)):
        native = yuv(flat(RED, *size))
        native.pts = 7
        frame = converter.convert(VideoFrame(native))
        assert frame is not native
        frame.pts = 9
        frame.pict_type = 1
        planes = zip(frame.planes, native.planes, strict=True)
        assert all(ours.buffer_ptr == theirs.buffer_ptr for ours, theirs in planes)
        assert (frame.width, frame.height) == (native.width, native.height)
        assert (native.pts, int(native.pict_type)) == (7, 0)
        assert np.array_equal(frame.to_ndarray(), native.to_ndarray())


def test_shared_planes_outlive_the_picture_and_the_converter() -> None:
    native = yuv(flat(BLUE))
    wanted = native.to_ndarray()
    converter = PictureConverter()
    frame = converter.convert(VideoFrame(native))
    del native
    for _ in range(10):
        converter.convert(VideoFrame(yuv(flat(RED))))
    del converter
    assert np.array_equal(frame.to_ndarray(), wanted)


@pytest.mark.parametrize("format", ["bgr24", "rgb24", "nv12", "yuv444p", "gray"])
@pytest.mark.parametrize("size", [(240, 320), (239, 321)])
def test_other_pictures_are_converted(format: str, size: tuple[int, int]) -> None:
    native = AvVideoFrame.from_ndarray(flat(RED, *size), "bgr24").reformat(format=format)
    frame = PictureConverter().convert(VideoFrame(native))
    assert frame.format.name == "yuv420p"
    assert (frame.width, frame.height) == (size[1] + size[1] % 2, size[0] + size[0] % 2)
    if format != "gray":
        assert is_color(frame, RED)
    assert native.format.name == format


@pytest.mark.parametrize("view", ["whole", "flipped", "mirrored", "cropped", "transposed"])
def test_views_of_arrays_are_converted(view: str) -> None:
    picture = np.random.default_rng(1).integers(0, 255, (64, 64, 3), np.uint8)
    views = {
        "whole": picture,
        "flipped": picture[::-1],
        "mirrored": picture[:, ::-1],
        "cropped": picture[8:40, 4:36],
        "transposed": picture.transpose(1, 0, 2),
    }
    got = PictureConverter().convert(VideoFrame(views[view])).to_ndarray()
    assert np.array_equal(got, yuv(np.ascontiguousarray(views[view])).to_ndarray())


@CODECS
def test_array_may_be_changed_after_it_was_emitted(codec: str) -> None:
    sender = Sender(codec)
    buffer = flat(RED)
    emitted = OutgoingPicture(as_video_frame(buffer))
    buffer[:] = BLUE
    assert is_color(sender.send(emitted), RED)
    assert is_color(sender.send(buffer), BLUE)
    buffer[:] = RED
    assert is_color(sender.send(emitted), RED)


def test_received_array_may_be_changed_and_kept() -> None:
    native = yuv(flat(RED))
    received = VideoFrame(native)
    first = received.to_ndarray()
    kept = first.copy()
    VideoFrame(yuv(flat(BLUE))).to_ndarray()
    assert np.array_equal(first, kept)
    first[:] = 0
    assert np.array_equal(received.to_ndarray(), kept)
    assert is_color(Sender("VP8").send(received), RED)


@CODECS
def test_repeated_picture_is_converted_once_and_is_not_a_key_frame(codec: str) -> None:
    sender = Sender(codec)
    outgoing = OutgoingPicture(as_video_frame(flat()))
    forced = (False, True, False, False)
    assert [sender.sends_key_frame(outgoing, force) for force in forced] == [
        True, True, False, False
    ]  # fmt: skip
    converted = outgoing.converted
    sender.send(outgoing)
    assert outgoing.converted is converted


@CODECS
def test_key_frames_come_at_the_interval(codec: str) -> None:
    sender = Sender(codec, keyframe_interval=0.5)
    native = VideoFrame(yuv(flat()))
    keys = [i for i in range(70) if sender.sends_key_frame(native, i == 20)]
    assert keys == [0, 15, 20, 35, 50, 65]
    sender = Sender(codec)
    assert [i for i in range(70) if sender.sends_key_frame(native)] == [0]


@CODECS
def test_pictures_at_60_frames_per_second_have_separate_timestamps(codec: str) -> None:
    sender = Sender(codec)
    times = []
    for _ in range(10):
        sender.send(flat())
        times.append(sender.now)
        sender.now += 1 / 60 - 1 / 30
    assert len(set(times)) == 10


@CODECS
def test_new_size_or_bitrate_starts_with_a_key_frame(codec: str) -> None:
    sender = Sender(codec, bitrate=2_000_000)
    small, large = flat(), flat(BLUE, 480, 640)
    assert [sender.sends_key_frame(p) for p in (small, small, large, large)] == [
        True, False, True, False
    ]  # fmt: skip
    sender.encoder.target_bitrate = 1_950_000  # too small a change
    assert not sender.sends_key_frame(large)
    sender.encoder.target_bitrate = 1_000_000
    assert sender.sends_key_frame(large)


@CODECS
def test_rising_bitrate_seldom_costs_a_key_frame(codec: str) -> None:
    sender = Sender(codec, bitrate=5_000_000)
    small = flat(RED, 48, 64)
    sender.encoder.target_bitrate = 300_000
    keys = []
    for i in range(20 * 30):
        if i % 15 == 0:  # 8 % a second
            sender.encoder.target_bitrate = round(1.04 * sender.encoder.target_bitrate)
        if sender.sends_key_frame(small):
            keys.append(i)
    assert keys == [0, 150, 300, 450]
    sender.encoder.target_bitrate //= 2
    assert sender.sends_key_frame(small)


@given(
    st.lists(st.tuples(st.integers(50_000, 3_000_000), st.integers(1, 120)), min_size=1, max_size=6)
)
@settings(max_examples=15)
def test_bitrate_follows_requests_within_5_seconds(requests: list[tuple[int, int]]) -> None:
    sender = Sender("VP8", bitrate=3_000_000)
    small = flat(RED, 16, 16)

    def send() -> tuple[bool, int]:
        sent_key = sender.sends_key_frame(small)
        return sent_key, sender.encoder._encoder.codec.bit_rate

    _, rate = send()
    renewed_at = 0.0
    for requested, pictures in [*requests, (requests[-1][0], 151)]:
        sender.encoder.target_bitrate = requested
        for _ in range(pictures):
            now = sender.now
            is_key, new = send()
            assert is_key == (new != rate)
            if is_key:
                assert new < 0.81 * rate or now - renewed_at >= 5 - 1e-3
                renewed_at, rate = now, new
            assert requested >= 0.79 * rate
    assert abs(rate - requests[-1][0]) <= 0.1 * rate


@CODECS
def test_client_cannot_exceed_the_bitrate(codec: str) -> None:
    limited = Sender(codec, bitrate=700_000).encoder
    assert limited.target_bitrate == 700_000
    for requested, granted in ((9_000_000, 700_000), (0, 50_000), (300_000, 300_000)):
        limited.target_bitrate = requested
        assert limited.target_bitrate == granted
    free = Sender(codec).encoder
    free.target_bitrate = 1_200_000
    assert free.target_bitrate == 1_200_000


@CODECS
def test_threads_are_set_or_chosen_by_size(codec: str) -> None:
    def count(sender: Sender, width: int, height: int) -> int:
        sender.send(flat(RED, height, width))
        threads: int = sender.encoder._encoder.codec.thread_count
        return threads

    assert count(Sender(codec), 640, 480) == 1
    assert 1 <= count(Sender(codec), 1920, 1080) <= 4
    assert count(Sender(codec, threads=3), 320, 240) == 3
