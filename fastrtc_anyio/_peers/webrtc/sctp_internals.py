"""Access to private names of aiortc for SCTP, the transport of data channels.

The rules are those of :mod:`.internals`, which does the same for everything else.

Verified against aiortc 1.16.0. :data:`REQUIRED` is checked on import.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from functools import partial
from types import ModuleType
from typing import NamedTuple

from aiortc import rtcsctptransport
from aiortc.rtcsctptransport import (
    DATA_CHANNEL_OPEN,
    WEBRTC_DCEP,
    BaseParamsChunk,
    Chunk,
    DataChunk,
    ForwardTsnChunk,
    InboundStream,
    ReconfigChunk,
    RTCSctpTransport,
    SackChunk,
)

from fastrtc_anyio._core.required import check_required

from .internals import SUPPORTED, contain, replace_attribute

REQUIRED: Mapping[type | ModuleType, tuple[str, ...]] = {
    RTCSctpTransport: (
        "_advertised_rwnd",
        "_data_channel_queue",
        "_data_channel_receive",
        "_data_channels",
        "_handle_data",
        "_inbound_streams",
        "_last_received_tsn",
        "_local_tsn",
        "_mark_received",
        "_outbound_queue",
        "_receive_chunk",
        "_receive_data_chunk",
        "_receive_forward_tsn_chunk",
        "_receive_sack_chunk",
        "_sack_duplicates",
        "_sack_misordered",
        "_sent_queue",
    ),
    rtcsctptransport: ("decode_params",),
    InboundStream: ("reassembly",),
    DataChunk: ("stream_id",),
    ForwardTsnChunk: ("streams",),
    BaseParamsChunk: ("params",),
}
"""Undocumented names by the class or module that has them."""

check_required(REQUIRED, SUPPORTED)

_MAX_CONTROL_CHUNKS = 8
"""Chunks of one packet that carry no data. Implementations send up to four."""
_MAX_PARAMETERS = 2
"""Parameters of a RE-CONFIG chunk (RFC 6525 3.1)."""
_NUMBERS = 1 << 32
"""Numbers of chunks before they begin again."""
_MAX_DCEP = 4096
"""Bytes of a message that opens a data channel: aiortc keeps its label and protocol."""


class SctpLoad(NamedTuple):
    """Memory that a client occupies in SCTP reassembly when another chunk arrives."""

    streams: int
    """Inbound streams, including those that the chunk adds."""
    fragments: int
    """Fragments of unfinished messages on all streams."""
    misordered: int
    """Chunks received behind a missing one."""
    window: int
    """Bytes left in the receive window; negative if the client exceeds it."""
    channels: int
    """Data channels, including one that the message opens."""


def guard_sctp(
    sctp: RTCSctpTransport,
    admit: Callable[[SctpLoad], bool],
    on_malformed: Callable[[Exception], None],
) -> None:
    """Drop refused chunks of SCTP, and call ``on_malformed`` for messages that are malformed.

    In aiortc 1.16 the exception of a message, such as text that is not UTF-8, costs the packet with
    all its messages. aiortc does not enforce the receive window it advertises, limits neither
    streams nor chunks, answers each chunk of a packet, and searches all stored fragments for each
    new one. Can go once aiortc drops malformed messages and has limits.
    """
    handle, receive_chunk = sctp._handle_data, sctp._receive_chunk
    receive_data, receive_message = sctp._receive_data_chunk, sctp._data_channel_receive
    receive_forward, receive_sack = sctp._receive_forward_tsn_chunk, sctp._receive_sack_chunk
    control_chunks = 0

    async def handle_data(data: bytes) -> None:
        nonlocal control_chunks
        control_chunks = 0
        await handle(data)

    async def receive_any_chunk(chunk: Chunk) -> None:
        nonlocal control_chunks
        if not isinstance(chunk, DataChunk):
            control_chunks += 1
            _check_control_chunk(chunk, control_chunks)
        await receive_chunk(chunk)

    async def receive_data_chunk(chunk: DataChunk) -> None:
        if admit(_measure_load(sctp, {chunk.stream_id})):
            await receive_data(chunk)

    async def receive_forward_tsn_chunk(chunk: ForwardTsnChunk) -> None:
        if admit(_measure_load(sctp, {stream for stream, _ in chunk.streams})):
            await receive_forward(chunk)

    async def receive_sack_chunk(chunk: SackChunk) -> None:
        _check_sack(chunk, sctp._local_tsn)
        await receive_sack(chunk)

    async def data_channel_receive(stream_id: int, kind: int, data: bytes) -> None:
        if kind == WEBRTC_DCEP and len(data) > _MAX_DCEP:
            on_malformed(ValueError(f"a data channel is opened with {len(data)} bytes"))
            return
        opens = kind == WEBRTC_DCEP and data[:1] == bytes([DATA_CHANNEL_OPEN])
        if not opens or admit(_measure_load(sctp, channels=1)):
            await contain(on_malformed, receive_message(stream_id, kind, data))

    replace_attribute(sctp, "_handle_data", handle_data)
    replace_attribute(sctp, "_mark_received", partial(mark_received, sctp))
    replace_attribute(sctp, "_receive_chunk", receive_any_chunk)
    replace_attribute(sctp, "_receive_data_chunk", receive_data_chunk)
    replace_attribute(sctp, "_receive_forward_tsn_chunk", receive_forward_tsn_chunk)
    replace_attribute(sctp, "_receive_sack_chunk", receive_sack_chunk)
    replace_attribute(sctp, "_data_channel_receive", data_channel_receive)


def _measure_load(
    sctp: RTCSctpTransport, added: Collection[int] = (), channels: int = 0
) -> SctpLoad:
    """Return what a client has stored, with streams and data channels that it would add."""
    streams = sctp._inbound_streams
    return SctpLoad(
        streams=len(streams) + sum(number not in streams for number in added),
        fragments=sum(len(stream.reassembly) for stream in streams.values()),
        misordered=len(sctp._sack_misordered),
        window=sctp._advertised_rwnd,
        channels=len(sctp._data_channels) + channels,
    )


def _check_sack(chunk: SackChunk, next_number: int) -> None:
    """Raise ValueError for a SACK with more numbers than were sent.

    aiortc 1.16 visits each number in each block: a packet could name 65,536 in each of 75 chunks.
    """
    sent = (next_number - 1 - chunk.cumulative_tsn) % _NUMBERS
    sent = 0 if sent >= _NUMBERS // 2 else sent
    numbers = sum(last - first + 1 for first, last in chunk.gaps)
    if numbers > sent:
        raise ValueError(f"a SACK acknowledges {numbers} chunks in gap blocks; sent were {sent}")


def mark_received(sctp: RTCSctpTransport, number: int) -> bool:
    """Note the number of a chunk, and return whether it is a duplicate.

    ``_mark_received()`` of aiortc 1.16 sorts and copies all numbers behind a missing one, up to
    1000, for each of the 70 chunks of a packet. Can go once it does not.
    """
    last, misordered = sctp._last_received_tsn, sctp._sack_misordered
    if last is None:
        raise ValueError("a chunk has come before the SCTP association began")
    if (last - number) % _NUMBERS < _NUMBERS // 2 or number in misordered:
        sctp._sack_duplicates.append(number)
        return True
    misordered.add(number)
    while (following := (last + 1) % _NUMBERS) in misordered:
        misordered.remove(following)
        last = following
    sctp._last_received_tsn = last
    sctp._sack_duplicates = [
        one for one in sctp._sack_duplicates if 0 < (one - last) % _NUMBERS < _NUMBERS // 2
    ]
    return False


def _check_control_chunk(chunk: Chunk, number: int) -> None:
    """Raise ValueError, which drops the rest of the packet, for a chunk that costs too much."""
    if number > _MAX_CONTROL_CHUNKS:
        raise ValueError(f"an SCTP packet has more than {_MAX_CONTROL_CHUNKS} chunks without data")
    if isinstance(chunk, ReconfigChunk) and len(chunk.params) > _MAX_PARAMETERS:
        raise ValueError(
            f"a RE-CONFIG chunk must have at most {_MAX_PARAMETERS} parameters; "
            f"got {len(chunk.params)}"
        )


def _check_parameters(decode: Callable[[bytes], object], body: bytes) -> object:
    """Decode the parameters of an SCTP chunk, and raise ValueError for a length below 4.

    aiortc 1.16 reads a parameter with a length of 0 for ever: one packet would stop all connections
    and exhaust the memory. The error drops the packet. Can go once aiortc checks the length.
    """
    start = 0
    while start <= len(body) - 4:
        length = int.from_bytes(body[start + 2 : start + 4])
        if length < 4:  # RFC 9260 3.2.1: it includes the type and the length
            raise ValueError(f"the length of an SCTP parameter must be at least 4; got {length}")
        start += length + -length % 4
    return decode(body)


replace_attribute(
    rtcsctptransport, "decode_params", partial(_check_parameters, rtcsctptransport.decode_params)
)


def has_unacknowledged(sctp: RTCSctpTransport) -> bool:
    """Return whether data channel messages are queued or not yet acknowledged.

    ``close()`` of aiortc 1.16 discards them, and ``RTCDataChannel.bufferedAmount`` does not count
    unacknowledged ones. Can go once ``close()`` flushes.
    """
    return bool(sctp._data_channel_queue or sctp._outbound_queue or sctp._sent_queue)
