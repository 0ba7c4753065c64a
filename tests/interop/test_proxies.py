"""Calls through nginx and Caddy, with the configurations of the deployment guide."""

from __future__ import annotations

import json
import secrets
import socket
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
from websockets.exceptions import InvalidStatus

from fastrtc_anyio import AdditionalOutputs, RequestLimits, Session, Stream, Textbox
from fastrtc_anyio.testing import tone
from tests.kit.aiortc_client import open_client as open_caller
from tests.kit.backends import anyio_backend as anyio_backend
from tests.kit.backends import on_asyncio
from tests.kit.calls import accept, make_offer, make_stream, only_session, place_call, serve
from tests.kit.measure import FREQUENCY, check_echo, speak
from tests.kit.waiting import SECONDS, wait_until
from tests.kit.websockets import open_client, open_wire, wait_for_echo

from .proxies import HOST, PROXIES

pytestmark = [
    pytest.mark.interop,
    pytest.mark.parametrize("proxy", PROXIES),
    # httpx nests async generators to read a body, and closes the outermost only.
    pytest.mark.filterwarnings("ignore:Async generator 'http:ResourceWarning"),
]

SDP = {"Content-Type": "application/sdp"}


@pytest.fixture(autouse=True)
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Resolve the name of the site to this machine, and trust its certificate."""
    resolve = socket.getaddrinfo

    def lookup(host: Any, *args: Any, **options: Any) -> Any:
        named = host in (HOST, HOST.encode())
        return resolve("127.0.0.1" if named else host, *args, **options)

    monkeypatch.setattr(socket, "getaddrinfo", lookup)
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "fullchain.pem"))


@asynccontextmanager
async def serve_behind(proxy: str, folder: Path, stream: Stream) -> AsyncGenerator[str, None]:
    """Serve a stream behind a proxy, and yield the URL of the site."""
    async with serve(stream) as upstream, PROXIES[proxy](folder, upstream) as url:
        yield url


def count_received(session: Session) -> int:
    audio = session.statistics().audio_in
    return 0 if audio is None else audio.received


def make_site(**options: Any) -> Stream:
    options.setdefault("trusted_proxies", ["127.0.0.1"])
    return make_stream(allowed_hosts=[HOST], **options)


async def test_webrtc_call_and_its_outputs_pass(proxy: str, tmp_path: Path) -> None:
    stream = make_site(additional_outputs=[Textbox("Heard")])
    async with serve_behind(proxy, tmp_path, stream) as url, place_call(url, "caller") as client:
        await check_echo(client)
        async with (
            httpx.AsyncClient() as http,
            http.stream("GET", f"{url}/outputs?webrtc_id=caller") as reply,
        ):
            assert reply.headers["content-type"].startswith("text/event-stream")
            lines = reply.aiter_lines()
            # The proxy passes each event on while the response continues.
            for said in ("one", "two"):
                only_session(stream).send_outputs(AdditionalOutputs(said))
                with anyio.fail_after(SECONDS):
                    while not (line := await anext(lines)).startswith("data: "):
                        pass
                assert json.loads(line.removeprefix("data: ")) == {"heard": said}


async def test_websocket_call_passes(proxy: str, tmp_path: Path) -> None:
    async with (
        serve_behind(proxy, tmp_path, make_site()) as url,
        open_client(url, headers={"Origin": url}) as client,
    ):
        await wait_for_echo(client)


async def test_whip_client_follows_its_location(proxy: str, tmp_path: Path) -> None:
    stream = make_site()
    async with (
        serve_behind(proxy, tmp_path, stream) as url,
        httpx.AsyncClient(http2=True) as http,
        open_caller() as client,
    ):
        reply = await http.post(f"{url}/whip", content=await make_offer(client), headers=SDP)
        assert (reply.status_code, reply.http_version) == (201, "HTTP/2")
        await accept(client, reply.text)
        await wait_until(client.connected.is_set, "the connection")
        session = only_session(stream)
        speak(client, tone(FREQUENCY, 48_000, 2.0))
        await wait_until(lambda: count_received(session) > 50, "audio")
        location = reply.url.join(reply.headers["Location"])
        assert (location.scheme, location.host, location.port) == (
            "https",
            HOST,
            reply.url.port,
        )
        assert (await http.delete(location)).status_code == 200
        await wait_until(lambda: not stream.sessions, "the end of the session")


@on_asyncio
async def test_page_is_served_and_other_origins_are_refused(proxy: str, tmp_path: Path) -> None:
    async with (
        serve_behind(proxy, tmp_path, make_site()) as url,
        httpx.AsyncClient() as http,
    ):
        assert (await http.get(f"{url}/webrtc/config", headers={"Origin": url})).is_success
        foreign = {"Origin": "https://example.org"}
        assert (await http.get(f"{url}/webrtc/config", headers=foreign)).status_code == 403
        with pytest.raises(InvalidStatus, match="403"):
            async with open_wire(url, headers=foreign):
                pass


@on_asyncio
@pytest.mark.parametrize("trusted", [True, False])
async def test_limits_count_clients_by_their_own_addresses(
    proxy: str, trusted: bool, tmp_path: Path
) -> None:
    stream = make_site(
        request_limits=RequestLimits(client_pending=1),
        trusted_proxies=["127.0.0.1"] if trusted else [],
    )
    statuses: list[int] = []
    forged = {"X-Forwarded-For": "192.0.2.1", "Forwarded": "for=192.0.2.1"}
    async with serve_behind(proxy, tmp_path, stream) as url:
        for address, headers in (("127.0.0.2", {}), ("127.0.0.2", forged), ("127.0.0.3", {})):
            transport = httpx.AsyncHTTPTransport(local_address=address)
            async with httpx.AsyncClient(transport=transport) as http, open_caller() as client:
                body = {
                    "type": "offer",
                    "sdp": await make_offer(client),
                    "webrtc_id": secrets.token_hex(16),
                }
                reply = await http.post(f"{url}/webrtc/offer", json=body, headers=headers)
                statuses.append(reply.status_code)
    assert statuses == [200, 429, 200 if trusted else 429]
