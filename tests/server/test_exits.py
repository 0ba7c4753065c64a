"""``sys.exit()`` and stubborn tasks of an application affect one request or one session."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable
from typing import Any

import anyio
import httpx
import pytest
from anyio import CancelScope
from starlette.applications import Starlette

from fastrtc_anyio import Limits, Stream
from fastrtc_anyio.server.launch import open_server
from fastrtc_anyio.server.page.components import Checkbox
from tests.kit.calls import echo, make_stream, only_session
from tests.kit.handlers import Quiet
from tests.kit.offers import audio, describe
from tests.kit.waiting import wait_until
from tests.kit.websockets import open_wire

START = '{"event": "start", "websocket_id": "me"}'


def leave(*_: object) -> Any:
    sys.exit(3)


async def leave_later(*_: object) -> Any:
    sys.exit(3)


class Unmade(Quiet):
    def __init__(self) -> None:
        sys.exit(3)


class Uncopied(Quiet):
    copy: Any = leave


class Unset(Quiet):
    set_args: Any = leave

    def copy(self) -> Unset:
        return Unset()


async def serve_and_check(stream: Stream, use: Callable[[str, httpx.AsyncClient], Any]) -> None:
    """Mount the stream beside another one, which must be served as before and after."""
    app, other = Starlette(), make_stream(echo)
    other.mount(app, path="/other")
    stream.mount(app)
    async with (
        open_server(app) as url,
        httpx.AsyncClient(base_url=url) as client,
        open_wire(url, "/other/websocket/offer") as wire,
    ):
        await wire.send(START)
        await wait_until(lambda: len(other.sessions) == 1)
        session = only_session(other)
        await use(url, client)
        assert session.closed is None
        assert (await client.get("/other/webrtc/config")).status_code == 200


@pytest.mark.parametrize("handler", [Unmade, leave, Uncopied()], ids=["class", "factory", "copy"])
async def test_exit_while_a_handler_is_made_fails_its_offer(handler: Any) -> None:
    stream = make_stream(handler)

    async def use(url: str, client: httpx.AsyncClient) -> None:
        sdp = describe(audio())
        offer = {"type": "offer", "sdp": sdp, "webrtc_id": "me"}
        assert (await client.post("/webrtc/offer", json=offer)).status_code == 500
        headers = {"content-type": "application/sdp"}
        assert (await client.post("/whip", content=sdp, headers=headers)).status_code == 500
        async with open_wire(url) as wire:
            await wire.send(START)
            assert await wire.receive_end() == 1011
        assert len(stream.sessions) == 0

    await serve_and_check(stream, use)


@pytest.mark.parametrize("error", [anyio.EndOfStream, anyio.BrokenResourceError])
async def test_stream_error_while_a_handler_is_copied_is_reported(
    error: type[Exception], caplog: pytest.LogCaptureFixture
) -> None:
    class Failing(Quiet):
        def copy(self) -> Failing:
            raise error

    stream = make_stream(Failing())

    async def use(url: str, client: httpx.AsyncClient) -> None:
        async with open_wire(url) as wire:
            await wire.send(START)
            assert await wire.receive_end() == 1011
        assert "raised in Failing.copy" in caplog.text

    await serve_and_check(stream, use)


@pytest.mark.parametrize("function", [leave, leave_later])
@pytest.mark.parametrize(
    "option", ["authenticate", "rtc_configuration", "server_rtc_configuration"]
)
async def test_exit_in_a_function_of_the_stream_fails_its_request(
    option: str, function: Any
) -> None:
    stream = make_stream(echo, **{option: function})

    async def use(url: str, client: httpx.AsyncClient) -> None:
        if option == "server_rtc_configuration":
            offer = {"type": "offer", "sdp": describe(audio()), "webrtc_id": "me"}
            reply = await client.post("/webrtc/offer", json=offer)
        else:
            reply = await client.get("/webrtc/config")
        assert reply.status_code == 500
        assert "SystemExit" not in reply.text

    await serve_and_check(stream, use)


async def test_exit_in_set_args_fails_the_request_for_input() -> None:
    stream = make_stream(Unset(), additional_inputs=[Checkbox("Loud")])

    async def use(url: str, client: httpx.AsyncClient) -> None:
        async with open_wire(url) as wire:
            await wire.send(START)
            await wait_until(lambda: len(stream.sessions) == 1)
            session = only_session(stream)
            reply = await client.post("/input_hook", json={"webrtc_id": session.id, "loud": True})
            assert reply.status_code == 500
            assert session.closed is None

    await serve_and_check(stream, use)


async def test_stubborn_handler_holds_no_slot(caplog: pytest.LogCaptureFixture) -> None:
    released = anyio.Event()

    class Stubborn(Quiet):
        async def emit(self) -> None:
            while not released.is_set():
                with contextlib.suppress(BaseException):
                    await released.wait()
                with CancelScope(shield=True), anyio.move_on_after(0.02):
                    await released.wait()
            await anyio.sleep(0.02)

        def copy(self) -> Stubborn:
            return Stubborn()

    stream = make_stream(Stubborn(), concurrency_limit=1, limits=Limits(shutdown=0.5))
    app = Starlette()
    stream.mount(app)
    async with open_server(app) as url:
        async with open_wire(url) as wire:
            await wire.send(START)
            await wait_until(lambda: len(stream.sessions) == 1)
            session = only_session(stream)
        await wait_until(lambda: session.is_abandoned)
        assert "in emit" in caplog.text
        async with open_wire(url) as wire:
            await wire.send(START)
            assert await wire.receive_json() == {"type": "log", "data": "earlier_session_abandoned"}
            assert only_session(stream) is not session
            released.set()
    assert len(stream.handlers) == 0
