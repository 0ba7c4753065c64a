"""Which session a request is about, and that nothing of the request is lost."""

from __future__ import annotations

import json
from typing import Any

import anyio
import pytest
from anyio import create_task_group
from hypothesis import given
from hypothesis import strategies as st

from fastrtc_anyio import RequestLimits
from fastrtc_anyio._signaling.requests import MAX_ID_LENGTH
from fastrtc_anyio.cluster import Location, Member, MemoryDirectory, Switchboard
from fastrtc_anyio.cluster._requests import BufferedRequest, Subject

KEY = "0123456789_-ABCDEFGHIJ"
LIMITS = RequestLimits(body_bytes=1000, body_seconds=2.0)


class Sender:
    """The ``receive`` of a request whose body comes in pieces, and then of a client that waits.

    A number among the pieces is a pause in seconds.
    """

    def __init__(self, pieces: list[bytes | float]) -> None:
        self._pieces = pieces

    async def __call__(self) -> Any:
        while self._pieces and not isinstance(self._pieces[0], bytes):
            await anyio.sleep(self._pieces.pop(0))  # type: ignore[arg-type]
        if not self._pieces:
            await anyio.sleep_forever()
        body = self._pieces.pop(0)
        more = any(isinstance(piece, bytes) for piece in self._pieces)
        return {"type": "http.request", "body": body, "more_body": more}


def make(
    method: str, path: str, *pieces: bytes | float, query: str = "", accept: str = "*/*"
) -> BufferedRequest:
    headers = [(b"accept", accept.encode())]
    scope = {"method": method, "path": path, "query_string": query.encode(), "headers": headers}
    return BufferedRequest(scope, Sender(list(pieces) or [b""]), LIMITS)


async def read(request: BufferedRequest) -> bytes:
    body, more = b"", True
    while more:
        message = await request.receive()
        body += message["body"]
        more = message["more_body"]
    return body


async def test_subjects() -> None:
    about = json.dumps({"webrtc_id": "a"}).encode()
    offer = json.dumps({"type": "offer", "webrtc_id": "a"}).encode()
    restart = json.dumps({"type": "offer", "webrtc_id": "a", "restart": True}).encode()
    candidate = json.dumps({"type": "ice-candidate", "webrtc_id": "a"}).encode()
    events = "application/json, text/event-stream"
    for request, expected in (
        (make("PATCH", f"/voice/whip/w0.{KEY}"), Subject(f"w0.{KEY}", "other")),
        (make("DELETE", f"/whep/w0.{KEY}/"), Subject(f"w0.{KEY}", "other")),
        (make("GET", "/static/page.0123456789"), Subject(None, "other")),
        (make("GET", "/sessions/w0.01234567"), Subject("w0.01234567", "other")),
        (make("POST", "/sessions/login", about), Subject("a", "other")),
        (make("GET", "/outputs", query="x=1&webrtc_id=a%20b"), Subject("a b", "early")),
        (make("GET", "/events", query="webrtc_id=a", accept=events), Subject("a", "early")),
        (make("GET", "/state", query="webrtc_id=a"), Subject("a", "other")),
        (make("POST", "/state", b"{}", query="webrtc_id=a"), Subject("a", "other")),
        (make("GET", "/state", query="webrtc_id="), Subject(None, "other")),
        (make("GET", "/state", query="webrtc_id=a&webrtc_id=b"), Subject("b", "other")),
        (make("GET", "/state", query="webrtc_id=a&webrtc_id="), Subject(None, "other")),
        (make("GET", f"/sessions/{'x' * (MAX_ID_LENGTH + 1)}"), Subject(None, "other")),
        (make("POST", "/input_hook", b" \n" + about), Subject("a", "other")),
        (make("POST", "/webrtc/offer", offer), Subject("a", "offer")),
        (make("POST", "/voice/webrtc/offer/", b"{}"), Subject(None, "offer")),
        (make("POST", "/webrtc/offer", restart), Subject("a", "other")),
        (make("POST", "/webrtc/offer", candidate), Subject("a", "early")),
        (make("POST", "/whip", b"v=0\r\n"), Subject(None, "offer")),
        (make("POST", "/input_hook", about), Subject("a", "other")),
        (make("PUT", "/input_hook", about), Subject(None, "other")),
    ):
        assert await request.find_subject() == expected, request.scope["path"]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xff",
        b"[1]",
        b'"webrtc_id"',
        b'{"webrtc_id": null}',
        b'{"webrtc_id": ["a"]}',
        b'{"webrtc_id": ""}',
        b"[" * 900,
        json.dumps({"webrtc_id": "x" * (MAX_ID_LENGTH + 1)}).encode(),
    ],
)
async def test_other_bodies_are_about_no_session(body: bytes) -> None:
    assert await make("POST", "/any", body).find_subject() == Subject(None, "other")


@given(
    st.lists(st.binary(max_size=400), min_size=1, max_size=8),
    st.sampled_from(["/any", "/webrtc/offer"]),
)
async def test_body_is_passed_on_whole(pieces: list[bytes], path: str) -> None:
    request = make("POST", path, *pieces)
    await request.find_subject()
    whole = b"".join(pieces)
    assert await read(request) == whole
    if request.is_buffered:
        assert len(whole) - len(pieces[-1]) <= LIMITS.body_bytes
        request.rewind()
        assert await read(request) == whole
        assert not request.is_spent
    else:
        assert request.is_spent


async def test_body_in_many_chunks_takes_no_more_memory_than_its_bytes() -> None:
    request = make("POST", "/webrtc/offer", *[b" "] * 500, b"{}")
    assert await request.find_subject() == Subject(None, "offer")
    assert (await request.receive())["body"] == b" " * 500 + b"{}"
    assert request.is_buffered


async def test_body_that_is_no_object_is_passed_on_as_it_comes() -> None:
    """An endpoint of the application may answer while it reads."""
    request = make("POST", "/upload", b"RIFF", 60.0, b"{}")
    began = anyio.current_time()
    assert await request.find_subject() == Subject(None, "other")
    assert (await request.receive())["body"] == b"RIFF"
    assert anyio.current_time() == began
    assert await read(request) == b"{}"


async def test_offer_of_a_client_that_leaves_is_not_whole() -> None:
    messages: list[Any] = [{"type": "http.request", "body": b"{}", "more_body": True}]

    async def receive() -> Any:
        return messages.pop() if messages else {"type": "http.disconnect"}

    scope = {"method": "POST", "path": "/webrtc/offer", "query_string": b"", "headers": []}
    request = BufferedRequest(scope, receive, LIMITS)
    assert await request.find_subject() == Subject(None, "offer")
    for _ in range(2):
        request.rewind()
        assert (await request.receive())["more_body"]
        assert (await request.receive())["type"] == "http.disconnect"


async def test_slow_body_is_passed_on_as_it_comes() -> None:
    request = make("POST", "/any", b'{"webrtc_id"', 5.0, b': "a"}')
    began = anyio.current_time()
    assert await request.find_subject() == Subject(None, "other")
    assert anyio.current_time() - began == pytest.approx(LIMITS.body_seconds)
    assert await read(request) == b'{"webrtc_id": "a"}'


async def test_requests_that_wait_for_their_session_are_limited() -> None:
    """Above the limit, the oldest of the client with the most is served at once, here."""
    served: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        served.append(scope["query_string"].decode()[-1])

    directory = MemoryDirectory()
    member = Member(directory, "http://127.0.0.1:1", name="one")
    await directory.join("two", "http://127.0.0.1:2")
    limits = RequestLimits(early_clients=3, early_seconds=10.0)
    board = Switchboard(app, member, "x" * 16, limits)

    async def ask(name: str, client: str) -> None:
        scope = {
            "type": "http",
            "method": "GET",
            "path": "/outputs",
            "query_string": f"webrtc_id={name}".encode(),
            "headers": [],
            "client": (client, 1),
        }
        send: Any = None
        await board(scope, Sender([b""]), send)

    async with create_task_group() as tasks:
        for name in "ABCDxE":
            tasks.start_soon(ask, name, "friend" if name == "x" else "attacker")
            await anyio.sleep(0.1)
        assert "".join(served) == "ABC"
        await anyio.sleep(9)
        assert "".join(served) == "ABC"
        await anyio.sleep(2)
        assert "".join(served) == "ABCDxE"
        assert not board._finding
    assert await member.find("two.x") == Location("two", "http://127.0.0.1:2")
