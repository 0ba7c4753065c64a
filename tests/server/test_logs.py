"""Calls on every transport: no secret in any log, and nothing about clients above level DEBUG."""

from __future__ import annotations

import base64
import json
import logging
import re
import time
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import asynccontextmanager, suppress
from typing import Any
from urllib.parse import urlencode

import anyio
import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from starlette.requests import HTTPConnection
from websockets.exceptions import InvalidStatus

from fastrtc_anyio import (
    AdditionalOutputs,
    IceServer,
    RequestLimits,
    RtcConfiguration,
    Session,
    Stream,
    TelephoneOptions,
    Textbox,
)
from fastrtc_anyio._core.records import flush_suppressed
from fastrtc_anyio._wire.call_xml import TOKEN_PARAMETER
from fastrtc_anyio._wire.events import Framing, Start
from fastrtc_anyio._wire.fastrtc import FastRTCFraming
from fastrtc_anyio._wire.payload import MULAW_8K
from fastrtc_anyio._wire.plivo import PlivoFraming
from fastrtc_anyio._wire.signatures import sign_plivo, sign_twilio, telnyx_message
from fastrtc_anyio._wire.telnyx import TelnyxFraming
from fastrtc_anyio._wire.twilio import TwilioFraming
from fastrtc_anyio.server.launch import open_page
from tests.kit.aiortc_client import open_client
from tests.kit.calls import accept, make_offer, without_candidates
from tests.kit.waiting import wait_until
from tests.kit.websockets import open_client as open_socket
from tests.kit.websockets import open_wire

SECRET, PRIVATE, FORGED = "sEcReT", "pRiVaTe", "fOrGeD"
"""Beginnings of planted texts: passwords, tokens and cookies; messages, ids and other data; lines
that clients try to add to the log."""
BREAK = f"\n{FORGED}\x1b[2J\u2028{FORGED}"
ADDRESS, PHONE = "203.0.113.77", "+15550100"
FLOOD = 30
TOKEN = f"{SECRET}-token"
GIVEN = {
    "Authorization": f"Bearer {TOKEN}",
    "Cookie": f"session={SECRET}-cookie",
    "User-Agent": f"{PRIVATE}-agent",
}
QUERY = f"?token={SECRET}-query&user={SECRET}-user"
SDP = {"Content-Type": "application/sdp", **GIVEN}
KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
TELEPHONE = TelephoneOptions(
    auth_token=f"{SECRET}-twilio",
    plivo_auth_token=f"{SECRET}-plivo",
    telnyx_public_key=base64.b64encode(KEY.public_key().public_bytes_raw()).decode(),
    secret=f"{SECRET}-telnyx",
)
_OF_CLIENTS = re.compile(r"(httpx|httpcore|websockets|asyncio\.client)\b")
"""Loggers of the tests' own clients."""


class Log(logging.Handler):
    """Keeps the formatted records of all loggers."""

    def __init__(self) -> None:
        super().__init__()
        self.texts: list[tuple[int, str]] = []
        self.setFormatter(logging.Formatter("%(name)s %(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        if not _OF_CLIENTS.match(record.name):
            self.texts.append((record.levelno, self.format(record)))

    def find(self, pattern: str, level: int = logging.NOTSET) -> list[str]:
        """The records of a level and above that contain a pattern."""
        return [text for number, text in self.texts if number >= level and re.search(pattern, text)]

    def check(self) -> None:
        assert self.find(SECRET) == []
        assert self.find(r"ice-pwd:(?!\.\.\.)") == []
        planted = "|".join(map(re.escape, (PRIVATE, PHONE, ADDRESS)))
        private = rf"{planted}|127\.0\.0\.1\W{{1,3}}\d|a=ice|v=0"
        assert self.find(private, logging.INFO) == []
        assert self.find(rf"(?m)^{FORGED}|\x1b") == []
        # A traceback would show that an error escaped.
        assert self.find("Traceback", logging.INFO) == []
        assert self.find("", logging.ERROR) == []


@pytest.fixture
def log() -> Generator[Log, None, None]:
    log, root = Log(), logging.getLogger()
    before = root.level
    root.addHandler(log)
    root.setLevel(logging.DEBUG)
    yield log
    root.setLevel(before)
    root.removeHandler(log)


async def chat(session: Session) -> None:
    """Answer each message."""
    with suppress(anyio.EndOfStream):
        while True:
            message = await session.messages.receive()
            session.messages.send_nowait(f"{PRIVATE} answer to {message}")
            session.send_outputs(AdditionalOutputs(f"{PRIVATE} output"))


def authenticate(connection: HTTPConnection) -> bool | str:
    return connection.headers.get("authorization") == GIVEN["Authorization"] and f"{PRIVATE}-user"


@asynccontextmanager
async def open_stream(**options: Any) -> AsyncGenerator[tuple[Stream, str], None]:
    """Serve a stream as ``launch`` does, with TURN servers that do not answer."""
    server = "turn:127.0.0.1:9?transport=udp"
    stream = Stream(
        chat,
        modality="audio",
        concurrency_limit=None,
        verbose=True,
        request_limits=RequestLimits(early_seconds=0.1),
        additional_inputs=[Textbox("Note")],
        additional_outputs=[Textbox("Heard")],
        rtc_configuration={
            "iceServers": [
                {"urls": server, "username": f"{SECRET}-turn", "credential": f"{SECRET}-word"}
            ]
        },
        server_rtc_configuration=RtcConfiguration(
            (IceServer((server,), f"{PRIVATE}-turn", f"{SECRET}-word"),),
            addresses=("127.0.0.1",),
            gather_timeout=0.05,
        ),
        **options,
    )
    async with open_page(stream, "127.0.0.1", 0) as url:
        yield stream, url


@asynccontextmanager
async def open_guarded() -> AsyncGenerator[tuple[Stream, httpx.AsyncClient], None]:
    async with (
        open_stream(authenticate=authenticate) as (stream, url),
        httpx.AsyncClient(base_url=url, headers=GIVEN) as http,
    ):
        yield stream, http


def plant(sdp: str) -> str:
    """Add data to a description that some clients write."""
    candidate = f"a=candidate:9 1 udp 1 {ADDRESS} 9 typ host\r\n"
    named = sdp.replace("\r\ns=-", f"\r\ns={PRIVATE}-name")
    return re.sub(r"(?m)^(m=.*\r\n)", rf"\1i={PRIVATE}-section\r\n{candidate}", named)


async def test_call_over_webrtc_with_trickled_candidates(log: Log) -> None:
    async with open_guarded() as (stream, http), open_client() as client:
        config = await http.get(f"/webrtc/config{QUERY}")
        assert f"{SECRET}-word" in config.text
        assert (await http.get(f"/{QUERY}")).status_code == 200
        assert (await http.get(f"/webrtc/config{QUERY}", headers={"Authorization": ""})).is_error
        origin = {"Origin": f"https://{PRIVATE}.example"}
        assert (await http.get(f"/webrtc/config{QUERY}", headers=origin)).status_code == 403
        host = {"Host": f"{PRIVATE}.example"}
        assert (await http.get(f"/webrtc/config{QUERY}", headers=host)).is_error
        offer, candidates = without_candidates(await make_offer(client, channel=True))
        mine = f"{PRIVATE}-id{BREAK}"
        body = {"type": "offer", "sdp": plant(offer), "webrtc_id": mine}
        reply = await http.post(f"/webrtc/offer{QUERY}", json=body)
        assert reply.status_code == 200, reply.text
        await accept(client, reply.json()["sdp"])
        for line in [*candidates, f"candidate:{PRIVATE} nonsense{BREAK}", None]:
            candidate = line and {"candidate": line, "sdpMid": "0", "sdpMLineIndex": 0}
            trickled = {"type": "ice-candidate", "candidate": candidate, "webrtc_id": mine}
            await http.post(f"/webrtc/offer{QUERY}", json=trickled)
        await wait_until(client.connected.is_set)
        client.send_message(f'{{"type": "{PRIVATE}"}}')
        client.send_message(f"{PRIVATE} question")
        assert PRIVATE in await client.receive_message()
        note = {"webrtc_id": mine, "note": f"{PRIVATE} note"}
        assert (await http.post(f"/input_hook{QUERY}", json=note)).is_error  # a session function
        client.hang_up()
        await wait_until(lambda: stream.active == 0)
    log.check()
    assert log.find("session .*: answered", logging.INFO)
    assert log.find(PRIVATE + r".*\\n" + FORGED), "the test plants what a log at DEBUG shows"


async def test_calls_over_whip_and_whep(log: Log) -> None:
    secrets: list[str] = []
    async with open_guarded() as (stream, http):
        for path in ("/whip", "/whep"):
            async with open_client() as client:
                offer = plant(await make_offer(client))
                reply = await http.post(f"{path}{QUERY}", content=offer, headers=SDP)
                assert reply.status_code == 201, reply.text
                await accept(client, reply.text)
                await wait_until(client.connected.is_set)
                location = reply.headers["location"]
                secrets.append(location.rpartition("/")[2])
                fragment = {**GIVEN, "Content-Type": "application/trickle-ice-sdpfrag"}
                text = f"a=ice-ufrag:{PRIVATE}\r\na=ice-pwd:{SECRET}{'x' * 22}\r\n"
                refused = await http.patch(location, content=text, headers=fragment)
                assert refused.is_error
                assert (await http.delete(location)).status_code == 200
        await wait_until(lambda: stream.active == 0)
        refused = await http.post(f"/whip{QUERY}", content=f"v=0\r\n{PRIVATE}", headers=SDP)
        assert refused.status_code == 400
    log.check()
    assert log.find(re.escape(secrets[0])) == []  # with the id a client can end the session


def rejected_bodies(offer: str) -> list[str | dict[str, Any]]:
    mine = f"{PRIVATE}-id{BREAK}"
    return [
        f"{{{PRIVATE}",
        {"type": PRIVATE},
        {"type": "offer", "sdp": PRIVATE, "webrtc_id": mine},
        {"type": "offer", "sdp": offer.replace("opus", PRIVATE), "webrtc_id": mine},
        {"type": "offer", "sdp": re.sub("a=fingerprint:.*", f"a=fingerprint:{PRIVATE}", offer)},
        {"type": "offer", "sdp": re.sub("a=ice-pwd:.*", f"a=ice-pwd:{SECRET}", offer)},
        {"type": "offer", "sdp": re.sub("a=mid:.*", f"a=mid:{PRIVATE}", offer, count=1) + "a=x"},
        {"type": "offer", "sdp": offer, "webrtc_id": PRIVATE * 100},
        {"type": "ice-candidate", "webrtc_id": mine, "candidate": {"candidate": PRIVATE}},
    ]


async def test_rejected_requests(log: Log) -> None:
    async with open_guarded() as (_, http), open_client() as client:
        for body in rejected_bodies(await make_offer(client)):
            content: dict[str, Any] = {"content": body} if isinstance(body, str) else {"json": body}
            await http.post(f"/webrtc/offer{QUERY}", **content)
            await http.post(f"/input_hook{QUERY}", **content)
        for path in ("outputs", "whip/x", PRIVATE):
            await http.get(f"/{path}{QUERY}&webrtc_id={PRIVATE}-unknown")
    log.check()


async def test_call_over_websocket(log: Log) -> None:
    async with open_guarded() as (stream, http):
        url, path = str(http.base_url), f"/websocket/offer{QUERY}"
        for headers in ({}, {"Origin": f"https://{PRIVATE}.example", **GIVEN}):
            with pytest.raises(InvalidStatus):
                async with open_wire(url, path, headers):
                    pytest.fail("admitted")
        messages: list[str | bytes] = [
            f'{{"event": "{PRIVATE}"}}',
            f"{{{PRIVATE}",
            f'{{"event": "start", "websocket_id": ["{PRIVATE}"]}}',
            json.dumps({"event": "start", "websocket_id": "x", "encoding": PRIVATE + BREAK}),
            PRIVATE.encode(),
            '{"event": "start"}',
        ]
        start = Start(f"{PRIVATE}-id", MULAW_8K)
        begin = FastRTCFraming().encode(start) or ""
        for message in messages:
            for before in ([], [begin, f"{PRIVATE} question"]):
                async with open_wire(url, path, GIVEN) as wire:
                    for text in [*before, message]:
                        await wire.send(text)
                    with suppress(anyio.BrokenResourceError):  # closed before
                        await wire.send(begin)
                    await wire.aclose()
        await wait_until(lambda: stream.active == 0)
    log.check()
    assert log.find("was closed: the encoding must be one of mulaw, pcm16$", logging.INFO)


def sign(carrier: str, url: str, form: dict[str, str]) -> dict[str, str]:
    """Headers with the signature of a carrier."""
    if carrier == "twilio":
        return {"X-Twilio-Signature": sign_twilio(f"{SECRET}-twilio", url, form.items())}
    if carrier == "plivo":
        signature = sign_plivo(f"{SECRET}-plivo", "12", url, list(form.items()))
        return {"X-Plivo-Signature-V3": signature, "X-Plivo-Signature-V3-Nonce": "12"}
    now = str(int(time.time()))
    signed = KEY.sign(telnyx_message(now, urlencode(form).encode()))
    return {
        "Telnyx-Timestamp": now,
        "Telnyx-Signature-Ed25519": base64.b64encode(signed).decode(),
    }


CARRIERS: list[tuple[str, Callable[[], Framing]]] = [
    ("twilio", TwilioFraming),
    ("telnyx", TelnyxFraming),
    ("plivo", PlivoFraming),
]


async def test_calls_from_telephones(log: Log) -> None:
    form = {"CallSid": f"{PRIVATE}-call", "From": PHONE, "To": PHONE, "SpeechResult": PRIVATE}
    async with (
        open_stream(telephone=TELEPHONE) as (stream, url),
        httpx.AsyncClient(headers=GIVEN) as http,
    ):
        incoming, handler = f"{url}/telephone/incoming{QUERY}", "/telephone/handler"
        for carrier, framing in CARRIERS:
            assert (await http.post(incoming, data=form)).status_code == 403
            reply = await http.post(incoming, data=form, headers=sign(carrier, incoming, form))
            assert reply.status_code == 200, reply.text
            given = {"customer": f"{SECRET}-customer", "number": PHONE}
            if token := re.search(f'name="{TOKEN_PARAMETER}" value="([^"]+)"', reply.text):
                given[TOKEN_PARAMETER] = token[1]
            start = Start(f"{PRIVATE}-stream", MULAW_8K, f"{PRIVATE}-call", given)
            headers = sign(carrier, f"{url}{handler}".replace("http", "ws"), {})
            async with open_socket(url, start, framing(), handler, headers) as client:
                await wait_until(lambda: stream.active == 1)
                client.press("5")
                client.say(f'{{"event": "dtmf", "dtmf": {{"digit": "{PRIVATE}"}}}}')
                client.say(f'{{"event": "{PRIVATE}", "x": "{PHONE}"}}')
                client.say(f"{{{PRIVATE}")
                await wait_until(lambda: stream.active == 0)
            with suppress(InvalidStatus):
                async with open_wire(url, handler) as wire:
                    given[TOKEN_PARAMETER] = SECRET
                    await wire.send(framing().encode(start) or "")
                    await wire.receive_end()
    log.check()
    assert log.find("peer_failed.*the client broke the protocol", logging.WARNING)


class Failing(Exception):
    """An error of the application."""


async def fail(session: Session) -> None:
    raise Failing(f"no{BREAK}")


async def test_records_of_a_flood_are_counted(log: Log) -> None:
    """At most 20 records of each kind are logged in a minute, and the others are counted."""
    stream = Stream(fail, modality="audio", concurrency_limit=None)
    start = FastRTCFraming().encode(Start("x", MULAW_8K)) or ""
    origin = {"Origin": f"https://{PRIVATE}.example"}
    async with open_page(stream, "127.0.0.1", 0) as url, httpx.AsyncClient() as http:
        for _ in range(FLOOD):
            await http.get(f"{url}/webrtc/config", headers=origin)
            for text in ("{", start):
                async with open_wire(url) as wire:
                    await wire.send(text)
                    await wire.receive_end()
        await wait_until(lambda: stream.active == 0)
    flush_suppressed()
    for pattern in ("a request was refused", "a WebSocket was closed", r"session \S+ \("):
        logged = log.find(f"fastrtc_anyio {pattern}", logging.INFO)
        assert 10 <= len(logged) <= 20, pattern
    texts = "\n".join(log.find("suppressed", logging.INFO))
    counts = re.findall(r"(\d+) records were suppressed: (.*)|\((\d+) similar", texts)
    assert sum(int(total or rest) for total, _, rest in counts) >= 3 * (FLOOD - 20)
    assert log.find(rf"(?m)^{FORGED}|\x1b") == []
    assert log.find("Failing: no")
