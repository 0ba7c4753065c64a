"""A process without descriptors, threads or memory: 503, one warning, and nothing is left."""

from __future__ import annotations

import errno
import logging
import os
import resource
import threading
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import anyio
import httpx
import pytest
from aiortc import RTCPeerConnection
from aiortc.rtcdtlstransport import RTCDtlsTransport
from aiortc.rtcicetransport import RTCIceGatherer, RTCIceTransport
from starlette.applications import Starlette

from fastrtc_anyio import CloseReason, Session, Stream, StreamHandler
from tests.kit.calls import make_stream, only_session, place_call, serve, wait_ended
from tests.kit.leftovers import errors, nothing_left
from tests.kit.offers import audio, data, describe
from tests.kit.waiting import wait_until

OFFER = describe(audio("0"), data("1"))
NO_FILES = OSError(errno.EMFILE, "Too many open files")
NO_THREADS = RuntimeError("can't start new thread")


async def listen(session: Session) -> None:
    await anyio.sleep_forever()


@pytest.fixture(autouse=True)
def forget_warnings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fastrtc_anyio._overload._warned", {})


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    """The warnings about shortages, by what is missing."""
    texts = [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]
    return [t.partition(":")[0] for t in texts if t.startswith("the process is out of")]


@asynccontextmanager
async def open_http(stream: Stream) -> AsyncGenerator[httpx.AsyncClient, None]:
    """Open a client of a stream without sockets between them."""
    app = Starlette()
    stream.mount(app)
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as http:
        yield http


async def post_offer(http: httpx.AsyncClient) -> httpx.Response:
    return await http.post("/webrtc/offer", json={"type": "offer", "sdp": OFFER})


async def post_whip(http: httpx.AsyncClient) -> httpx.Response:
    headers = {"Content-Type": "application/sdp"}
    return await http.post("/whip", content=OFFER, headers=headers)


async def hang_up(stream: Stream) -> None:
    for session in list(stream.sessions.values()):
        session.close(CloseReason.HUNG_UP)
    await wait_until(lambda: not stream.sessions, "the end of the sessions")


NEGOTIATION = [
    (RTCPeerConnection, "setRemoteDescription"),
    (RTCPeerConnection, "createAnswer"),
    (RTCPeerConnection, "setLocalDescription"),
    (RTCIceGatherer, "gather"),
    (RTCDtlsTransport, "__init__"),
    (RTCDtlsTransport, "getLocalParameters"),
    (RTCIceTransport, "__init__"),
]
"""Steps of aiortc while it applies an offer."""


@pytest.mark.parametrize(
    ("error", "status"),
    [(NO_FILES, 503), (NO_THREADS, 503), (MemoryError(), 503), (ValueError("injected"), 400)],
    ids=["files", "threads", "memory", "other"],
)
@pytest.mark.parametrize(("owner", "name"), NEGOTIATION, ids=[name for _, name in NEGOTIATION])
async def test_negotiation_that_fails_is_answered_and_leaves_nothing(
    owner: type,
    name: str,
    error: Exception,
    status: int,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_args: Any, **_options: Any) -> Any:
        raise error

    async with make_stream(listen) as stream, open_http(stream) as http:
        assert (await post_offer(http)).status_code == 200
        await hang_up(stream)
        async with nothing_left(caplog):
            with monkeypatch.context() as patch:
                patch.setattr(owner, name, fail)
                for post in (post_offer, post_offer, post_whip):
                    response = await post(http)
                    assert response.status_code == status, response.text
                    assert ("retry-after" in response.headers) == (status == 503)
            await wait_until(lambda: not stream.sessions)
            assert (await post_offer(http)).status_code == 200
            await hang_up(stream)
    assert errors(caplog) == []
    assert len(warnings(caplog)) == (status == 503)


@contextmanager
def without_files() -> Generator[None, None, None]:
    """Use up the file descriptors of the process."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    used = max(int(name) for name in os.listdir("/proc/self/fd"))
    resource.setrlimit(resource.RLIMIT_NOFILE, (used + 10, hard))
    kept = []
    try:
        with pytest.raises(OSError, match="Too many open files"):
            while True:
                kept.append(os.open(os.devnull, os.O_RDONLY))
        yield
    finally:
        for one in kept:
            os.close(one)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def test_offers_without_file_descriptors_are_503_and_a_call_goes_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with make_stream(listen) as stream, open_http(stream) as http, place_call(stream):
        session = only_session(stream)
        async with nothing_left(caplog):
            with without_files():
                for post in (post_offer, post_whip, post_offer):
                    response = await post(http)
                    assert response.status_code == 503
                    assert "out of file descriptors" in response.text
            assert session.closed is None
            assert (await post_offer(http)).status_code == 200
            for other in list(stream.sessions.values()):
                if other is not session:
                    other.close(CloseReason.HUNG_UP)
            await wait_until(lambda: len(stream.sessions) == 1)
    assert errors(caplog) == []
    assert warnings(caplog) == ["the process is out of file descriptors"]


async def test_server_without_file_descriptors_serves_again_later() -> None:
    async with make_stream(listen) as stream, serve(stream) as url:
        async with httpx.AsyncClient() as http:
            assert (await http.get(f"{url}/webrtc/config")).status_code == 200
            with without_files():
                # The connection is open already.
                body = {"type": "offer", "sdp": OFFER}
                response = await http.post(f"{url}/webrtc/offer", json=body)
                assert response.status_code == 503
                assert response.headers["retry-after"] == "5"
        async with httpx.AsyncClient() as http:
            with anyio.fail_after(10):
                assert (await http.get(f"{url}/webrtc/config")).status_code == 200


@contextmanager
def without_threads(monkeypatch: pytest.MonkeyPatch) -> Generator[None, None, None]:
    def refuse(_thread: threading.Thread) -> None:
        raise NO_THREADS

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        yield


@pytest.mark.parametrize("path", ["/webrtc/offer", "/whip"])
async def test_plain_authenticate_without_a_thread_is_503(
    path: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def authenticate(_connection: object) -> bool:
        return True

    post = post_whip if path == "/whip" else post_offer
    stream = make_stream(listen, authenticate=authenticate)
    async with stream, open_http(stream) as http:
        with without_threads(monkeypatch):
            responses = [await post(http) for _ in range(3)]
        assert [r.status_code for r in responses] == [503, 503, 503]
        assert "out of threads" in responses[0].text
        assert (await post(http)).status_code in (200, 201)
        await hang_up(stream)
    assert errors(caplog) == []
    assert warnings(caplog) == ["the process is out of threads"]


async def test_websocket_whose_authenticate_gets_no_thread_is_503(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def authenticate(_connection: object) -> bool:
        return True

    start = threading.Thread.start

    def refuse(thread: threading.Thread) -> None:
        if "authenticate" in thread.name:
            raise NO_THREADS
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", refuse)
    headers = {
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
    }
    stream, http = make_stream(listen, authenticate=authenticate), httpx.AsyncClient()
    async with stream, serve(stream) as url, http:
        response = await http.get(f"{url}/websocket/offer", headers=headers)
    assert response.status_code == 503
    assert response.headers["retry-after"] == "5"
    assert errors(caplog) == []
    assert warnings(caplog) == ["the process is out of threads"]


async def test_credentials_without_a_descriptor_are_503(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def fetch() -> dict[str, object]:
        try:
            raise NO_FILES
        except OSError as exc:
            raise httpx.ConnectError("All connection attempts failed") from exc

    options = {"rtc_configuration": fetch, "server_rtc_configuration": fetch}
    async with make_stream(listen, **options) as stream, open_http(stream) as http:
        for response in (
            await http.get("/webrtc/config"),
            await post_offer(http),
            await post_whip(http),
        ):
            assert response.status_code == 503, response.text
            assert response.headers["retry-after"] == "5"
    assert errors(caplog) == []
    assert warnings(caplog) == ["the process is out of file descriptors"]


class Plain(StreamHandler):
    """Its methods need a thread."""

    def start_up(self) -> None: ...

    def receive(self, frame: object) -> None: ...

    def emit(self) -> None: ...

    def copy(self) -> Plain:
        return Plain()


async def test_handler_without_a_thread_ends_its_session_as_rejected(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended: list[Session] = []
    async with make_stream(Plain()) as stream:
        start = threading.Thread.start

        def refuse_workers(thread: threading.Thread) -> None:
            if thread.name.startswith("Plain"):
                raise NO_THREADS
            start(thread)

        monkeypatch.setattr(threading.Thread, "start", refuse_workers)
        for _ in range(2):
            async with place_call(stream, channel=True):
                ended.append(only_session(stream))
                assert await wait_ended(stream, ended[-1]) is CloseReason.REJECTED
    assert errors(caplog) == []
    assert warnings(caplog) == ["the process is out of threads"]
