"""Requests about sessions of other processes, over real sockets and with real calls."""

from __future__ import annotations

import json
import logging
import re
import secrets
from base64 import b64encode
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import httpx
import pytest
from anyio import create_task_group, to_thread

from fastrtc_anyio import RequestLimits
from fastrtc_anyio._signaling.session_ids import owner_of
from fastrtc_anyio.cluster import Member, MemoryDirectory, Switchboard
from fastrtc_anyio.server import require_token
from tests.kit.aiortc_client import AiortcClient, open_client
from tests.kit.backends import anyio_backend  # noqa: F401
from tests.kit.calls import accept, make_offer, only_session, place_call
from tests.kit.switchboards import SECRET, Node, open_nodes
from tests.kit.waiting import wait_until

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def open_call(**options: Any) -> AsyncGenerator[tuple[Node, Node, str, AiortcClient], None]:
    """Two processes, and a call to the first."""
    webrtc_id = secrets.token_hex(16)
    async with (
        open_nodes(MemoryDirectory(), "one", "two", **options) as (one, two),
        place_call(one.url, webrtc_id) as client,
    ):
        yield one, two, webrtc_id, client


class Events:
    """Reads a stream of events. httpx leaves generators behind, of which trio warns."""

    def __init__(self, stream: anyio.abc.SocketStream) -> None:
        self._stream = stream
        self._received = b""

    async def read(self, pattern: bytes = rb"data: (.*?)\n\n") -> str:
        """Return the data of the next event."""
        with anyio.fail_after(20):
            while (found := re.search(pattern, self._received, re.DOTALL)) is None:
                self._received += await self._stream.receive()
        self._received = self._received[found.end() :]
        return found[1].decode()


@asynccontextmanager
async def open_events(node: Node, path: str) -> AsyncGenerator[Events, None]:
    """Read events until the block ends, which closes the connection."""
    url = httpx.URL(node.url)
    async with await anyio.connect_tcp(url.host, url.port or 0) as stream:
        await stream.send(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        events = Events(stream)
        assert "200" in await events.read(rb"HTTP/1.1 (.*?)\r\n\r\n")
        yield events


async def test_inputs_and_outputs_reach_the_session_from_everywhere() -> None:
    async with open_call() as (one, two, webrtc_id, _):
        for node, value in ((one, 3), (two, 4)):
            async with open_events(node, f"/outputs?webrtc_id={webrtc_id}") as outputs:
                body = {"webrtc_id": webrtc_id, "level": value}
                for other in (one, two):
                    reply = await other.http.post("/input_hook", json=body)
                    assert reply.status_code == 200, reply.text
                while str(value) not in await outputs.read():
                    pass  # an output of the other reader's inputs
        assert not two.stream.sessions


async def test_endpoints_of_the_application_are_forwarded() -> None:
    async with open_call() as (one, two, webrtc_id, _):
        for count, (node, method, path, body) in enumerate(
            [
                (two, "GET", f"/where?webrtc_id={webrtc_id}", None),
                (two, "POST", "/where", {"webrtc_id": webrtc_id}),
                (two, "POST", f"/where?x=%20y&webrtc_id={webrtc_id}", {"a": 1}),
                (one, "POST", "/where", {"webrtc_id": webrtc_id}),
            ]
        ):
            headers: Any = {"host": "localhost:1", "x-user": "ä".encode()}
            reply = await node.http.request(method, path, json=body, headers=headers)
            assert reply.json() == {"served": count + 1, "host": "localhost:1"}
        assert not two.seen
        scopes = one.seen
        assert {scope["client"][0] for scope in scopes} == {"127.0.0.1"}
        # The connections are the clients', not those between processes.
        assert [scope["server"][1] for scope in scopes] == [
            httpx.URL(node.url).port for node in (two, two, two, one)
        ]
        assert scopes[2]["query_string"].startswith(b"x=%20y&")
        assert all((b"x-user", "ä".encode()) in scope["headers"] for scope in scopes)
        assert not any(key.startswith(b"x-fastrtc") for key, _ in scopes[0]["headers"])


async def test_requests_without_a_session_are_served_where_they_arrive() -> None:
    async with open_call() as (_, two, _webrtc_id, _):
        for path, body in (
            ("/where", {"webrtc_id": "unknown"}),
            ("/where", {"webrtc_id": 5}),
            ("/where", ["webrtc_id"]),
            ("/where?webrtc_id=", {}),
        ):
            assert (await two.http.post(path, json=body)).status_code == 200
        assert (await two.http.post("/where", content=b"\xff{")).status_code == 200
        assert len(two.seen) == 5
        assert (await two.http.get("/webrtc/config")).status_code == 200


@pytest.mark.parametrize("size", [10, 200_000])
async def test_bodies_arrive_whole(size: int) -> None:
    """Those that are read for their session, and those that are passed on as they come."""
    limits = RequestLimits(body_bytes=50_000)
    async with open_call(request_limits=limits) as (one, two, webrtc_id, _):
        content = secrets.token_bytes(size)
        for path in ("/upload", f"/upload?webrtc_id={webrtc_id}"):
            reply = await two.http.post(path, content=content)
            assert reply.status_code == 201
            reply = await two.http.post(path, content=_in_pieces(content))
            assert reply.status_code == 201
        assert two.uploads == one.uploads == [content] * 2


async def _in_pieces(content: bytes) -> AsyncGenerator[bytes, None]:
    for start in range(0, len(content), 40_000):
        yield content[start : start + 40_000]
        await anyio.sleep(0.01)


async def test_a_response_is_streamed_and_ends_with_its_client() -> None:
    async with open_call() as (one, two, webrtc_id, _):
        async with open_events(two, f"/events?webrtc_id={webrtc_id}") as events:
            assert [await events.read() for _ in range(3)] == ["0", "1", "2"]
            await wait_until(lambda: one.seen == ["waits"])
        await wait_until(lambda: one.seen == ["waits", "closed"])


async def test_response_of_a_process_that_ends_is_broken_off(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It does not look complete, and the application is not blamed."""
    async with open_call() as (one, two, webrtc_id, _):
        async with open_events(two, f"/events?webrtc_id={webrtc_id}") as events:
            assert [await events.read() for _ in range(3)] == ["0", "1", "2"]
            one.kill()
            with pytest.raises((anyio.EndOfStream, anyio.BrokenResourceError)):
                await events.read()
            assert b"\r\n0\r\n" not in events._received
        found = [getattr(record, "event", None) for record in caplog.records]
        assert found.count("cluster.request_lost") == 1
        assert "request.failed" not in found


async def test_offers_with_the_id_of_a_live_session() -> None:
    async with open_call() as (one, two, webrtc_id, client):
        async with open_client() as other:
            body = {"type": "offer", "sdp": await make_offer(other), "webrtc_id": webrtc_id}
            reply = await two.http.post("/webrtc/offer", json=body)
            assert reply.status_code == 409
            assert "in use" in reply.text
        restart = {
            "type": "offer",
            "sdp": await to_thread.run_sync(client.run, client.offer_restart),
            "webrtc_id": webrtc_id,
            "restart": True,
        }
        reply = await two.http.post("/webrtc/offer", json=restart)
        assert reply.status_code == 200, reply.text
        await to_thread.run_sync(client.run, client.accept_restart, reply.json()["sdp"])
        assert webrtc_id in one.stream.handlers
        assert not two.stream.sessions


async def test_candidates_reach_the_session() -> None:
    async with open_call() as (_, two, webrtc_id, _):
        for candidate, status in ((None, 200), ({"candidate": "nonsense"}, 400)):
            body = {"type": "ice-candidate", "candidate": candidate, "webrtc_id": webrtc_id}
            reply = await two.http.post("/webrtc/offer", json=body)
            assert reply.status_code == status
        early: Any = two.stream._service._offers._early
        assert not early._kept


async def test_requests_that_come_before_their_session_wait_for_it() -> None:
    webrtc_id = secrets.token_hex(16)
    async with (
        open_nodes(MemoryDirectory(), "one", "two") as (one, two),
        create_task_group() as tasks,
    ):
        done: list[int] = []

        async def read() -> None:
            async with open_events(two, f"/outputs?webrtc_id={webrtc_id}") as outputs:
                done.append(200)
                await outputs.read()
                done.append(0)

        async def send_candidate() -> None:
            body = {"type": "ice-candidate", "candidate": None, "webrtc_id": webrtc_id}
            done.append((await two.http.post("/webrtc/offer", json=body)).status_code)

        tasks.start_soon(read)
        tasks.start_soon(send_candidate)
        directory: Any = two.member._directory
        await wait_until(lambda: len(directory._waiting) == 1, "the finders")
        assert not done
        async with place_call(one.url, webrtc_id):
            await wait_until(lambda: done == [200, 200])
            body = {"webrtc_id": webrtc_id, "level": 7}
            await one.http.post("/input_hook", json=body)
            await wait_until(lambda: done == [200, 200, 0])


async def test_whip_resources_are_found_by_their_path() -> None:
    async with open_nodes(MemoryDirectory(), "one", "two") as (one, two), open_client() as client:
        sdp = await to_thread.run_sync(client.run, client.make_offer, None, False, "sendonly")
        headers = {"Content-Type": "application/sdp"}
        reply = await one.http.post("/whip", content=sdp, headers=headers)
        assert reply.status_code == 201, reply.text
        await accept(client, reply.text)
        resource = httpx.URL(reply.headers["location"]).path
        assert owner_of(resource.rpartition("/")[2]) == "one"
        headers = {"Content-Type": "application/trickle-ice-sdpfrag", "If-Match": "*"}
        section = "a=mid:0\r\na=candidate:1 1 udp 9 127.0.0.1 9 typ host\r\n"
        for node in (one, two):
            patched = await node.http.patch(resource, content=section, headers=headers)
            assert patched.status_code == 204, patched.text
        session = only_session(one.stream)
        assert (await two.http.delete(resource)).status_code == 200
        await wait_until(lambda: session.closed is not None)
        assert (await two.http.delete(resource)).status_code == 404


async def test_the_owner_authenticates() -> None:
    token = "a" * 20
    options: dict[str, Any] = {"authenticate": require_token(token)}
    webrtc_id = secrets.token_hex(16)
    async with (
        open_nodes(MemoryDirectory(), "one", "two", **options) as (one, two),
        place_call(one.url, webrtc_id, token=token),
    ):
        session = only_session(one.stream)
        good = {"Authorization": f"Bearer {token}"}
        for name in (webrtc_id, session.id, session.log_id):
            reply = await two.http.get(f"/sessions/{name}", headers=good)
            assert reply.status_code == 200, reply.text
            assert reply.json()["session_id"] == session.log_id
            for headers in ({}, {"Authorization": "Bearer no"}):
                reply = await two.http.get(f"/sessions/{name}", headers=headers)
                assert reply.status_code == 401


async def test_the_own_port_is_for_the_cluster() -> None:
    async with open_call() as (one, two, webrtc_id, _), httpx.AsyncClient() as http:
        forged = json.dumps({"version": 1, "secret": "guess", "purpose": "place"})
        path = f"/where?webrtc_id={webrtc_id}"
        for headers in (
            {},
            {"x-fastrtc-cluster": "x"},
            {"x-fastrtc-cluster": b64encode(forged.encode()).decode()},
            {"x-fastrtc-cluster": b64encode(b"[]").decode()},
            {"x-fastrtc-cluster": b64encode(b"[" * 10_000).decode()},
        ):
            reply = await http.get(f"{one.member.address}{path}", headers=headers)
            assert reply.status_code == 403
            assert not one.seen
        # At the public port, the header has no meaning, also if the secret is known.
        known = json.dumps({"version": 1, "secret": SECRET, "purpose": "place"})
        for node in (one, two):
            headers = {"x-fastrtc-cluster": b64encode(known.encode()).decode()}
            reply = await node.http.get(path, headers=headers)
            assert reply.status_code == 200
        assert len(one.seen) == 2


async def test_a_process_that_has_ended_is_forgotten(caplog: pytest.LogCaptureFixture) -> None:
    webrtc_id = secrets.token_hex(16)
    async with open_nodes(MemoryDirectory(), "one", "two", "three") as (one, two, three):
        async with place_call(one.url, webrtc_id):
            # As if it had been killed: it does not leave the directory.
            gone: Any = MemoryDirectory()
            one.member._directory, directory = gone, one.member._directory
            one.kill()
            await wait_until(lambda: not one.stream.is_open)
            body = {"webrtc_id": webrtc_id, "level": 1}
            with caplog.at_level(logging.WARNING, "fastrtc_anyio"):
                reply = await two.http.post("/input_hook", json=body)
            assert reply.status_code == 404
            assert "cluster.process_lost" in {getattr(r, "event", "") for r in caplog.records}
            assert [one.owner for one in await directory.list_processes()] == ["two", "three"]
        async with place_call(two.url, webrtc_id):
            assert (await three.http.post("/input_hook", json=body)).status_code == 200


async def test_a_call_that_one_process_refuses_is_taken_by_another() -> None:
    async with open_nodes(MemoryDirectory(), "one", "two", concurrency_limit=1) as (one, two):
        async with place_call(one.url):
            await wait_until(lambda: one.stream.active == 1)
            async with place_call(one.url):
                await wait_until(lambda: two.stream.active == 1)
                async with open_client() as client:
                    body = {"type": "offer", "sdp": await make_offer(client)}
                    reply = await one.http.post("/webrtc/offer", json=body)
                    assert reply.status_code == 503
                    assert reply.json()["meta"]["error"] == "concurrency_limit_reached"
        await wait_until(lambda: not one.stream.active and not two.stream.active)
        async with create_task_group() as tasks, place_call(one.url):
            tasks.start_soon(one.stream.drain)
            await wait_until(lambda: one.stream.is_draining)
            async with place_call(one.url):
                await wait_until(lambda: two.stream.active == 1)


async def test_secrets_and_limits_are_checked() -> None:
    member = Member(MemoryDirectory(), "http://127.0.0.1:1")

    async def app(*_: Any) -> None:
        pass

    with pytest.raises(ValueError, match=re.escape("at least 16 characters; got 5")):
        Switchboard(app, member, "short")
    with pytest.raises(TypeError, match="secret"):
        Switchboard(app, member, b"x" * 20)  # type: ignore[arg-type]
