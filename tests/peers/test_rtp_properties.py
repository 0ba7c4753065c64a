"""Headers of RTP packets, against aiortc's parser."""

from __future__ import annotations

from aiortc.rtp import RtpPacket
from hypothesis import example, given
from hypothesis import strategies as st

from fastrtc_anyio._peers.webrtc.rtp import parse

UNKNOWN_PROFILE = b"\x12\x34"
"""Profile of a header extension whose contents neither parser reads."""


@st.composite
def packets(draw: st.DrawFn) -> bytes:
    """Return a packet whose parts fit together, or almost."""
    sources = draw(st.integers(0, 15))
    is_extended = draw(st.booleans())
    is_padded = draw(st.booleans())
    first = 0x80 | is_padded << 5 | is_extended << 4 | sources
    data = bytes([first, draw(st.integers(0, 255))]) + draw(st.binary(min_size=10, max_size=10))
    data += draw(st.binary(min_size=4 * sources, max_size=4 * sources))
    if is_extended:
        words = draw(st.integers(0, 4))
        claimed = draw(st.sampled_from([words, words, words, words + 1, 0xFFFF, 0]))
        contents = draw(st.binary(min_size=4 * words, max_size=4 * words))
        data += UNKNOWN_PROFILE + claimed.to_bytes(2) + contents
    data += draw(st.binary(max_size=40))
    if is_padded:
        data += bytes([draw(st.integers(0, 60))])
    return data[: draw(st.sampled_from([len(data), draw(st.integers(0, len(data)))]))]


def check_same(data: bytes) -> None:
    fields = parse(data)
    try:
        packet = RtpPacket.parse(data)
    except ValueError:
        assert fields is None
        return
    assert fields is not None
    assert fields[:5] == (
        packet.payload_type,
        packet.marker,
        packet.sequence_number,
        packet.timestamp,
        packet.ssrc,
    )
    *_, begin, end = fields
    assert data[begin:end] == packet.payload
    assert len(data) - end == packet.padding_size


@given(packets())
@example(b"\x80" + bytes(11))
@example(b"\xa0" + bytes(11))
@example(b"\xa0" + bytes(11) + b"\x01")
@example(b"\xb0" + bytes(11) + UNKNOWN_PROFILE + b"\0\0")
@example(b"\xb0" + bytes(11) + UNKNOWN_PROFILE + b"\0\1\0\0\0\4")
@example(b"\x81" + bytes(14))
def test_fields_and_rejections_are_those_of_aiortc(data: bytes) -> None:
    check_same(data)


@given(st.binary(max_size=64))
def test_arbitrary_bytes_are_rejected_as_by_aiortc(data: bytes) -> None:
    if data[:1] and data[0] & 0x10:  # the contents of a known profile are not checked
        data = bytes([data[0] & ~0x10]) + data[1:]
    check_same(data)


@given(st.binary(max_size=24), st.sampled_from([b"\xbe\xde", b"\x10\x00"]))
def test_malformed_contents_of_an_extension_are_skipped(contents: bytes, profile: bytes) -> None:
    contents = contents[: len(contents) // 4 * 4]
    header = b"\x90\x6f" + bytes(10) + profile + (len(contents) // 4).to_bytes(2)
    fields = parse(header + contents + b"sound")
    assert fields is not None
    *_, begin, end = fields
    assert (header + contents + b"sound")[begin:end] == b"sound"
