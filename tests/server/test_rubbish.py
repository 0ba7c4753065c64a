"""Any posted body gets a 200 or a 400 with an error, and leaves no session behind."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Generator
from contextlib import suppress

import httpx
import pytest
from anyio import from_thread
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.applications import Starlette

from fastrtc_anyio import Limits
from fastrtc_anyio.server.launch import open_server
from tests.kit.aiortc_client import AiortcClient, Microphone, client_loop
from tests.kit.calls import make_stream
from tests.kit.waiting import POLL

ordinary = settings(max_examples=60, deadline=None, derandomize=True, database=None)

CHROME = """\
v=0
o=- 4611731400430051336 2 IN IP4 127.0.0.1
s=-
t=0 0
a=group:BUNDLE 0 1 2
a=extmap-allow-mixed
a=msid-semantic: WMS 6a4b
m=audio 54321 UDP/TLS/RTP/SAVPF 111 63 9 0 8 13 110 126
c=IN IP4 127.0.0.1
a=rtcp:9 IN IP4 0.0.0.0
a=candidate:1 1 udp 2122260223 127.0.0.1 54321 typ host generation 0 network-id 1
a=candidate:2 1 tcp 1518280447 127.0.0.1 9 typ host tcptype active generation 0
a=ice-ufrag:8hhY
a=ice-pwd:asd88fgpdd777uzjYhagZg41
a=ice-options:trickle
a=fingerprint:sha-256 FINGERPRINT
a=setup:actpass
a=mid:0
a=extmap:1 urn:ietf:params:rtp-hdrext:ssrc-audio-level
a=extmap:4 urn:ietf:params:rtp-hdrext:sdes:mid
a=sendrecv
a=msid:6a4b 1f2e
a=rtcp-mux
a=rtpmap:111 opus/48000/2
a=rtcp-fb:111 transport-cc
a=fmtp:111 minptime=10;useinbandfec=1
a=rtpmap:63 red/48000/2
a=fmtp:63 111/111
a=rtpmap:9 G722/8000
a=rtpmap:0 PCMU/8000
a=rtpmap:8 PCMA/8000
a=rtpmap:13 CN/8000
a=rtpmap:110 telephone-event/48000
a=rtpmap:126 telephone-event/8000
a=ssrc:1234567 cname:abcd
m=video 9 UDP/TLS/RTP/SAVPF 96 97
c=IN IP4 0.0.0.0
a=rtcp:9 IN IP4 0.0.0.0
a=ice-ufrag:8hhY
a=ice-pwd:asd88fgpdd777uzjYhagZg41
a=fingerprint:sha-256 FINGERPRINT
a=setup:actpass
a=mid:1
a=sendrecv
a=rtcp-mux
a=rtcp-rsize
a=rtpmap:96 VP8/90000
a=rtcp-fb:96 nack pli
a=rtpmap:97 rtx/90000
a=fmtp:97 apt=96
a=ssrc-group:FID 11 22
a=ssrc:11 cname:abcd
a=ssrc:22 cname:abcd
m=application 9 UDP/DTLS/SCTP webrtc-datachannel
c=IN IP4 0.0.0.0
a=ice-ufrag:8hhY
a=ice-pwd:asd88fgpdd777uzjYhagZg41
a=fingerprint:sha-256 FINGERPRINT
a=setup:actpass
a=mid:2
a=sctp-port:5000
a=max-message-size:262144
""".replace("FINGERPRINT", ":".join(["AB"] * 32)).replace("\n", "\r\n")


def _aiortc_offer() -> str:
    with client_loop() as loop:
        client = AiortcClient(loop, Microphone())
        offer = client.run(client.make_offer, None, True)
        client.run(client.close)
    return offer


class Server:
    """A server in a thread, and a client that checks each reply and that no session remains."""

    def __init__(self, url: str, portal: from_thread.BlockingPortal, http: httpx.Client) -> None:
        self.url, self.portal, self.http = url, portal, http
        self.stream = make_stream(concurrency_limit=None, limits=Limits(connect=0.02))

    def post(self, body: bytes) -> int:
        reply = self.http.post(f"{self.url}/webrtc/offer", content=body)
        if reply.status_code == 200:
            assert reply.json() == {"status": "success"} or reply.json()["type"] == "answer"
        else:
            assert reply.status_code == 400, (reply.status_code, reply.text)
            assert reply.json()["status"] == "failed"
            assert reply.json()["meta"]["error"]
        deadline = time.monotonic() + 5
        while self.portal.call(lambda: len(self.stream.sessions)):
            assert time.monotonic() < deadline, "a session was left behind"
            time.sleep(POLL / 10)
        return reply.status_code

    def offer(self, sdp: str) -> int:
        return self.post(json.dumps({"type": "offer", "sdp": sdp, "webrtc_id": "a"}).encode())


@pytest.fixture(scope="module", params=["asyncio", "trio"])
def server(request: pytest.FixtureRequest) -> Generator[Server, None, None]:
    with from_thread.start_blocking_portal(request.param) as portal, httpx.Client() as http:
        server = Server("", portal, http)
        app = Starlette()
        server.stream.mount(app)
        with portal.wrap_async_context_manager(open_server(app)) as url:
            server.url = url
            yield server


HANDSHAKE = (
    b"GET /websocket/offer HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n"
    b"Connection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
)


@pytest.mark.parametrize(
    "parts",
    [
        [b"\x16\x03\x01" + bytes(range(256))],
        [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(range(256))],
        [HANDSHAKE + b"Transfer-Encoding: chunked\r\n\r\n", b"zz\r\n"],
        [HANDSHAKE + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n"],
        [HANDSHAKE + b"\r\n" + bytes(range(256))],
    ],
)
def test_invalid_http_ends_only_its_connection(
    server: Server, parts: list[bytes], caplog: pytest.LogCaptureFixture
) -> None:
    url = httpx.URL(server.url)
    with socket.create_connection((url.host, url.port or 80)) as connection:
        for part in parts:
            connection.sendall(part)
            connection.settimeout(10)
            connection.recv(65_536)
        connection.shutdown(socket.SHUT_WR)
        with suppress(ConnectionError):
            while connection.recv(65_536):
                pass
    assert server.offer(CHROME) == 200
    assert not [record for record in caplog.records if record.exc_info]


_OFFER = _aiortc_offer()


def test_unmutated_offers_are_accepted(server: Server) -> None:
    assert server.offer(CHROME) == 200
    assert server.offer(_OFFER) == 200


@ordinary
@given(st.binary(max_size=200))
def test_arbitrary_bytes_are_a_400(server: Server, body: bytes) -> None:
    assert server.post(body) == 400


@pytest.mark.parametrize(
    "sdp",
    [
        CHROME.replace("a=mid:0", "a=mid:\ud800"),
        CHROME.replace("a=mid:0", "a=mid:\ud800").replace("BUNDLE 0", "BUNDLE \ud800"),
        CHROME.replace("opus/48000/2", "opus/48000"),
        CHROME.replace("m=audio", "m=video"),
        CHROME.replace("a=sendrecv", "a=inactive"),
        CHROME.replace("a=sendrecv\r\n", ""),
        CHROME.replace("a=mid:0", "a=mid:x"),
        CHROME.replace("BUNDLE 0", "BUNDLE x"),
        CHROME.replace("a=rtcp-mux\r\n", ""),
        CHROME.replace("a=setup:actpass\r\n", ""),
        CHROME.replace("\r\n", "\n"),
        CHROME.replace("m=video 9 UDP/TLS/RTP/SAVPF 96 97\r\n", ""),
    ],
)
def test_changed_offer_is_answered_or_a_400(server: Server, sdp: str) -> None:
    server.offer(sdp)
