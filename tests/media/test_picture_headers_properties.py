"""The size of an encoded picture is read from its header, or the header is malformed."""

from __future__ import annotations

from contextlib import suppress
from fractions import Fraction

import av
import numpy as np
import pytest
from aiortc.codecs import depayload, get_encoder
from aiortc.rtcrtpparameters import RTCRtpCodecParameters
from hypothesis import given, settings
from hypothesis import strategies as st

from fastrtc_anyio._media.picture_headers import (
    MalformedPicture,
    PictureSize,
    begins_key_frame,
    find_sizes,
    is_key_frame,
)

ENCODERS = {"VP8": "libvpx", "H264": "libx264"}
sides = st.integers(4, 75).map(lambda quarter: 4 * quarter)


def encode(codec: str, width: int, height: int, pictures: int = 1, **options: str) -> list[bytes]:
    encoder = av.CodecContext.create(ENCODERS[codec], "w")
    assert isinstance(encoder, av.VideoCodecContext)
    encoder.width, encoder.height = width, height
    encoder.pix_fmt, encoder.time_base = "yuv420p", Fraction(1, 30)
    fast = {"deadline": "realtime", "cpu-used": "8", "lag-in-frames": "0"}
    encoder.options = {**(fast if codec == "VP8" else {"tune": "zerolatency"}), **options}
    made = []
    for i in range(pictures):
        frame = av.VideoFrame.from_ndarray(
            np.full((height * 3 // 2, width), i, np.uint8), format="yuv420p"
        )
        frame.pts = i
        made += [bytes(packet) for packet in encoder.encode(frame)]
    return made


def round_up(pixels: int) -> int:
    return -(-pixels // 16) * 16


@settings(max_examples=30)
@given(sides, sides)
def test_size_of_vp8_key_frame(width: int, height: int) -> None:
    key, other = encode("VP8", width, height, 2)
    assert find_sizes("VP8", key) == [PictureSize(width, height)]
    assert find_sizes("vp8", other) == []


@settings(max_examples=30)
@given(
    sides,
    sides,
    st.sampled_from(
        [
            {"profile": "baseline"},
            {"profile": "main"},
            {"profile": "high", "x264-params": "cqm=jvt"},
            {"x264-params": "interlaced=1"},
            {"x264-params": "ref=4"},
        ]
    ),
)
def test_size_of_h264_key_frame(width: int, height: int, options: dict[str, str]) -> None:
    key, *others = encode("H264", width, height, 3, **options)
    ((found_width, found_height, _),) = find_sizes("H264", key)
    assert found_width == round_up(width)
    # Interlaced pictures consist of pairs of macroblocks.
    assert found_height in (round_up(height), -(-height // 32) * 32)
    assert all(find_sizes("H264", other) == [] for other in others)


class Writer:
    """Writes the bits of a parameter set."""

    def __init__(self) -> None:
        self.bits = ""

    def plain(self, value: int, count: int) -> None:
        self.bits += format(value, f"0{count}b")

    def unsigned(self, value: int) -> None:
        code = format(value + 1, "b")
        self.bits += "0" * (len(code) - 1) + code

    def signed(self, value: int) -> None:
        self.unsigned(2 * value - 1 if value > 0 else -2 * value)

    def unit(self) -> bytes:
        bits = self.bits + "1"
        bits += "0" * (-len(bits) % 8)
        data = bytes(int(bits[i : i + 8], 2) for i in range(0, len(bits), 8))
        escaped = bytearray()
        for byte in data:
            if escaped[-2:] == b"\0\0" and byte <= 3:
                escaped.append(3)
            escaped.append(byte)
        return b"\0\0\0\1\x67" + bytes(escaped)


numbers = st.integers(0, 1000)


@st.composite
def parameter_sets(draw: st.DrawFn) -> tuple[bytes, PictureSize]:
    """A sequence parameter set with optional fields, and its size."""
    writer = Writer()
    profile = draw(st.sampled_from([66, 77, 88, 100, 110, 122, 244, 44]))
    writer.plain(profile, 8)
    writer.plain(draw(st.integers(0, 65_535)), 16)
    writer.unsigned(draw(st.integers(0, 31)))
    if profile >= 100 or profile == 44:
        chroma = draw(st.integers(0, 3))
        writer.unsigned(chroma)
        if chroma == 3:
            writer.plain(0, 1)
        writer.unsigned(draw(st.integers(0, 6)))
        writer.unsigned(draw(st.integers(0, 6)))
        writer.plain(0, 1)
        lists = draw(st.lists(st.booleans(), min_size=8, max_size=8))
        lists += [draw(st.booleans())] * 4 if chroma == 3 else []
        writer.plain(has_lists := draw(st.integers(0, 1)), 1)
        for i, present in enumerate(lists if has_lists else []):
            writer.plain(present, 1)
            if present:
                write_scaling_list(writer, draw, 16 if i < 6 else 64)
    writer.unsigned(draw(st.integers(0, 12)))
    order = draw(st.integers(0, 2))
    writer.unsigned(order)
    if order == 0:
        writer.unsigned(draw(st.integers(0, 12)))
    elif order == 1:
        writer.plain(draw(st.integers(0, 1)), 1)
        offsets = draw(st.lists(st.integers(-(2**31) + 1, 2**31 - 1), max_size=255))
        writer.signed(draw(st.integers(-(2**31) + 1, 2**31 - 1)))
        writer.signed(draw(st.integers(-9, 9)))
        writer.unsigned(len(offsets))
        for offset in offsets:
            writer.signed(offset)
    writer.unsigned(references := draw(st.integers(0, 16)))
    writer.plain(draw(st.integers(0, 1)), 1)
    writer.unsigned((width := draw(st.integers(1, 1024))) - 1)
    writer.unsigned((height := draw(st.integers(1, 1024))) - 1)
    writer.plain(progressive := draw(st.integers(0, 1)), 1)
    writer.plain(draw(st.integers(0, 255)), 8)
    size = PictureSize(16 * width, 16 * height * (2 - progressive), max(1, references))
    return writer.unit(), size


def write_scaling_list(writer: Writer, draw: st.DrawFn, size: int) -> None:
    last = 8
    for _ in range(size):
        following = draw(st.integers(0, 20))
        writer.signed(following - last)
        if following == 0:
            return
        last = following


@given(st.lists(parameter_sets(), min_size=1, max_size=3))
def test_every_parameter_set_of_a_picture_is_read(sets: list[tuple[bytes, PictureSize]]) -> None:
    picture = b"".join(unit + b"\0\0\0\1\x68\xce" for unit, _ in sets)
    found = find_sizes("H264", picture)
    assert {size for _, size in sets} <= set(found)


@given(st.sampled_from(["VP8", "H264"]), st.binary(max_size=400))
def test_any_bytes_have_sizes_or_are_malformed(codec: str, data: bytes) -> None:
    for picture in (data, b"\0\0\1\x67" + data, b"\x10\0\0\x9d\1\x2a" + data):
        try:
            sizes = find_sizes(codec, picture)
        except MalformedPicture:
            continue
        assert all(width >= 0 and height >= 0 for width, height, _ in sizes)


KEY_FRAME = encode("H264", 64, 48)[0]


@given(st.integers(0, 200), st.integers(0, 255))
def test_damaged_parameter_set_is_read_or_malformed(position: int, byte: int) -> None:
    damaged = bytearray(KEY_FRAME)
    damaged[min(position, len(KEY_FRAME) - 1)] = byte
    with suppress(MalformedPicture):
        find_sizes("H264", bytes(damaged))


def test_too_many_parameter_sets_are_malformed() -> None:
    units = [b"\0\0\1\x67\x42\0" + bytes([i]) + b"\xff" * 9 for i in range(9)]
    with pytest.raises(MalformedPicture, match="more than 8"):
        find_sizes("H264", b"".join(units))


@pytest.mark.parametrize("codec", ["VP8", "H264"])
def test_key_frames_are_known_and_where_they_begin(codec: str) -> None:
    parameters = RTCRtpCodecParameters(f"video/{codec}", 90_000, payloadType=96)
    encoder = get_encoder(parameters)
    noise = np.random.default_rng(1).integers(0, 255, (360, 320), np.uint8)
    for i in range(6):
        frame = av.VideoFrame.from_ndarray(np.roll(noise, 3 * i, axis=1), format="yuv420p")
        frame.pts, frame.time_base = 3000 * i, Fraction(1, 90_000)
        payloads, _ = encoder.encode(frame, force_keyframe=i == 3)
        parts = [depayload(parameters, payload) for payload in payloads]
        assert len(parts) > 1
        key = i in (0, 3)
        assert is_key_frame(codec, b"".join(parts)) is key
        pairs = zip(payloads, parts, strict=True)
        begins = [begins_key_frame(codec, payload, part) for payload, part in pairs]
        assert begins == [key, *[False] * (len(parts) - 1)]
    assert not is_key_frame(codec, b"")
    assert not begins_key_frame(codec, b"\x10", b"")
