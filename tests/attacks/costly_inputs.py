"""Inputs that are costly to process, each of a client that the server has not authenticated."""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
import socket
import struct
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from fractions import Fraction
from typing import Any
from urllib.parse import urlsplit

import av
import httpx
from aiortc.rtcsctptransport import (
    ForwardTsnChunk,
    HeartbeatChunk,
    InitChunk,
    ReconfigChunk,
    SackChunk,
)
from aiortc.rtp import RtpPacket
from google_crc32c import value as crc32c
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from tests.kit.aiortc_client import AiortcClient, client_loop
from tests.kit.offers import SAVPF, audio, data, describe, section

BODY = 524_000
"""Bytes of a body just below the limit."""
MESSAGE = 262_000
"""Bytes of a message just below the limit."""
_numbers = itertools.count(1)

Attack = Callable[[str], object]
"""Sends an input to the server at a URL."""

# Offers.

ALL = " ".join(str(number) for number in range(128))
FEEDBACK = [f"a=rtcp-fb:* {kind}" for kind in ("nack", "nack pli", "goog-remb")]
REPEATED = [f"a=rtpmap:{number} VP8/90000" for number in range(44)]
H264 = [f"a=rtpmap:{number} H264/90000" for number in range(128)]
PROFILES = [
    f"a=fmtp:{n} level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=4200{n:02x}"
    for n in range(128)
]
CANDIDATE = "a=candidate:1 1 udp 1 127.0.0.1 9 typ host\n"


def _audio_with(*lines: str) -> str:
    return describe(audio("0", "sendrecv", *lines))


OFFERS = {
    "repeated codecs": describe(
        audio(),
        *[section(f"video 9 {SAVPF} 96", str(i), *REPEATED, *FEEDBACK) for i in range(1, 31)],
    ),
    "formats in each section": describe(
        audio(),
        *[section(f"video 9 {SAVPF} {ALL}", str(i), *REPEATED, *FEEDBACK) for i in range(1, 31)],
    ),
    "audio sections": describe(*[audio(str(i)) for i in range(32)]),
    "data sections": describe(audio(), *[data(str(i)) for i in range(1, 32)]),
    "sources": _audio_with(*[f"a=ssrc:{i} cname:{'x' * 200}" for i in range(1900)]),
    "parameters": _audio_with(*[f"a=fmtp:111 {'a=b;' * 60}"] * 1900),
    "blank lines": "v=0" + "\n" * 260_000,
    "candidates": describe(audio()) + CANDIDATE * 11_000,
    "short candidates": describe(audio()) + "a=candidate:\n" * 37_000,
    "groups": describe(audio(), session=(f"a=group:BUNDLE {'0 ' * 120}",) * 1900),
    "fingerprints": _audio_with(*[f"a=fingerprint:sha-{i} {'AB:' * 63}AB" for i in range(1900)]),
    "extensions": _audio_with(*[f"a=extmap:{i % 256} {'u' * 250}" for i in range(1900)]),
    "feedback": _audio_with(*[f"a=rtcp-fb:{i} nack" for i in range(1900)]),
    "spaces": "v=0\n" + f"m=audio 9 A{' ' * 4000}\1\n" * 100,
    "long line": "v=0\ns=" + "x" * 520_000,
    "long attribute": _audio_with(*["a=" + "X" * 250 + ":1"] * 1900),
}
VIDEO_OFFERS = {
    "vp8 formats": describe(
        section(
            f"video 9 {SAVPF} {ALL}",
            "0",
            *[f"a=rtpmap:{number} VP8/90000" for number in range(128)],
            *FEEDBACK,
        )
    ),
    "h264 formats": describe(section(f"video 9 {SAVPF} {ALL}", "0", *H264, *PROFILES, *FEEDBACK)),
}


def _post_offer(sdp: str, path: str = "") -> Attack:
    def attack(url: str) -> None:
        for _ in range(2):
            body = {"type": "offer", "sdp": sdp, "webrtc_id": f"attacker {next(_numbers)}"}
            reply = httpx.post(f"{url}{path}/webrtc/offer", json=body, timeout=20)
            assert "RequestLimits.body_bytes" not in reply.text

    return attack


def _post_sdp(sdp: str, path: str) -> Attack:
    def attack(url: str) -> None:
        headers = {"Content-Type": "application/sdp"}
        httpx.post(f"{url}{path}", content=sdp, headers=headers, timeout=20)

    return attack


# Bodies.

JSON = {
    "objects": "[" + "{}," * (BODY // 3 - 2) + "0]",
    "arrays": "[" + "[]," * (BODY // 3 - 2) + "0]",
    "numbers": "[" + "0," * (BODY // 2 - 2) + "0]",
    "keys": "{" + ",".join(f'"{i}":0' for i in range(46_000)) + "}",
    "depth": "[" * BODY,
    "digits": "[" + ",".join(["1" * 4299] * (BODY // 4301)) + "]",
}


def _post_body(path: str, body: str | bytes, kind: str = "application/json") -> Attack:
    def attack(url: str) -> None:
        for _ in range(3):
            with suppress(httpx.HTTPError):  # the server may close the connection
                httpx.post(f"{url}{path}", content=body, headers={"Content-Type": kind}, timeout=20)

    return attack


def _patch(body: str) -> Attack:
    def attack(url: str) -> None:
        with httpx.Client(base_url=url, timeout=20) as http:
            offer = describe(audio("0", "sendonly"))
            created = http.post("/whip", content=offer, headers={"Content-Type": "application/sdp"})
            if created.status_code == 201:
                headers = {"If-Match": created.headers["etag"]}
                headers["Content-Type"] = "application/trickle-ice-sdpfrag"
                http.patch(created.headers["location"], content=body, headers=headers)
                http.delete(created.headers["location"])

    return attack


def _send_raw(data: bytes) -> Attack:
    def attack(url: str) -> None:
        place = urlsplit(url)
        assert place.hostname is not None
        with (
            suppress(OSError),
            socket.create_connection((place.hostname, place.port or 80), timeout=5) as connection,
        ):
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)
            while connection.recv(65_536):
                pass

    return attack


def _form(count: int) -> bytes:
    return b"&".join(b"a=b" for _ in range(count))


HEAD = b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n"
REQUESTS = {
    "large header": HEAD + b"X: " + b"x" * 60_000 + b"\r\n\r\n",
    "many headers": HEAD + b"".join(b"X%d: 1\r\n" % i for i in range(4000)) + b"\r\n",
    "endless header": HEAD + b"X: " + b"x" * 5_000_000,
    "long query": b"GET /?" + b"a=b&" * 15_000 + b" HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
    "entity tags": b"PATCH /whip/x HTTP/1.1\r\nHost: 127.0.0.1\r\nIf-Match: "
    + b'W/"a",' * 10_000
    + b"\r\n\r\n",
    "pipelined requests": (HEAD + b"\r\n") * 200,
}

# WebSockets.

START = '{"event": "start", "websocket_id": "%s", "encoding": "%s", "sample_rate": %d}'
TWILIO = json.dumps(
    {"event": "start", "streamSid": "MZ1", "start": {"streamSid": "MZ1", "callSid": "CA1"}}
)


def _media(payload: bytes) -> str:
    encoded = base64.b64encode(payload).decode()
    return json.dumps({"event": "media", "media": {"payload": encoded}})


def _talk(first: str, messages: list[str | bytes], path: str = "/websocket/offer") -> Attack:
    def attack(url: str) -> None:
        address = url.replace("http", "ws", 1) + path
        with suppress(ConnectionClosed, OSError), _connect(address) as wire:
            wire.send(first if "%s" not in first else first % f"attacker {next(_numbers)}")
            for message in messages:
                wire.send(message)

    return attack


def _connect(address: str) -> ClientConnection:
    return connect(address, close_timeout=1, compression=None)


def _start(encoding: str, rate: int) -> str:
    return START % ("%s", encoding, rate)


WEBSOCKETS: dict[str, tuple[str, list[str | bytes], str]] = {
    "mulaw": (_start("mulaw", 8000), [_media(bytes(160))] * 3000, "/websocket/offer"),
    "large mulaw": (_start("mulaw", 8000), [_media(bytes(190_000))] * 20, "/websocket/offer"),
    "large pcm16": (_start("pcm16", 48_000), [_media(bytes(190_000))] * 20, "/websocket/offer"),
    "odd rate": (_start("mulaw", 8050), [_media(bytes(190_000))] * 20, "/websocket/offer"),
    "text": (_start("mulaw", 8000), ["x"] * 6000, "/websocket/offer"),
    "large text": (_start("mulaw", 8000), ["x" * MESSAGE] * 20, "/websocket/offer"),
    "objects": (_start("mulaw", 8000), ["[" + "{}," * 87_000 + "0]"] * 10, "/websocket/offer"),
    "numbers": (_start("mulaw", 8000), ["[" + "0," * 130_000 + "0]"] * 10, "/websocket/offer"),
    "binary": (_start("mulaw", 8000), [bytes(MESSAGE)] * 5, "/websocket/offer"),
    "keys": (TWILIO, ['{"event": "dtmf", "dtmf": {"digit": "1"}}'] * 3000, "/telephone/handler"),
    "carrier audio": (TWILIO, [_media(bytes(160))] * 3000, "/telephone/handler"),
    "large carrier audio": (TWILIO, [_media(bytes(190_000))] * 20, "/telephone/handler"),
    "carrier objects": (TWILIO, ["[" + "{}," * 87_000 + "0]"] * 5, "/telephone/handler"),
}

# WebRTC calls.


@contextmanager
def _call(url: str, **media: Any) -> Generator[AiortcClient, None, None]:
    """A call of an attacker, with a data channel."""
    with client_loop() as loop:
        client = AiortcClient(loop, None)
        options = {"codec": None, "channel": True, "audio": True, "video": None} | media
        offer = client.run(client.make_offer, *options.values())
        path = "" if options["audio"] else "/video"
        body = {"type": "offer", "sdp": offer, "webrtc_id": f"attacker {next(_numbers)}"}
        reply = httpx.post(f"{url}{path}/webrtc/offer", json=body, timeout=20)
        assert reply.status_code == 200, reply.text
        client.run(client.accept, reply.json()["sdp"])
        assert client.connected.wait(20)
        try:
            yield client
        finally:
            client.run(client.close)


def _flood_sctp(make: Callable[[Any], list[Any]], count: int, tag: int | None = None) -> Attack:
    def attack(url: str) -> None:
        with _call(url) as client:

            async def send() -> None:
                sctp: Any = client.pc.sctp
                while sctp.state != "connected":
                    await asyncio.sleep(0.01)
                verification = sctp._remote_verification_tag if tag is None else tag
                header = struct.pack("!HHL", 5000, 5000, verification)
                for number in range(count):
                    chunks = b"".join(map(bytes, make(sctp)))
                    checksum = struct.pack("<L", crc32c(header + bytes(4) + chunks))
                    with suppress(ConnectionError):
                        await sctp.transport._send_data(header + checksum + chunks)
                    if number % 20 == 0:
                        await asyncio.sleep(0.001)

            client.run(send)

    return attack


def many_acknowledgements(sctp: Any) -> list[Any]:
    """Chunks of which each names 65,536 numbers."""
    chunks = []
    for _ in range(70):
        chunk = SackChunk()
        chunk.cumulative_tsn, chunk.gaps = sctp._last_received_tsn, [(0, 65_535)]
        chunks.append(chunk)
    return chunks


def _resets(sctp: Any) -> list[Any]:
    chunk = ReconfigChunk()
    chunk.params = [(17, number.to_bytes(4) + bytes(4)) for number in range(100)]
    return [chunk]


def _init(sctp: Any) -> list[Any]:
    chunk = InitChunk()
    chunk.initiate_tag, chunk.advertised_rwnd = sctp._local_verification_tag, 1 << 20
    chunk.outbound_streams = chunk.inbound_streams = 65_535
    chunk.initial_tsn = sctp._local_tsn
    return [chunk]


def _forwards(sctp: Any) -> list[Any]:
    sctp._local_tsn += 1
    chunk = ForwardTsnChunk()
    chunk.cumulative_tsn = sctp._local_tsn
    chunk.streams = [(number, 1) for number in range(300)]
    return [chunk]


def _send_messages(messages: list[str]) -> Attack:
    def attack(url: str) -> None:
        with _call(url) as client:

            async def send() -> None:
                channel = client.channel
                assert channel is not None
                while channel.readyState == "connecting":
                    await asyncio.sleep(0.01)
                for message in messages:
                    while channel.bufferedAmount > 500_000:
                        await asyncio.sleep(0.001)
                        if channel.readyState != "open":
                            return
                    channel.send(message)

            with suppress(TimeoutError):
                client.run(asyncio.wait_for, send(), 3)

    return attack


def _flood_rtp(payload_type: int, payload: bytes, count: int, sources: int = 1) -> Attack:
    def attack(url: str) -> None:
        with _call(url) as client:

            async def send() -> None:
                (transceiver,) = client.pc.getTransceivers()
                transport: Any = transceiver.sender.transport
                for number in range(count):
                    packet = RtpPacket(
                        payload_type=payload_type,
                        ssrc=7 + number % sources,
                        sequence_number=number % 65_536,
                        timestamp=160 * number,
                        payload=payload,
                    )
                    with suppress(ConnectionError):
                        await transport._send_rtp(packet.serialize())
                    if number % 20 == 0:
                        await asyncio.sleep(0.001)

            client.run(send)

    return attack


def _flood_rtcp(url: str) -> None:
    with _call(url) as client:

        async def send() -> None:
            (transceiver,) = client.pc.getTransceivers()
            transport: Any = transceiver.sender.transport
            for _ in range(500):
                nack = (
                    struct.pack("!BBHLL", 0x81, 205, 2 + 300, 1, 7) + bytes([0, 1, 255, 255]) * 300
                )
                with suppress(ConnectionError):
                    await transport._send_rtp(nack)
                await asyncio.sleep(0.0005)

        client.run(send)


def _open_channels(url: str) -> None:
    with _call(url) as client:

        async def open_channels() -> None:
            for number in range(300):
                client.pc.createDataChannel(f"{number}{'x' * 500}")
                if number % 10 == 0:
                    await asyncio.sleep(0.005)

        client.run(open_channels)


def _restart(url: str) -> None:
    with _call(url) as client:
        described = client.pc.localDescription.sdp
        for number in range(25):
            offer = describe_again(described, number) + CANDIDATE * 2000
            body = {"type": "offer", "sdp": offer, "webrtc_id": "attacker"}
            body["webrtc_id"] = f"attacker {number}"
            httpx.post(f"{url}/webrtc/offer", json=body, timeout=20)


def describe_again(sdp: str, number: int) -> str:
    """Return an offer with other ICE credentials."""
    lines = []
    for line in sdp.splitlines():
        name = line.partition(":")[0]
        if name in ("a=ice-ufrag", "a=ice-pwd"):
            line = f"{name}:{str(number).zfill(24)}"
        if name not in ("a=candidate", "a=end-of-candidates"):
            lines.append(line)
    return "\n".join([*lines, ""])


def _send_candidates(url: str) -> None:
    with httpx.Client(base_url=url, timeout=20) as http:
        for number in range(150):
            line = f"candidate:{number} 1 udp {number} 127.0.0.1 {20_000 + number} typ host"
            candidate = {"candidate": line, "sdpMid": "0"}
            body = {"type": "ice-candidate", "candidate": candidate, "webrtc_id": "nobody"}
            http.post("/webrtc/offer", json=body)


# Pictures.


def encode_pictures(side: int, count: int) -> list[bytes]:
    """A key frame of VP8 with noise at its edges, and pictures in which nothing changes."""
    encoder = av.CodecContext.create("libvpx", "w")
    assert isinstance(encoder, av.VideoCodecContext)
    encoder.width = encoder.height = side
    encoder.pix_fmt, encoder.time_base, encoder.bit_rate = "yuv420p", Fraction(1, 30), 100_000
    encoder.options = {"deadline": "realtime", "cpu-used": "8", "lag-in-frames": "0", "qmin": "63"}
    made: list[bytes] = []
    for number in range(count):
        frame = av.VideoFrame(side, side, "yuv420p")
        for plane in frame.planes:
            plane.update(bytes(plane.buffer_size))
        frame.pts = number
        made += [bytes(packet) for packet in encoder.encode(frame)]
    return made


def _send_pictures(side: int, rate: float, count: int) -> Attack:
    made: list[bytes] = []

    def attack(url: str) -> None:
        made[:] = made or encode_pictures(side, 2)
        with _call(url, channel=False, audio=False, video="sendrecv", video_codec="VP8") as client:
            sent = asyncio.Event()
            numbers = itertools.count()

            async def recv() -> av.Packet[Any]:
                await asyncio.sleep(1 / rate)
                number = next(numbers)
                if number == count:
                    sent.set()
                packet: av.Packet[Any] = av.Packet(made[0 if number % 50 == 0 else 1])
                packet.pts = packet.dts = number * 3000
                packet.time_base = Fraction(1, 90_000)
                return packet

            track: Any = client.camera
            track.recv = recv
            client.run(asyncio.wait_for, sent.wait(), 10)
        # The call ends while pictures wait for the decoder.

    return attack


ATTACKS: dict[str, Attack] = {
    **{f"offer: {name}": _post_offer(sdp) for name, sdp in OFFERS.items()},
    **{f"offer: {name}": _post_offer(sdp, "/video") for name, sdp in VIDEO_OFFERS.items()},
    **{
        f"{protocol}: {name}": _post_sdp(OFFERS[name], f"/{protocol}")
        for protocol in ("whip", "whep")
        for name in ("repeated codecs", "blank lines", "short candidates", "parameters")
    },
    "fragment: blank lines": _patch("\n" * BODY),
    "fragment: candidates": _patch(f"m=audio 9 RTP 0\na=mid:0\n{CANDIDATE * 1000}"),
    "fragment: short candidates": _patch("a=candidate:\n" * 39_000),
    "fragment: users": _patch("".join(f"a=ice-ufrag:{i}\na=ice-pwd:{i}\n" for i in range(19_000))),
    **{f"offer: JSON {name}": _post_body("/webrtc/offer", text) for name, text in JSON.items()},
    "offer: too large": _post_body("/webrtc/offer", bytes(5_000_000)),
    **{
        f"input: JSON {name}": _post_body("/input_hook", JSON[name])
        for name in ("objects", "numbers", "keys")
    },
    "input: text": _post_body("/input_hook", json.dumps({"webrtc_id": "x", "Name": "x" * 500_000})),
    "form: fields": _post_body(
        "/telephone/incoming", _form(BODY // 4), "application/x-www-form-urlencoded"
    ),
    "form: escapes": _post_body(
        "/telephone/incoming", b"a=" + b"%41" * 170_000, "application/x-www-form-urlencoded"
    ),
    **{f"request: {name}": _send_raw(data) for name, data in REQUESTS.items()},
    **{f"websocket: {name}": _talk(*talk) for name, talk in WEBSOCKETS.items()},
    "channel: small messages": _send_messages(["x"] * 3000),
    "channel: digits": _send_messages(['{"type": "dtmf", "data": "1"}'] * 3000),
    "channel: large messages": _send_messages(["x" * 200_000] * 20),
    "channel: JSON": _send_messages(['["dtmf",' + "{}," * 65_000 + "0]"] * 20),
    "channel: channels": _open_channels,
    "sctp: acknowledgements": _flood_sctp(many_acknowledgements, 100),
    "sctp: resets": _flood_sctp(_resets, 500),
    "sctp: INIT": _flood_sctp(_init, 1000, tag=0),
    "sctp: heartbeats": _flood_sctp(lambda _: [HeartbeatChunk() for _ in range(300)], 300),
    "sctp: streams": _flood_sctp(_forwards, 300),
    "rtp: telephone events": _flood_rtp(101, bytes([5, 10, 0, 160]), 3000),
    "rtp: audio": _flood_rtp(96, bytes([0x78]) * 1100, 3000),
    "rtp: sources": _flood_rtp(96, bytes([0x78]) * 100, 2000, sources=500),
    "rtcp: retransmissions": _flood_rtcp,
    "ice: restarts": _restart,
    "ice: early candidates": _send_candidates,
    "pictures: 4800 x 4800": _send_pictures(4800, 10, 20),
    "pictures: 2048 at 200 a second": _send_pictures(2048, 200, 150),
}
