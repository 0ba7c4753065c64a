"""Streams behind reverse proxies: their own URLs lead back through the proxy.

The proxy is a real one, on its own port. uvicorn puts the ``root_path`` in front of the path,
hypercorn does not.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
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
from fastrtc_anyio._wire.signatures import sign_plivo, sign_twilio
from fastrtc_anyio._wire.twilio import TwilioFraming
from fastrtc_anyio.server import _hypercorn, open_server, page_route
from fastrtc_anyio.server.page.document import page_document
from tests.kit.backends import on_asyncio
from tests.kit.calls import make_stream, open_uvicorn
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
    with pytest.MonkeyPatch.context() as patch:
        if server == "hypercorn":
            patch.setattr(_hypercorn._Config, "_root_path", site.root_path)
            opened = open_server(app)
        else:
            opened = open_uvicorn(app, "websockets-sansio", site.root_path)
        async with (
            opened as upstream,
            open_proxy(upstream, site.prefix, strip=site.strip, **proxy) as url,
        ):
            inner = site.mounted if site.strip else ""
            yield f"{url}{inner}{site.path}"


async def check_whip(url: str) -> None:
    """Sessions can be reached and ended at their Location, from every spelling of the address."""
    async with httpx.AsyncClient() as http:
        for protocol, offer in (("whip", OFFER), ("whep", OFFER.replace("sendonly", "recvonly"))):
            for end in ("", "/", "?token=a%20b/c&d=%C3%A9"):
                posted = f"{url}/{protocol}{end}"
                reply = await http.post(posted, content=offer, headers=SDP)
                assert reply.status_code == 201, reply.text
                place = urljoin(posted, reply.headers["location"])
                assert place.startswith(f"{url}/{protocol}/")
                assert urlsplit(place).query == urlsplit(posted).query
                assert (await http.get(place)).status_code == 204
                assert (await http.delete(place)).status_code == 200
                assert (await http.get(place)).status_code == 404


async def check_telephone(url: str) -> None:
    """The XML names the handler's address at the proxy, where a WebSocket is accepted."""
    expected = f"{url.replace('http', 'ws', 1)}/telephone/handler"
    async with httpx.AsyncClient() as http:
        for end in ("", "/", "?a=b"):
            xml = (await http.post(f"{url}/telephone/incoming{end}", data={"CallSid": "CA1"})).text
            assert f'<Stream url="{expected}"/>' in xml
    async with open_client(url, START, TwilioFraming(), "/telephone/handler"):
        pass


async def check_page(url: str) -> None:
    """The page and its requests, as a browser resolves them, are answered."""
    for opened in (url, f"{url}/"):
        base = opened.rstrip("/") + "/"  # as the page's own script does
        async with httpx.AsyncClient() as http:
            page = await http.get(opened)
            assert page.status_code == 200
            references = re.findall(r'(?:href|src|action)="([^"#]*)"', page.text)
            assert references == ["data:,"]
            assert (await http.get(urljoin(base, "webrtc/config"))).status_code == 200
            for path, status in (("webrtc/offer", 422), ("input_hook", 404)):
                reply = await http.post(urljoin(base, path), json={"webrtc_id": "no", "tempo": 1})
                assert reply.status_code == status, reply.text
            async with http.stream("GET", urljoin(base, "outputs")) as outputs:
                assert outputs.status_code == 422


def make_page_stream(**options: Any) -> Stream:
    return make_stream(
        additional_inputs=[Slider("Tempo")], additional_outputs=[Textbox("Words")], **options
    )


async def check_site(site: Site, server: str) -> None:
    stream = make_page_stream()
    async with open_site(stream, site, server) as url:
        await check_whip(url)
        await check_page(url)
        async with open_wire(url) as wire:
            await wire.send('{"event": "ping"}')
        if site.knows_prefix:
            await check_telephone(url)
        await wait_until(lambda: stream.active == 0)


@pytest.mark.parametrize("site", SITES.values(), ids=SITES.keys())
async def test_own_urls_lead_through_proxy_with_hypercorn(site: Site) -> None:
    await check_site(site, "hypercorn")


@on_asyncio
@pytest.mark.parametrize("site", (SITES | UVICORN_ONLY).values(), ids=(SITES | UVICORN_ONLY).keys())
async def test_own_urls_lead_through_proxy_with_uvicorn(site: Site) -> None:
    await check_site(site, "uvicorn")
