"""WHIP and WHEP over HTTP, with httpx and plain aiortc as clients."""

from __future__ import annotations

import re
import socket
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import anyio
import anyio.lowlevel
import httpx
import pytest
from anyio import to_thread
from starlette.applications import Starlette

from fastrtc_anyio import (
    AudioFrame,
    CloseReason,
    Limits,
    NotAllowed,
    RtcConfiguration,
    Session,
    Stream,
)
from fastrtc_anyio._media.media_plan import Mode
from fastrtc_anyio.server import open_server, require_token
from fastrtc_anyio.testing.signals import tone
from tests.kit.aiortc_client import AiortcClient, open_client
from tests.kit.calls import LOOPBACK, accept, echo, only_session, without_candidates
from tests.kit.measure import FREQUENCY, check_echo
from tests.kit.waiting import wait_until

SDP = {"Content-Type": "application/sdp"}
FRAGMENT = {"Content-Type": "application/trickle-ice-sdpfrag"}


def make_stream(handler: Any = echo, mode: Mode = "send-receive", **options: Any) -> Stream:
    options.setdefault("concurrency_limit", 4)
    options.setdefault("server_rtc_configuration", LOOPBACK)
    options.setdefault("limits", Limits(lag=None))
    return Stream(handler, modality="audio", mode=mode, **options)


@asynccontextmanager
async def serve(stream: Stream) -> AsyncGenerator[httpx.AsyncClient, None]:
    app = Starlette()
    stream.mount(app)
    async with open_server(app) as url, httpx.AsyncClient(base_url=url) as http:
        yield http


async def offer(client: AiortcClient, direction: str, video: str | None = None) -> str:
    return await to_thread.run_sync(
        client.run, client.make_offer, None, False, direction, video, None
    )


def check_problem(reply: httpx.Response, status: int) -> str:
    assert reply.status_code == status, reply.text
    assert reply.headers["content-type"] == "application/problem+json"
    body = reply.json()
    assert (body["status"], body["type"]) == (status, "about:blank")
    detail: str = body["detail"]
    return detail


def directions(sdp: str) -> list[str]:
    return re.findall(r"^a=(sendrecv|sendonly|recvonly|inactive)\r?$", sdp, re.MULTILINE)


@pytest.mark.parametrize("direction", ["sendonly", "sendrecv"])
async def test_whip_client_audio_reaches_session(direction: str) -> None:
    heard = anyio.Event()

    async def listen(session: Session) -> None:
        async for frame in session.audio_in:
            if abs(frame.samples).max() > 5000:
                heard.set()

    stream = make_stream(listen)
    async with serve(stream) as http, open_client() as client:
        reply = await http.post("/whip", content=await offer(client, direction), headers=SDP)
        assert reply.status_code == 201, reply.text
        assert reply.headers["content-type"].startswith("application/sdp")
        (session,) = stream.sessions.values()
        assert reply.headers["location"] == f"whip/{session.id}"
        assert re.fullmatch(r'"[0-9a-f]{16}"', reply.headers["etag"])
        # RFC 9725 4.2: the answer is recvonly, even to a sendrecv offer.
        assert directions(reply.text) == ["recvonly"]
        await accept(client, reply.text)
        for start in range(0, 48_000, 960):
            sound = tone(FREQUENCY, 48_000, 1.0)[:, start : start + 960]
            client.send_audio(AudioFrame(48_000, sound))
        with anyio.fail_after(10):
            await heard.wait()
        gone = await http.delete(reply.headers["location"])
        assert gone.status_code == 200
        await wait_until(lambda: stream.active == 0)
        assert session.closed is not None
        assert session.closed.reason is CloseReason.HUNG_UP
        check_problem(await http.delete(reply.headers["location"]), 404)


@pytest.mark.parametrize("mode", ["send-receive", "receive"])
async def test_whep_client_receives_audio(mode: Mode) -> None:
    async def speak(session: Session) -> None:
        for _ in range(500):
            await session.audio_out.send(AudioFrame(48_000, tone(FREQUENCY, 48_000, 0.2)))

    stream = make_stream(speak, mode)
    async with serve(stream) as http, open_client() as client:
        # Players also offer to receive video.
        wanted = await offer(client, "recvonly", video="recvonly")
        reply = await http.post("/whep", content=wanted, headers=SDP)
        assert reply.status_code == 201, reply.text
        assert directions(reply.text) == ["sendonly", "inactive"]
        await accept(client, reply.text)
        with anyio.fail_after(10):
            while abs((await client.receive_audio()).samples).max() < 5000:
                pass
        assert (await http.delete(reply.headers["location"])).status_code == 200


async def test_sendonly_offer_to_webrtc_offer_connects() -> None:
    stream = make_stream()
    async with serve(stream) as http, open_client() as client:
        body = {"type": "offer", "sdp": await offer(client, "sendonly")}
        reply = await http.post("/webrtc/offer", json=body)
        assert directions(reply.json()["sdp"]) == ["recvonly"]
        await accept(client, reply.json()["sdp"])
        await wait_until(client.connected.is_set)


async def test_trickled_fragment_connects_and_invalid_patches_are_rejected() -> None:
    stream = make_stream()
    async with serve(stream) as http, open_client() as client:
        sdp, candidates = without_candidates(await offer(client, "sendonly"))
        reply = await http.post("/whip", content=sdp, headers=SDP)
        # Only the trickled candidates contain an address.
        await accept(client, without_candidates(reply.text)[0])
        user = re.search(r"^a=ice-ufrag:.*$", sdp, re.MULTILINE)
        assert user is not None
        lines = [user[0].strip(), "m=audio 9 UDP/TLS/RTP/SAVPF 0", "a=mid:0"]
        lines += [f"a={candidate}" for candidate in candidates]
        body = "\r\n".join([*lines, "a=end-of-candidates", ""])
        bad = "a=candidate:broken\r\n"  # affects nothing else, like the line and the port here
        mixed = body.replace("m=", f"{bad}m=").replace(
            "a=mid:0\r\n", f"a=mid:0\r\nrubbish\r\n{bad}"
        )
        mixed += "a=candidate:1 1 udp 1 127.0.0.1 70000 typ host\r\n"
        headers = {**FRAGMENT, "If-Match": reply.headers["etag"]}
        patched = await http.patch(reply.headers["location"], content=mixed, headers=headers)
        assert (patched.status_code, patched.content) == (204, b"")
        await wait_until(client.connected.is_set)
        assert only_session(stream).statistics().discarded.candidates == 3

        location = reply.headers["location"]
        stale = {**FRAGMENT, "If-Match": '"another"'}
        check_problem(await http.patch(location, content=body, headers=stale), 412)
        asked = check_problem(await http.patch(location, content=body, headers=FRAGMENT), 428)
        assert "If-Match" in asked
        star = {**FRAGMENT, "If-Match": "*"}
        for password in ("", "a=ice-pwd:short", "a=ice-pwd:" + "_" * 22):
            restart = body.replace(user[0].strip(), f"a=ice-ufrag:other\r\n{password}")
            refused = await http.patch(location, content=restart, headers=star)
            assert "restart" in check_problem(refused, 400)
        check_problem(await http.patch(location, content=body, headers=SDP), 415)
        no_section = "a=candidate:1 1 udp 1 127.0.0.1 1 typ host"
        for rubbish in ("", "nonsense", no_section, "a=mid:0\r\na=candidate:broken"):
            refused = await http.patch(location, content=rubbish, headers=star)
            check_problem(refused, 400)
        # Valid candidates that cannot be used are ignored.
        section = "a=mid:0\r\n"
        for useless in ("tcp 1 127.0.0.1 9", "sctp 1 127.0.0.1 9", "udp 1 nowhere.invalid 9"):
            section += f"a=candidate:1 1 {useless} typ host\r\n"
        passed = await http.patch(location, content=section, headers=star)
        assert passed.status_code == 204
        assert "etag" not in passed.headers
        big = await http.patch(location, content="a=x\r\n" * 120_000, headers=star)
        check_problem(big, 413)
        assert client.connected.is_set()  # the session has survived every invalid patch
        assert len(stream.sessions) == 1


def restart_fragment(sdp: str) -> str:
    """The fragment of a client that restarts ICE."""
    found = re.findall(r"^a=(?:ice-ufrag|ice-pwd|candidate):.*$", sdp, re.MULTILINE)
    user, password = (line.strip() for line in found if "ice-" in line)
    candidates = [line.strip() for line in found if "candidate" in line]
    section = ["m=audio 9 UDP/TLS/RTP/SAVPF 0", "a=mid:0"]
    return "\r\n".join([user, password, *section, *candidates, ""])


async def test_patch_with_new_credentials_restarts_ice() -> None:
    stream = make_stream()
    async with serve(stream) as http, open_client() as client:
        reply = await http.post("/whep", content=await offer(client, "recvonly"), headers=SDP)
        location, tags = reply.headers["location"], [reply.headers["etag"]]
        await accept(client, reply.text)
        await wait_until(client.connected.is_set)
        bodies = []
        for match in ("*", None):  # None: the tag of the first restart
            body = restart_fragment(await to_thread.run_sync(client.run, client.offer_restart))
            headers = {**FRAGMENT, "If-Match": match or tags[-1]}
            answer = await http.patch(location, content=body, headers=headers)
            assert answer.status_code == 200, answer.text
            assert answer.headers["content-type"] == FRAGMENT["Content-Type"]
            await to_thread.run_sync(client.run, client.accept_restart, answer.text)
            tags.append(answer.headers["etag"])
            bodies.append(body)
        assert len(set(tags)) == 3
        stale = {**FRAGMENT, "If-Match": tags[1]}
        check_problem(await http.patch(location, content=bodies[1], headers=stale), 412)
        star = {**FRAGMENT, "If-Match": "*"}
        replaced = await http.patch(location, content=bodies[0], headers=star)
        assert "replaced" in check_problem(replaced, 412)
        assert (await http.patch(location, content=bodies[1], headers=star)).status_code == 204
        assert len(stream.sessions) == 1
        assert (await http.delete(location)).status_code == 200


async def test_invalid_requests_get_problem_details_and_take_no_slot() -> None:
    stream = make_stream(concurrency_limit=1)
    async with serve(stream) as http, open_client() as client:
        sdp = await offer(client, "sendonly")
        text = await http.post("/whip", content=sdp, headers={"Content-Type": "text/plain"})
        assert "application/sdp" in check_problem(text, 415)
        assert text.headers["accept-post"] == "application/sdp"
        check_problem(await http.post("/whip", content=sdp), 415)
        picky = {**SDP, "Accept": "application/json"}
        check_problem(await http.post("/whip", content=sdp, headers=picky), 406)
        for rubbish in (b"", b"v=0\r\n", b"\xff\xfe", b"v=0\r\nm=\r\n", sdp[:90].encode()):
            check_problem(await http.post("/whip", content=rubbish, headers=SDP), 400)
        only = check_problem(await http.post("/whep", content=sdp, headers=SDP), 400)
        assert "recvonly" in only
        large = sdp + "a=x\r\n" * 120_000
        check_problem(await http.post("/whip", content=large, headers=SDP), 413)
        for method, path, allowed in (
            ("PATCH", "/whip", "POST, GET, HEAD, OPTIONS"),
            ("PUT", "/whep", "POST, GET, HEAD, OPTIONS"),
            ("POST", "/whip/x", "PATCH, DELETE, GET, HEAD, OPTIONS"),
        ):
            reply = await http.request(method, path)
            check_problem(reply, 405)
            assert reply.headers["allow"] == allowed
        check_problem(await http.delete("/whip/unknown"), 404)
        assert not stream.sessions
        first = await http.post("/whip", content=sdp, headers=SDP)
        assert first.status_code == 201
        # The path of a session includes the protocol that created it.
        key = first.headers["location"].rpartition("/")[2]
        check_problem(await http.delete(f"/whep/{key}"), 404)
        await accept(client, first.text)
        await wait_until(lambda: stream.active == 1)
        full = await http.post("/whip", content=sdp, headers=SDP)
        check_problem(full, 503)
        assert full.json()["limit"] == 1
        assert int(full.headers["retry-after"]) > 0


@pytest.mark.parametrize(("mode", "path"), [("receive", "/whip"), ("send", "/whep")])
async def test_stream_of_opposite_mode_is_a_422(mode: Mode, path: str) -> None:
    async def wait(_session: Session) -> None:
        await anyio.sleep_forever()

    async with serve(make_stream(wait, mode)) as http, open_client() as client:
        direction = "sendonly" if path == "/whip" else "recvonly"
        reply = await http.post(path, content=await offer(client, direction), headers=SDP)
        assert mode in check_problem(reply, 422)


async def post_to(http: httpx.AsyncClient, path: str, sdp: str) -> httpx.Response:
    if path == "/webrtc/offer":
        return await http.post(path, json={"type": "offer", "sdp": sdp})
    return await http.post(path, content=sdp, headers=SDP)


@contextmanager
def taken_port() -> Generator[tuple[int, socket.socket], None, None]:
    """Yield a UDP port and the socket that occupies it."""
    with socket.socket(type=socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1], taken


def with_only_port(port: int) -> RtcConfiguration:
    return RtcConfiguration(addresses=("127.0.0.1",), ports=(port, port))


@pytest.mark.parametrize("path", ["/webrtc/offer", "/whip", "/whep"])
async def test_exhausted_ports_are_a_503_until_one_is_free(path: str) -> None:
    with taken_port() as (port, taken):
        stream = make_stream(server_rtc_configuration=with_only_port(port))
        async with serve(stream) as http, open_client() as client:
            sdp = await offer(client, "recvonly" if path == "/whep" else "sendonly")
            refused = await post_to(http, path, sdp)
            if path == "/webrtc/offer":
                assert refused.status_code == 503
                told = refused.json()["meta"]["error"]
            else:
                told = check_problem(refused, 503)
                assert int(refused.headers["retry-after"]) > 0
            assert f"from {port} to {port}" in told
            assert "server_rtc_configuration" in told
            assert not stream.sessions
            taken.close()
            reply = await post_to(http, path, sdp)
            assert reply.is_success, reply.text
            assert len(stream.sessions) == 1


async def test_first_port_is_released_if_second_is_missing() -> None:
    """Without BUNDLE, each section needs a port."""
    with taken_port() as (port, taken):
        taken.close()
        stream = make_stream(server_rtc_configuration=with_only_port(port))
        async with serve(stream) as http, open_client() as client:
            both = await to_thread.run_sync(client.run, client.make_offer, None, True, "sendonly")
            apart = re.sub(r"a=group:BUNDLE.*\r\n", "", both)
            for _ in range(3):
                assert str(port) in check_problem(await post_to(http, "/whip", apart), 503)
                assert not stream.sessions
            reply = await post_to(http, "/whip", both)
            assert reply.status_code == 201, reply.text


async def test_ice_servers_are_link_headers() -> None:
    asked = []

    def configure() -> dict[str, Any]:
        asked.append(1)
        servers = [
            {"urls": ["stun:stun.example.com", "stun:other.example.com:3479"]},
            {"urls": "turn:turn.example.com?transport=udp", "username": 'a"b', "credential": "c"},
        ]
        return {"iceServers": servers}

    stream = make_stream(rtc_configuration=configure)
    async with serve(stream) as http, open_client() as client:
        sdp = await offer(client, "sendonly")
        reply = await http.post("/whip", content=sdp, headers=SDP)
        assert reply.headers.get_list("link") == [
            '<stun:stun.example.com>; rel="ice-server"',
            '<stun:other.example.com:3479>; rel="ice-server"',
            '<turn:turn.example.com?transport=udp>; rel="ice-server"; username="a\\"b"; '
            'credential="c"; credential-type="password"',
        ]
        assert asked == [1]
        # RFC 9725 4.6: clients may need the servers before they make their offer.
        links = reply.headers.get_list("link")
        assert (await http.options("/whip")).headers.get_list("link") == links
        preflight = {"Access-Control-Request-Method": "POST"}
        assert "link" not in (await http.options("/whip", headers=preflight)).headers
        assert len(asked) == 2


async def test_ice_servers_need_authentication() -> None:
    servers = {"iceServers": [{"urls": "turn:x", "username": "a", "credential": "b"}]}
    stream = make_stream(rtc_configuration=servers, authenticate=require_token("secret"))
    async with serve(stream) as http:
        reply = await http.options("/whep")
        assert reply.status_code == 200
        assert "link" not in reply.headers
        reply = await http.options("/whep", headers={"Authorization": "Bearer secret"})
        assert "turn:x" in reply.headers["link"]


async def test_get_of_existing_resources_is_an_empty_204() -> None:
    """RFC 9725 4.1: a GET succeeds without content."""
    stream = make_stream(authenticate=require_token("secret"))
    right = {"Authorization": "Bearer secret"}
    async with serve(stream) as http, open_client() as client:
        sdp = await offer(client, "sendonly")
        made = await http.post("/whip", content=sdp, headers={**SDP, **right})
        location = made.headers["location"]
        for method in ("GET", "HEAD"):
            for path in ("/whip", "/whep", location):
                reply = await http.request(method, path, headers=right)
                assert (reply.status_code, reply.content) == (204, b"")
                assert (await http.request(method, path)).status_code == 401
            assert (await http.request(method, "/whip/other", headers=right)).status_code == 404
        # RFC 9725 4.3.1: DELETE ignores If-Match.
        headers = {**right, "If-Match": '"another"'}
        assert (await http.delete(location, headers=headers)).status_code == 200
        assert (await http.get(location, headers=right)).status_code == 404


async def test_whip_session_needs_token_from_post_to_delete() -> None:
    stream = make_stream(authenticate=require_token("secret"))
    async with serve(stream) as http, open_client() as client:
        sdp = await offer(client, "sendonly")
        check_problem(await http.post("/whip", content=sdp, headers=SDP), 401)
        assert not stream.sessions
        right = {"Authorization": "Bearer secret"}
        reply = await http.post("/whip", content=sdp, headers={**SDP, **right})
        assert reply.status_code == 201
        location = reply.headers["location"]
        check_problem(await http.delete(location), 401)
        assert (await http.delete(location, headers=right)).status_code == 200
        assert (await http.get("/webrtc/config", headers=right)).status_code == 200


async def test_async_authenticate_sets_status(caplog: pytest.LogCaptureFixture) -> None:
    async def authenticate(connection: Any) -> Any:
        await anyio.lowlevel.checkpoint()
        match connection.query_params.get("user"):
            case "banned":
                raise NotAllowed("you are not welcome here")
            case "forgotten":
                return None
            case user:
                return user == "known"

    async with serve(make_stream(authenticate=authenticate)) as http:
        assert (await http.get("/webrtc/config?user=known")).status_code == 200
        assert (await http.get("/webrtc/config?user=other")).status_code == 401
        assert "welcome" in check_problem(await http.post("/whip?user=banned"), 403)
        # A missing return value is an error, not a permission.
        check_problem(await http.post("/whip?user=forgotten"), 500)
    assert "authenticate must return True or False" in caplog.text


async def test_cors_headers_need_allowed_origin(caplog: pytest.LogCaptureFixture) -> None:
    here, other, stranger = "https://here.example", "https://other.example", "https://evil.example"
    async with serve(make_stream(allowed_origins=[other], allowed_hosts=["here.example"])) as http:
        for path in ("/whip", "/whep/x", "/webrtc/offer"):
            asked = {"Origin": other, "Access-Control-Request-Headers": "content-type"}
            reply = await http.options(path, headers=asked)
            assert reply.is_success
            assert reply.headers["access-control-allow-origin"] == other
            assert reply.headers["access-control-allow-headers"] == "content-type"
            assert "POST" in reply.headers["access-control-allow-methods"] or "x" in path
            refused = await http.options(path, headers={**asked, "Origin": stranger})
            assert "access-control-allow-origin" not in refused.headers
        refused = await http.post("/whip", headers={"Origin": stranger})
        assert "allowed_origins" in check_problem(refused, 403)
        told = await http.post("/whip", headers={"Origin": other})
        check_problem(told, 415)
        assert "Location" in told.headers["access-control-expose-headers"]
        own = {"Origin": here, "Host": "here.example"}
        check_problem(await http.post("/whip", headers=own), 415)
    async with serve(make_stream()) as http:
        reply = await http.get("/webrtc/config", headers={"Origin": other})
        assert reply.status_code == 403
        assert "pages of other origins may not call" in caplog.text
        assert "access-control-allow-origin" not in reply.headers
        options = await http.options("/whip")
        assert options.status_code == 200  # RFC 9725 4.2
        assert options.headers["accept-post"] == "application/sdp"
        assert options.headers["allow"] == "POST, GET, HEAD, OPTIONS"
        session = await http.options("/whip/x")
        assert session.headers["accept-patch"] == "application/trickle-ice-sdpfrag"


@pytest.mark.parametrize("origin", ["null", "http://[", "", "nonsense", "https://x@127.0.0.1"])
async def test_malformed_origin_is_a_403(origin: str) -> None:
    async with serve(make_stream()) as http:
        reply = await http.post("/whip", headers={"Origin": origin})
        assert "allowed_origins" in check_problem(reply, 403)


async def test_webrtc_offer_and_whip_share_concurrency_limit() -> None:
    stream = make_stream(concurrency_limit=1)
    async with serve(stream) as http, open_client() as client, open_client() as other:
        body = {"type": "offer", "sdp": await offer(client, "sendrecv")}
        reply = await http.post("/webrtc/offer", json=body)
        await accept(client, reply.json()["sdp"])
        await check_echo(client)
        assert stream.active == 1
        sdp = await offer(other, "sendonly")
        check_problem(await http.post("/whip", content=sdp, headers=SDP), 503)
