"""G.711, exhaustively, against FFmpeg's tables."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from av import AudioCodecContext, AudioFrame, CodecContext, Packet

from fastrtc_anyio._media.frames import Int16Array
from fastrtc_anyio._media.g711 import decode_alaw, decode_mulaw, encode_alaw, encode_mulaw
from fastrtc_anyio.errors import UnsupportedFormat

Encode = Callable[[Int16Array], bytes]
Decode = Callable[[bytes], Int16Array]

EVERY_SAMPLE: Int16Array = np.arange(-32768, 32768).astype(np.int16)
EVERY_BYTE = bytes(range(256))
LAWS = pytest.mark.parametrize(
    ("encode", "decode", "codec"),
    [(encode_mulaw, decode_mulaw, "pcm_mulaw"), (encode_alaw, decode_alaw, "pcm_alaw")],
)


def ffmpeg(codec: str, mode: str) -> AudioCodecContext:
    context = CodecContext.create(codec, mode)  # type: ignore[call-overload]
    assert isinstance(context, AudioCodecContext)
    context.sample_rate = 8000
    context.format = "s16"
    context.layout = "mono"
    return context


@LAWS
def test_decoder_matches_ffmpeg_for_every_byte(encode: Encode, decode: Decode, codec: str) -> None:
    (frame,) = ffmpeg(codec, "r").decode(Packet(EVERY_BYTE))
    assert np.array_equal(decode(EVERY_BYTE), frame.to_ndarray()[0])


@LAWS
def test_level_encodes_to_its_byte(encode: Encode, decode: Decode, codec: str) -> None:
    # Mu-law has two zeros and one sample value for both.
    wanted = EVERY_BYTE.replace(b"\x7f", b"\xff") if codec == "pcm_mulaw" else EVERY_BYTE
    assert encode(decode(EVERY_BYTE)) == wanted


@LAWS
def test_every_sample_encodes_to_a_nearest_level(
    encode: Encode, decode: Decode, codec: str
) -> None:
    levels = decode(EVERY_BYTE).astype(np.int64)
    got = decode(encode(EVERY_SAMPLE)).astype(np.int64)
    samples = EVERY_SAMPLE.astype(np.int64)
    nearest = np.min(np.abs(samples[:, None] - levels[None, :]), axis=1)
    assert np.array_equal(np.abs(got - samples), nearest)


@LAWS
def test_tie_encodes_to_smaller_magnitude(encode: Encode, decode: Decode, codec: str) -> None:
    levels = np.unique(decode(EVERY_BYTE)).astype(int)
    middles = (levels[1:] + levels[:-1]) // 2
    quieter = np.minimum(np.abs(levels[1:]), np.abs(levels[:-1]))
    got = decode(encode(middles.astype(np.int16))).astype(int)
    assert np.array_equal(np.abs(got), quieter)


@LAWS
def test_encoder_matches_ffmpeg_except_for_ties(encode: Encode, decode: Decode, codec: str) -> None:
    # FFmpeg looks up the sample without its lowest bits, so a sample near the middle of two levels
    # may become the other level: then both are about equally near, by construction.
    frame = AudioFrame.from_ndarray(EVERY_SAMPLE.reshape(1, -1), format="s16", layout="mono")
    frame.sample_rate = 8000
    context = ffmpeg(codec, "w")
    theirs = decode(b"".join(bytes(packet) for packet in context.encode(frame))).astype(int)
    ours = decode(encode(EVERY_SAMPLE)).astype(int)
    differing = ours != theirs
    excess = np.abs(theirs - EVERY_SAMPLE) - np.abs(ours - EVERY_SAMPLE)
    assert differing.mean() < 0.01
    assert excess.min() >= 0
    assert excess.max() <= 6


@LAWS
def test_empty_input_and_unsupported_formats(encode: Encode, decode: Decode, codec: str) -> None:
    assert encode(np.zeros(0, np.int16)) == b""
    assert decode(b"").shape == (0,)
    assert decode(b"").dtype == np.int16
    with pytest.raises(UnsupportedFormat, match=r"shape \(n,\); got int16 array of shape \(1, 4\)"):
        encode(np.zeros((1, 4), np.int16))
    wrong: Any = np.zeros(4, np.float32)
    with pytest.raises(UnsupportedFormat, match="got float32"):
        encode(wrong)


@LAWS
def test_strided_view_encodes_like_a_copy(encode: Encode, decode: Decode, codec: str) -> None:
    assert encode(EVERY_SAMPLE[::3]) == encode(EVERY_SAMPLE[::3].copy())


def test_writing_to_a_result_does_not_change_the_tables() -> None:
    decode_mulaw(EVERY_BYTE)[:] = 0
    assert decode_mulaw(b"\x00").tolist() == [-32124]
