"""A malformed item is discarded without other effects; a protocol violation ends the connection."""

from __future__ import annotations

import base64
import json
import logging
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Any

import anyio
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastrtc_anyio import CloseReason
from fastrtc_anyio._media.frames import Int16Array
from fastrtc_anyio._peers.memory import MemoryPeer
from fastrtc_anyio._peers.websocket import WebSocketPeer
from fastrtc_anyio._wire.events import Framing, Media, Start
from fastrtc_anyio._wire.fastrtc import FastRTCFraming
from fastrtc_anyio._wire.payload import MULAW_8K, AudioEncoding, PayloadCodec
from fastrtc_anyio._wire.plivo import PlivoFraming
from fastrtc_anyio._wire.telnyx import TelnyxFraming
from fastrtc_anyio._wire.twilio import TwilioFraming
from tests.kit.websocket_clients import memory_sockets, open_pair

few = settings(max_examples=25)
L16 = AudioEncoding("l16", 16_000)
CLIENTS: dict[str, tuple[Callable[[], Framing], AudioEncoding]] = {
    "browser": (FastRTCFraming, AudioEncoding("pcm16", 24_000)),
    "twilio": (TwilioFraming, MULAW_8K),
    "telnyx": (partial(TelnyxFraming, "L16"), L16),
    "plivo": (PlivoFraming, AudioEncoding("pcm16", 16_000)),
}
BAD_EVENTS = [
    {"event": "dtmf"},
    {"event": "dtmf", "dtmf": {"digit": "10"}},
    {"event": "dtmf", "dtmf": {"digit": None}},
    {"event": "dtmf", "dtmf": {"digit": "\ud83d"}},
    {"event": "mark"},
    {"event": "mark", "mark": []},
    {"event": "mark", "mark": {"name": ""}},
    {"event": "mark", "mark": {"name": {"a": 1}}},
]
HARMLESS = [
    {"event": "unknown"},
    {"event": "error", "payload": {"code": 100_005}},
    {"event": "connected", "protocol": 7},
    {"event": "clear", "sequenceNumber": "x", "sequence_number": []},
    {"event": "mark", "mark": {"name": "\ud83d"}, "sequenceNumber": -1},
    {"event": "dtmf", "dtmf": {"digit": "1", "duration": "long"}, "sequenceNumber": None},
    {"event": "media", "media": {"track": "outbound", "payload": 7}},
]


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]


async def heard(peer: WebSocketPeer) -> Int16Array:
    pieces = [frame.samples[0] async for frame in peer.audio_in]
    return np.concatenate([np.empty(0, np.int16), *pieces])


@pytest.mark.parametrize("carrier", ["twilio", "telnyx", "plivo"])
@few
@given(
    items=st.lists(
        st.just(None) | st.sampled_from(BAD_EVENTS) | st.sampled_from(HARMLESS), max_size=25
    ),
)
async def test_bad_events_of_a_carrier_cost_no_audio(carrier: str, items: list[Any]) -> None:
    make_framing, encoding = CLIENTS[carrier]
    codec = PayloadCodec(encoding, encoding)
    samples = np.linspace(-8000, 8000, 8 * items.count(None)).astype(np.int16)
    chunks = iter(np.split(samples, items.count(None) or 1))
    async with open_pair(make_framing, encoding) as (peer, client):
        number = 0
        for item in items:
            if item is None:
                number += 1
                client.send(Media(codec.encode(next(chunks).reshape(1, -1)), number))
            else:
                client.say(json.dumps(item))
        client.hang_up()
        expected = codec.decode(codec.encode(samples.reshape(1, -1)))[0]
        assert np.array_equal(await heard(peer), expected)
        assert peer.discarded().events == sum(item in BAD_EVENTS for item in items)
        assert (await peer.wait_closed()).reason is CloseReason.HUNG_UP


async def test_bad_events_are_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    async with open_pair(TwilioFraming) as (peer, client):
        for event in BAD_EVENTS * 2:
            client.say(json.dumps(event))
        client.press("7")
        assert json.loads(await peer.messages.receive()) == {"type": "dtmf", "data": "7"}
        assert peer.discarded().events == 2 * len(BAD_EVENTS)
    (entry,) = warnings(caplog)
    assert "ignored a malformed event" in entry


@pytest.mark.parametrize("client", ["browser", "telnyx", "plivo"])
@few
@given(sizes=st.lists(st.integers(0, 700), max_size=12), swap=st.booleans())
async def test_samples_cut_by_messages_are_whole(client: str, sizes: list[int], swap: bool) -> None:
    """Even if a carrier puts its chunks in out of order."""
    make_framing, encoding = CLIENTS[client]
    samples = (8000 * np.sin(np.arange(4000) / 10)).astype(np.int16)
    data = samples.astype(">i2" if encoding is L16 else "<i2").tobytes()
    ends = [0, *(int(end) for end in np.cumsum(sizes) if end < len(data)), len(data)]
    pieces = [data[a:b] for a, b in pairwise(ends)]
    async with open_pair(make_framing, encoding) as (peer, caller):
        numbered = [
            Media(piece, None if client == "browser" else number)
            for number, piece in enumerate(pieces, 1)
        ]
        if swap and client != "browser":
            for i in range(0, len(numbered) - 1, 2):
                numbered[i : i + 2] = reversed(numbered[i : i + 2])
        for media in numbered:
            caller.send(media)
        caller.hang_up()
        assert np.array_equal(await heard(peer), samples)
        assert peer.discarded().audio == 0


async def test_half_sample_at_the_end_is_dropped_and_counted(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with open_pair(encoding=AudioEncoding("pcm16", 8_000)) as (peer, client):
        for payload in (b"\1", b"\0\2\0\3", b"", b"\0\7"):
            client.send(Media(payload))
        client.hang_up()
        assert (await heard(peer)).tolist() == [1, 2, 3]
        assert peer.discarded().audio == 1
        assert (await peer.wait_closed()).reason is CloseReason.HUNG_UP
    (entry,) = warnings(caplog)
    assert "ended within a sample" in entry


async def test_half_sample_before_a_missing_chunk_does_not_shift_the_rest() -> None:
    samples = np.full(600, 0x0102, np.int16)
    data = samples.tobytes()
    async with open_pair(PlivoFraming, AudioEncoding("pcm16", 8_000)) as (peer, client):
        for number, start in enumerate(range(0, len(data), 41), 1):
            if number != 9:
                client.send(Media(data[start : start + 41], number))
        client.hang_up()
        sound = await heard(peer)
        assert np.abs(sound.astype(int) - 0x0102).max() < 0x40  # the concealment fades a little
        assert peer.audio_in.statistics().lost == 1


@pytest.mark.parametrize("number", ["x", None, 10**12, -4, [], True])
async def test_chunk_with_a_malformed_number_is_the_next(number: Any) -> None:
    async with open_pair(TwilioFraming) as (peer, client):
        for i in range(1, 6):
            payload = base64.b64encode(bytes([i]) * 160).decode()
            media = {"chunk": number if i == 3 else i, "payload": payload}
            client.say(json.dumps({"event": "media", "media": media}))
        client.hang_up()
        assert (await heard(peer)).size == 5 * 160
        assert peer.audio_in.statistics().lost == 0


VIOLATIONS = [
    '{"event": "media"}',
    '{"event": "media", "media": []}',
    '{"event": "media", "media": {"payload": 7}}',
    '{"event": "media", "media": {"payload": "%%%"}}',
    '{"event": "media", "media": {"payload": "AAA"}}',
    '{"event": "media", "media": {"payload": "\\ud83d"}}',
    "start",
]
OF_CARRIERS = ["not JSON", "[]", '{"event": 7}']  # messages for the handler from a browser


@pytest.mark.parametrize(
    ("client", "text"),
    [
        (client, text)
        for client in CLIENTS
        for text in (VIOLATIONS if client == "browser" else VIOLATIONS + OF_CARRIERS)
    ],
)
async def test_violation_closes_with_1008(client: str, text: str) -> None:
    make_framing, encoding = CLIENTS[client]
    ours, theirs = memory_sockets()
    write, read = make_framing(), make_framing()
    hello = write.encode(Start("me", encoding)) or ""
    start = read.decode(hello)
    assert isinstance(start, Start)
    await theirs.send(hello if text == "start" else text)
    peer = WebSocketPeer(ours, read, start)
    await peer.run()
    closed = await peer.wait_closed()
    assert closed.reason is CloseReason.PEER_FAILED
    assert closed.message.startswith("the client broke the protocol: ")
    assert ours.code == 1008
    if client == "browser":
        assert json.loads(await theirs.receive())["type"] == "error"
    await theirs.aclose()


async def test_half_an_emoji_is_replaced_in_its_message_alone(
    caplog: pytest.LogCaptureFixture,
) -> None:
    sent = ["before", "ha \ud83d ha", "\ude00", "\ud83d\ude00", "after"]
    received = ["before", "ha \ufffd ha", "\ufffd", "\U0001f600", "after"]
    async with open_pair() as (peer, client):
        for text in sent:
            peer.messages.send_nowait(text)
        assert [await client.receive_message() for _ in sent] == received
        assert peer.discarded().messages_out == 3
    async with MemoryPeer().open() as memory:
        memory.client.connect()
        for text in sent:
            memory.messages.send_nowait(text)
        with anyio.fail_after(1):
            assert [await memory.client.receive_message() for _ in sent] == received
        assert memory.discarded().messages_out == 3
    assert len(warnings(caplog)) == 2  # one for each connection


async def test_escaped_half_of_an_emoji_reaches_the_handler_and_comes_back_mended() -> None:
    async with open_pair() as (peer, client):
        client.say('{"type": "text", "data": "\\ud83d"}')
        peer.messages.send_nowait(json.loads(await peer.messages.receive())["data"])
        assert await client.receive_message() == "\ufffd"
