"""Streams behind reverse proxies: their own URLs lead back through the proxy.

The proxy is a real one, on its own port. uvicorn puts the ``root_path`` in front of the path,
hypercorn does not.
"""

from __future__ import annotations

import re
import warnings
import wave
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit

import httpx
import pytest
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.requests import HTTPConnection
from starlette.routing import Mount

from fastrtc_anyio import Slider, Stream, Textbox
from fastrtc_anyio._cli.client import CallOptions, place_call
from fastrtc_anyio._wire.call_xml import TelephoneOptions
from fastrtc_anyio._wire.signatures import sign_twilio
from fastrtc_anyio._wire.twilio import TwilioFraming
from fastrtc_anyio.server import page_route
from fastrtc_anyio.server.http import own_url
from fastrtc_anyio.testing.signals import tone
from tests.kit.backends import on_asyncio, on_trio
from tests.kit.calls import make_stream, open_hypercorn, open_uvicorn
from tests.kit.proxy import open_proxy
from tests.kit.waiting import wait_until
from tests.kit.websockets import open_client, open_wire

from .test_telephone import START

SDP = {"Content-Type": "application/sdp"}
OFFER = "\r\n".join(
    [
        "v=0",
        "o=- 1 1 IN IP4 127.0.0.1",
        "s=-",
        "t=0 0",
        "m=audio 9 UDP/TLS/RTP/SAVPF 111",
        "c=IN IP4 0.0.0.0",
        "a=ice-ufrag:abcd",
        f"a=ice-pwd:{'x' * 22}",
        f"a=fingerprint:sha-256 {':'.join(['AB'] * 32)}",
        "a=setup:actpass",
        "a=mid:0",
        "a=rtcp-mux",
        "a=rtpmap:111 opus/48000/2",
        "a=sendonly",
        "",
    ]
)
TOKEN = "a secret of ours"


@dataclass(frozen=True)
class Site:
    """An application, its server, and the proxy in front of them."""

    prefix: str = "/api"
    """Path at the proxy, percent-encoded."""
    strip: bool = True
    root_path: str = ""
    """The server's."""
    fastapi: str | None = None
    """The root_path of a FastAPI application; None for a Starlette application."""
    mounted: str = ""
    """Path at which the application is mounted in another one."""
    path: str = ""
    """Path at which the stream is mounted in its application."""

    @property
    def knows_prefix(self) -> bool:
        return bool(self.root_path or self.fastapi or not self.strip)


STRIPPED = {
    "no root_path": Site(),
    "FastAPI without root_path": Site(fastapi=""),
    "FastAPI with root_path": Site(fastapi="/api"),
    "server with root_path": Site(root_path="/api"),
    "server and FastAPI with root_path": Site(root_path="/api", fastapi="/api"),
    "root_path with a slash": Site(fastapi="/api/"),
    "nested prefix": Site(prefix="/outer/api", root_path="/outer/api"),
    "encoded prefix": Site(prefix="/all%20of%20it", root_path="/all of it"),
    "encoded prefix in root_path": Site(prefix="/all%20of%20it", root_path="/all%20of%20it"),
    "stream at a path": Site(fastapi="/api", path="/voice"),
    "stream at the path of the prefix, without root_path": Site(path="/api"),
    "mounted application": Site(mounted="/inner", path="/voice"),
}
WHOLE = {
    "whole path": Site(strip=False, mounted="/api"),
    "whole path and FastAPI with root_path": Site(strip=False, fastapi="/api"),
    "whole encoded path": Site(prefix="/all%20of%20it", strip=False, mounted="/all of it"),
}
UVICORN_ONLY = {
    # Starlette 1.10 answers it with 404 where the path lacks the root_path, as under hypercorn.
    "mounted application and root_path": Site(root_path="/api", mounted="/inner"),
}
SITES = STRIPPED | WHOLE


def make_app(stream: Stream, site: Site) -> Any:
    if site.fastapi is None:
        app = Starlette()
    else:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # FastAPI 0.165 deprecates its root_path
            app = FastAPI(root_path=site.fastapi)
    stream.mount(app, site.path)
    app.router.routes.append(page_route(f"{site.path}/"))
    if site.mounted:

        @asynccontextmanager
        async def lifespan(_app: Any) -> AsyncGenerator[None, None]:
            async with stream:
                yield

        return Starlette(routes=[Mount(site.mounted, app)], lifespan=lifespan)
    return app


@asynccontextmanager
async def open_site(
    stream: Stream, site: Site, server: str = "hypercorn", **proxy: Any
) -> AsyncGenerator[str, None]:
    """Serve a stream, and yield its URL at the proxy."""
    app = make_app(stream, site)
    if server == "hypercorn":
        opened = open_hypercorn(app, site.root_path)
    else:
        opened = open_uvicorn(app, "websockets-sansio", site.root_path)
    async with (
        opened as upstream,
        open_proxy(upstream, site.prefix, strip=site.strip, **proxy) as url,
    ):
        inner = site.mounted if site.strip else ""
        yield f"{url}{inner}{site.path}"


async def check_whip(http: httpx.AsyncClient, url: str, protocol: str, end: str = "") -> None:
    """A session can be reached and ended at its Location."""
    posted = f"{url}/{protocol}{end}"
    offer = OFFER if protocol == "whip" else OFFER.replace("sendonly", "recvonly")
    reply = await http.post(posted, content=offer, headers=SDP)
    assert reply.status_code == 201, reply.text
    place = urljoin(posted, reply.headers["location"])
    assert place.startswith(f"{url}/{protocol}/")
    assert urlsplit(place).query == urlsplit(posted).query
    for method, status in (("GET", 204), ("DELETE", 200), ("GET", 404)):
        assert (await http.request(method, place)).status_code == status


async def check_telephone(http: httpx.AsyncClient, url: str) -> None:
    """The XML names the handler's address at the proxy, where a WebSocket is accepted."""
    expected = f"{url.replace('http', 'ws', 1)}/telephone/handler"
    for end in ("", "/", "?a=b"):
        xml = (await http.post(f"{url}/telephone/incoming{end}", data={"CallSid": "CA1"})).text
        assert f'<Stream url="{expected}"/>' in xml
    async with open_client(url, START, TwilioFraming(), "/telephone/handler"):
        pass


async def check_page(http: httpx.AsyncClient, url: str) -> None:
    """The page and its requests, as a browser resolves them, are answered."""
    for opened in (url, f"{url}/"):
        page = await http.get(opened, follow_redirects=True)
        assert page.status_code == 200
        assert re.findall(r'(?:href|src|action)="([^"#]*)"', page.text) == ["data:,"]
    base = f"{url}/"  # as the page's script does, however the page was opened
    assert (await http.get(urljoin(base, "webrtc/config"))).status_code == 200
    body = {"webrtc_id": "nobody", "tempo": 1}
    for path, error in (("webrtc/offer", "ice-candidate"), ("input_hook", "nobody")):
        reply = await http.post(urljoin(base, path), json=body)
        assert error in reply.json()["meta"]["error"]
    reply = await http.get(urljoin(base, "outputs"))
    assert "webrtc_id" in reply.json()["meta"]["error"]


def make_page_stream() -> Stream:
    return make_stream(additional_inputs=[Slider("Tempo")], additional_outputs=[Textbox("Words")])


def open_http() -> httpx.AsyncClient:
    return httpx.AsyncClient(verify=False)  # loading certificates takes longer than a test


async def check_site(site: Site, server: str) -> None:
    stream = make_page_stream()
    async with open_site(stream, site, server) as url, open_http() as http:
        await check_whip(http, url, "whip")
        await check_page(http, url)
        if site.knows_prefix:
            await check_telephone(http, url)
        await wait_until(lambda: stream.active == 0)


@on_trio
@pytest.mark.parametrize("site", SITES.values(), ids=SITES.keys())
async def test_own_urls_lead_through_proxy_with_hypercorn(site: Site) -> None:
    await check_site(site, "hypercorn")


@on_asyncio
@pytest.mark.parametrize("site", [Site(), Site(root_path="/api"), Site(fastapi="/api")])
async def test_own_urls_lead_through_proxy_with_hypercorn_on_asyncio(site: Site) -> None:
    await check_site(site, "hypercorn")


@on_asyncio
@pytest.mark.parametrize("site", (SITES | UVICORN_ONLY).values(), ids=(SITES | UVICORN_ONLY).keys())
async def test_own_urls_lead_through_proxy_with_uvicorn(site: Site) -> None:
    await check_site(site, "uvicorn")


@on_trio
@pytest.mark.parametrize("framework", [Site(), Site(fastapi="")])
async def test_location_follows_spelling_of_posted_address(framework: Site) -> None:
    async with open_site(make_stream(), framework) as url, open_http() as http:
        for end in ("", "/", "?token=a%20b/c&d=%C3%A9", "/?"):
            for protocol in ("whip", "whep"):
                await check_whip(http, url, protocol, end)


@on_trio
async def test_token_in_query_authenticates_requests_to_location() -> None:
    def authenticate(connection: HTTPConnection) -> bool:
        return connection.query_params.get("token") == "secret"

    stream = make_stream(authenticate=authenticate)
    async with open_site(stream, Site()) as url, open_http() as http:
        await check_whip(http, url, "whip", "?token=secret")
        assert (await http.post(f"{url}/whip", content=OFFER, headers=SDP)).status_code == 401


@on_trio
async def test_host_of_upstream_does_not_reach_location() -> None:
    async with (
        open_site(make_stream(allowed_hosts=["app"]), Site(), host="app:8000") as url,
        open_http() as http,
    ):
        await check_whip(http, url, "whip")


@on_trio
@pytest.mark.parametrize(
    ("site", "options", "expected"),
    [
        (Site(), {"public_url": "https://example.com"}, "wss://example.com"),
        (Site(), {"public_url": "https://example.com/api/"}, "wss://example.com/api"),
        (Site(root_path="/api"), {"public_url": "https://example.com"}, "wss://example.com/api"),
        (Site(root_path="/x"), {"public_url": "https://example.com/api"}, "wss://example.com/api"),
        (Site(), {"trust_forwarded": True}, "wss://phone.example:8443/outer/api"),
        (Site(root_path="/api"), {"trust_forwarded": True}, "wss://phone.example:8443/api"),
        (Site(root_path="/api"), {}, "ws://127.0.0.1:{port}/api"),
        (Site(), {}, "ws://127.0.0.1:{port}"),
    ],
)
async def test_telephone_url_is_that_of_options_root_path_or_trusted_headers(
    site: Site, options: dict[str, Any], expected: str
) -> None:
    """Signatures are checked against the same URL."""
    stream = make_stream(telephone=TelephoneOptions(auth_token=TOKEN, **options))
    headers = {
        "X-Forwarded-Proto": "https, http",
        "X-Forwarded-Host": "phone.example:8443",
        "X-Forwarded-Prefix": "/outer/, /api",
    }
    async with open_site(stream, site, headers=headers) as url, open_http() as http:
        public = expected.format(port=urlsplit(url).port)
        called = f"{public.replace('ws', 'http', 1)}/telephone/incoming?a=b%20c"
        form = {"CallSid": "CA1"}
        signed = {"X-Twilio-Signature": sign_twilio(TOKEN, called, form.items())}
        target = f"{url}/telephone/incoming?a=b%20c"
        reply = await http.post(target, data=form, headers=signed)
        assert f'<Stream url="{public}/telephone/handler"/>' in reply.text
        assert (await http.post(target, data=form)).status_code == 403
        signed = {"X-Twilio-Signature": sign_twilio(TOKEN, f"{public}/telephone/handler")}
        async with open_wire(url, "/telephone/handler", signed):
            pass


def own_url_of(scope: dict[str, Any], headers: dict[str, str], **options: Any) -> str:
    raw = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
    request = {"path": "/call", "query_string": b"a=b", "server": ("127.0.0.1", 80)}
    connection = HTTPConnection({"headers": raw, **request, **scope})
    return own_url(connection, TelephoneOptions(**options))


def test_web_socket_has_a_web_socket_url_though_the_scheme_is_that_of_http() -> None:
    """As hypercorn's ProxyFixMiddleware sets it."""
    for kind, expected in (
        ("websocket", "wss://a.example/call?a=b"),
        ("http", "https://a.example/call?a=b"),
    ):
        assert own_url_of({"type": kind, "scheme": "https"}, {"host": "a.example"}) == expected


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"x-forwarded-proto": "HTTPS"}, "https://a.example/call?a=b"),
        ({"x-forwarded-proto": "javascript"}, "http://a.example/call?a=b"),
        ({"x-forwarded-host": "["}, "http://a.example/call?a=b"),
        ({"x-forwarded-host": "[::1]:8000"}, "http://[::1]:8000/call?a=b"),
        ({"x-forwarded-host": "b.example/c?d#e"}, "http://a.example/call?a=b"),
        ({"x-forwarded-host": 'b.example" c'}, "http://a.example/call?a=b"),
        ({"x-forwarded-host": "me@b.example"}, "http://a.example/call?a=b"),
        ({"x-forwarded-prefix": "/b?c"}, "http://a.example/call?a=b"),
        ({"x-forwarded-prefix": "b"}, "http://a.example/call?a=b"),
        ({"x-forwarded-prefix": "/b/"}, "http://a.example/b/call?a=b"),
    ],
)
def test_malformed_forwarded_header_counts_as_missing(
    headers: dict[str, str], expected: str
) -> None:
    headers |= {"host": "a.example"}
    scope = {"type": "http", "scheme": "http"}
    assert own_url_of(scope, headers, trust_forwarded=True) == expected


def test_query_that_is_not_utf8_is_part_of_the_url() -> None:
    scope = {"type": "http", "scheme": "http", "query_string": b"a=\xff"}
    assert own_url_of(scope, {"host": "a.example"}) == "http://a.example/call?a=\xff"


class Monitor:
    """Observes nothing."""

    def connected(self, seconds: float) -> None: ...
    def progress(self, said: float, heard: float) -> None: ...
    def message(self, text: str) -> None: ...

    def lost(self, text: str) -> None: ...


@on_trio
async def test_command_line_client_calls_through_proxy(tmp_path: Path) -> None:
    with wave.open(str(tmp_path / "speech.wav"), "wb") as speech:
        speech.setparams((1, 2, 48_000, 0, "NONE", ""))
        speech.writeframes(tone(400.0, 48_000, 0.2).tobytes())
    options = CallOptions(tmp_path / "speech.wav", 0.2, {}, None)
    async with open_site(make_stream(allowed_hosts=["app"]), Site(), host="app:8000") as url:
        report = await place_call(f"{url}/", options, Monitor())
    assert report["heard_seconds"] > 0
