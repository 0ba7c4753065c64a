"""Forwarded requests whose client or process leaves at any step."""

from __future__ import annotations

import errno
from typing import Any

import anyio
import h11
import pytest
from anyio import EndOfStream
from anyio.abc import ByteStream
from anyio.lowlevel import checkpoint
from hypothesis import given
from hypothesis import strategies as st

from fastrtc_anyio.cluster import Location
from fastrtc_anyio.cluster._forwarding import Forwarder, Incomplete, Lost, Refused
from fastrtc_anyio.cluster._requests import BufferedRequest

ADDRESS = Location("one", "http://127.0.0.1:1")
ANSWER = b"HTTP/1.1 200 OK\r\nDate: today\r\nX-Own: 1\r\nContent-Length: 4\r\n\r\ndone"
HEAD = ANSWER.index(b"done")
FOREVER = 1e9


class Owner(ByteStream):
    """Another process: what it sends, with pauses in seconds, and what it has received."""

    def __init__(self, *sends: bytes | float, reads: bool = True) -> None:
        self._sends = list(sends)
        self._reads = reads
        self.received = b""
        self.is_closed = False

    async def receive(self, max_bytes: int = 65_536) -> bytes:
        await checkpoint()
        while self._sends:
            piece = self._sends.pop(0)
            if isinstance(piece, bytes):
                return piece
            await anyio.sleep(piece)
        raise EndOfStream

    async def send(self, item: bytes) -> None:
        await checkpoint()
        if not self._reads:
            await anyio.sleep_forever()
        self.received += item

    async def send_eof(self) -> None:
        raise NotImplementedError

    async def aclose(self) -> None:
        self.is_closed = True
        await checkpoint()

    @property
    def body(self) -> bytes:
        """Of the request."""
        http, found = h11.Connection(h11.SERVER), b""
        http.receive_data(self.received)
        while isinstance(event := http.next_event(), h11.Request | h11.Data):
            found += bytes(event.data) if isinstance(event, h11.Data) else b""
        return found


class Client:
    """A client that sends pieces of a body, with pauses in seconds, and leaves at the end."""

    def __init__(self, *pieces: bytes | float, method: str = "POST") -> None:
        self._pieces = list(pieces)
        self.received: list[Any] = []
        framing = [(b"transfer-encoding", b"chunked")] if method == "POST" else []
        scope = {
            "method": method,
            "path": "/where",
            "query_string": b"",
            "headers": [(b"host", b"localhost"), *framing],
        }
        self.request = BufferedRequest(scope, self._receive)

    async def _receive(self) -> Any:
        await checkpoint()
        while self._pieces:
            piece = self._pieces.pop(0)
            if isinstance(piece, bytes):
                return {"type": "http.request", "body": piece, "more_body": bool(piece)}
            await anyio.sleep(piece)
        return {"type": "http.disconnect"}

    async def send(self, message: Any) -> None:
        await checkpoint()
        self.received.append(message)

    @property
    def body(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self.received)


async def forward(owner: Owner, client: Client, purpose: Any = "session") -> bool:
    async def connect(*_: Any) -> Owner:
        await checkpoint()
        return owner

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(anyio, "connect_tcp", connect)
        try:
            return await Forwarder("x" * 16).forward(
                client.request, ADDRESS, purpose, "a", client.send
            )
        finally:
            assert owner.is_closed


async def test_request_and_response_are_passed_on() -> None:
    owner, client = Owner(1.0, ANSWER, FOREVER), Client(b"on", b"ce", b"", FOREVER)
    assert await forward(owner, client)
    assert owner.body == b"once"
    assert client.received[0]["status"] == 200
    # The server that sends the response adds a date of its own.
    assert client.received[0]["headers"] == [(b"x-own", b"1"), (b"content-length", b"4")]
    assert client.body == b"done"


async def test_request_without_a_host_is_passed_on() -> None:
    """Clients of HTTP/1.0 need not send it."""
    owner, client = Owner(1.0, ANSWER, FOREVER), Client(b"", FOREVER)
    del client.request.scope["headers"][0]
    assert await forward(owner, client)
    assert b"\r\nhost: \r\n" in owner.received


@pytest.mark.parametrize(
    ("purpose", "status", "is_passed_on"),
    [
        ("session", 421, False),
        ("session", 503, True),
        ("place", 421, True),
        ("place", 503, False),
    ],
)
async def test_statuses_that_say_to_try_elsewhere(
    purpose: Any, status: int, is_passed_on: bool
) -> None:
    owner = Owner(ANSWER.replace(b"200", b"%d" % status), FOREVER)
    client = Client(b"once", b"", FOREVER)
    assert await forward(owner, client, purpose) == is_passed_on
    assert bool(client.received) == is_passed_on


async def test_response_may_come_before_the_whole_request() -> None:
    owner, client = Owner(1.0, ANSWER, FOREVER), Client(b"first", FOREVER)
    began = anyio.current_time()
    assert await forward(owner, client)
    assert anyio.current_time() - began == pytest.approx(1.0)
    assert client.body == b"done"


@pytest.mark.parametrize("pieces", [[b"on", b"ce", b""], [b"once", 5.0], []])
async def test_client_that_leaves_is_not_waited_for(pieces: list[bytes | float]) -> None:
    owner, client = Owner(FOREVER), Client(*pieces)
    began = anyio.current_time()
    assert await forward(owner, client)
    assert anyio.current_time() - began <= 5
    assert not client.received


@pytest.mark.parametrize("reads", [True, False])
async def test_process_that_does_nothing_is_lost(reads: bool) -> None:
    owner = Owner(FOREVER, reads=reads)
    began = anyio.current_time()
    with pytest.raises(Lost):
        await forward(owner, Client(b"once", b"", FOREVER))
    assert anyio.current_time() - began == pytest.approx(30)


async def test_time_for_the_answer_begins_after_the_request() -> None:
    owner = Owner(70.0, ANSWER)
    assert await forward(owner, Client(b"on", 60.0, b"ce", b"", FOREVER))


async def test_outputs_are_waited_for_until_the_client_leaves() -> None:
    owner, client = Owner(FOREVER), Client(b"", 5000.0, method="GET")
    began = anyio.current_time()
    assert await forward(owner, client)
    assert anyio.current_time() - began == pytest.approx(5000)


@given(end=st.integers(0, len(ANSWER) - 1), reads=st.booleans())
async def test_process_that_ends_is_noticed(end: int, reads: bool) -> None:
    """Before it has answered, nothing is sent; later, the response does not look complete."""
    owner, client = Owner(ANSWER[:end], reads=reads), Client(b"once", b"", FOREVER)
    with pytest.raises(Lost if end < HEAD or not reads else Incomplete):
        await forward(owner, client)
    assert bool(client.received) == (end >= HEAD and reads)
    assert all(message.get("more_body", True) for message in client.received)


@pytest.mark.parametrize(
    ("cause", "error"),
    [
        (ConnectionRefusedError(), Refused),
        (ExceptionGroup("", [ConnectionRefusedError(), ConnectionRefusedError()]), Refused),
        (ExceptionGroup("", [ConnectionRefusedError(), OSError(errno.EHOSTUNREACH, "")]), Lost),
        (OSError(errno.EMFILE, "Too many open files"), Lost),
    ],
)
async def test_only_a_refused_connection_shows_that_a_process_has_ended(
    cause: Exception, error: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def connect(*_: Any) -> Any:
        await checkpoint()
        raise OSError("All connection attempts failed") from cause

    monkeypatch.setattr(anyio, "connect_tcp", connect)
    client = Client(b"")
    with pytest.raises(error):
        await Forwarder("x" * 16).forward(client.request, ADDRESS, "session", "a", client.send)
