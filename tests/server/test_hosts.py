"""Host checks of requests, and the page's own."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import HTTPConnection

from fastrtc_anyio import NotAllowed
from fastrtc_anyio._wire.call_xml import TelephoneOptions
from fastrtc_anyio.server import page_route
from fastrtc_anyio.server.hosts import check_host, check_hosts
from fastrtc_anyio.server.launch import open_page
from tests.kit.calls import make_stream

LOOPBACK, OTHER = ("127.0.0.1", 7860), ("192.0.2.1", 7860)


class Rules:
    def __init__(self, *allowed: str, public_url: str | None = None) -> None:
        self.allowed_hosts = check_hosts(allowed)
        self.telephone = TelephoneOptions(public_url=public_url)


def is_accepted(rules: Rules, server: Any, *hosts: str) -> bool:
    headers = [(b"host", host.encode("latin-1")) for host in hosts]
    scope = {"type": "http", "server": server, "headers": headers}
    try:
        check_host(rules, HTTPConnection(scope))
    except NotAllowed as exc:
        refusal = str(exc)
    else:
        return True
    assert all(repr(host)[:20] in refusal for host in hosts)
    assert "Stream(allowed_hosts=[...])" in refusal
    return False


@pytest.mark.parametrize(
    "host",
    [
        *(
            "localhost",
            "LocalHost:7860",
            "localhost.",
            "app.localhost:1",
            "127.0.0.1",
            "[::1]:7860",
        ),
        *("127.8.9.1:80", "localhost:", "[::ffff:127.0.0.1]"),
    ],
)
@pytest.mark.parametrize("server", [LOOPBACK, ("::1", 1), ("localhost", 1), ("127.0.0.2", 1)])
def test_loopback_names_are_accepted_on_loopback(server: Any, host: str) -> None:
    assert is_accepted(Rules(), server, host)


FOREIGN = [
    *("evil.example", "evil.example:7860", "localhost.evil.example", "127.0.0.1.evil.example"),
    *("127.0.0.1@evil.example", "evil.example/localhost", "evil.example:80:localhost", "[::1"),
    *("localhost evil.example", "localhost:7860x", "0.0.0.0", "192.0.2.1", "", ":7860", "[::2]"),
    *(
        "xlocalhost",
        "127.1",
        "2130706433",
        "localhost..",
        ".localhost",
        "localhost\xff",
        "a" * 9000,
    ),
]


@pytest.mark.parametrize("host", FOREIGN)
def test_other_names_are_refused_on_loopback(host: str) -> None:
    assert not is_accepted(Rules(), LOOPBACK, host)
    assert not is_accepted(Rules("example.org"), LOOPBACK, host)
    assert is_accepted(Rules("*"), LOOPBACK, host)
    assert is_accepted(Rules(), OTHER, host)


@pytest.mark.parametrize("server", [LOOPBACK, OTHER])
def test_missing_or_repeated_host_is_refused(server: Any) -> None:
    assert not is_accepted(Rules("localhost"), server)
    assert not is_accepted(Rules("localhost"), server, "localhost", "localhost")


@pytest.mark.parametrize("server", [OTHER, ("/run/server.sock", None), None, ("testserver", 80)])
def test_servers_elsewhere_accept_allowed_hosts_only(server: Any) -> None:
    assert is_accepted(Rules(), server, "anything.example")
    rules = Rules("example.org", "*.example.com", "192.0.2.1", "[2001:db8::1]")
    for host in ("Example.org:8443", "a.b.EXAMPLE.com", "192.0.2.1:1", "[2001:db8::1]:1"):
        assert is_accepted(rules, server, host), host
    for host in ("example.com", "aexample.org", "a.example.org", "xexample.com", "localhost"):
        assert not is_accepted(rules, server, host), host


def test_host_of_public_url_is_accepted_on_loopback() -> None:
    rules = Rules(public_url="https://phone.example:8443/api")
    assert is_accepted(rules, LOOPBACK, "phone.example")
    assert not is_accepted(rules, LOOPBACK, "evil.example")
    assert is_accepted(rules, OTHER, "anything.example")


def test_invalid_allowed_hosts_are_rejected() -> None:
    for wrong in ("https://a.example", "a.example:80", "a*.example", "*.", "", "a b", "::1"):
        with pytest.raises(ValueError, match="allowed_hosts must hold"):
            check_hosts([wrong])
    with pytest.raises(TypeError, match="must be a list of hosts"):
        check_hosts("example.org")


async def test_foreign_host_is_refused_by_the_page_its_requests_and_websockets() -> None:
    stream = make_stream(allowed_hosts=["*.tunnel.example"])
    async with open_page(stream, "127.0.0.1", 0) as url, httpx.AsyncClient(base_url=url) as http:
        for host, status in (("evil.example", 403), ("my.tunnel.example", 200)):
            for path in ("/", "/webrtc/config"):
                # The proxy's headers do not count.
                headers = {"Host": host, "X-Forwarded-Host": "localhost"}
                assert (await http.get(path, headers=headers)).status_code == status, path
        handshake = {
            "Connection": "Upgrade",
            "Upgrade": "websocket",
            "Sec-WebSocket-Version": "13",
            "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
        }
        for path in ("/websocket/offer", "/telephone/handler"):
            async with httpx.AsyncClient() as fresh:
                headers = {**handshake, "Host": "evil.example"}
                reply = await fresh.get(url + path, headers=headers)
            assert reply.status_code == 403
            assert "allowed_hosts" in reply.text


async def test_page_route_has_its_own_allowed_hosts() -> None:
    app = Starlette(routes=[page_route(allowed_hosts=["a.example"])])
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as http:
        for host, status in (("a.example", 200), ("localhost", 200), ("b.example", 403)):
            assert (await http.get("/", headers={"Host": host})).status_code == status
