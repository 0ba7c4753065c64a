"""Examples that are applications or use a service, with real servers and calls in real time."""

from __future__ import annotations

import json
import threading
from collections.abc import AsyncIterator, Generator
from typing import Any

import anyio
import httpx
import numpy as np
import pytest
from anyio import create_task_group
from anyio.lowlevel import checkpoint
from websockets.sync.server import serve as serve_websockets

from fastrtc_anyio import CloseReason, RequestLimits, SessionState
from fastrtc_anyio._sessions.early import EarlyReaders
from fastrtc_anyio._wire.events import Start
from fastrtc_anyio._wire.twilio import TwilioFraming
from fastrtc_anyio.server.launch import open_server
from fastrtc_anyio.testing import open_call as open_memory_call
from fastrtc_anyio.testing import tone
from tests.kit.backends import anyio_backend as anyio_backend
from tests.kit.calls import place_call, receive_json, serve
from tests.kit.measure import check_echo, speak, typical_snr
from tests.kit.waiting import wait_until
from tests.kit.websockets import open_client as open_phone

from .loading import load


async def test_mount_starlette() -> None:
    example = load("mount_starlette")
    async with open_server(example.app) as url, httpx.AsyncClient(base_url=url) as http:
        assert "<html" in (await http.get("/")).text
        assert (await http.get("/status")).json() == {"calls": 0}
        async with place_call(url) as client:
            await check_echo(client)
            assert (await http.get("/status")).json() == {"calls": 1}
        await wait_until(lambda: example.stream.active == 0)
    assert not example.stream.is_open


async def test_mount_fastapi() -> None:
    example = load("mount_fastapi")
    async with open_server(example.app) as url, httpx.AsyncClient(base_url=url) as http:
        assert "<html" in (await http.get("/voice/")).text
        assert (await http.get("/calls")).json() == []
        async with place_call(f"{url}/voice") as client:
            await check_echo(client)
            (session_id,) = (await http.get("/calls")).json()
            assert (await http.delete(f"/calls/{session_id}")).status_code == 200
            await wait_until(client.closed.is_set)
        await wait_until(lambda: example.stream.active == 0)
        assert (await http.delete(f"/calls/{session_id}")).status_code == 404
    assert not example.stream.is_open


async def next_loudness(lines: AsyncIterator[str]) -> int:
    """Read one event: a line of data, then an empty line."""
    with anyio.fail_after(10):
        data = await anext(lines)
        assert await anext(lines) == ""
    return int(json.loads(data.removeprefix("data: "))["loudness"])


async def test_inputs_and_outputs() -> None:
    example = load("inputs_and_outputs")
    async with open_server(example.app) as url, httpx.AsyncClient(base_url=url) as http:
        async with place_call(url, "me") as client:
            await receive_json(client, "send_input")
            await http.post("/input_hook", json={"webrtc_id": "me", "volume": 2.0})
            speak(client, tone(440, 48_000, 20, amplitude=0.25))
            async with http.stream("GET", "/outputs", params={"webrtc_id": "me"}) as events:
                lines = events.aiter_lines()
                await next_loudness(lines)  # the second in which the tone began
                loud = await next_loudness(lines)
                await receive_json(client, "fetch_output")
                await http.post("/input_hook", json={"webrtc_id": "me", "volume": 0.5})
                await next_loudness(lines)  # the second in which the volume changed
                assert await next_loudness(lines) == pytest.approx(loud / 4, rel=0.05)
                assert loud > 10_000
                client.hang_up()
                with anyio.fail_after(5):
                    assert [line async for line in lines if line] == []
        await wait_until(lambda: example.stream.active == 0)


async def test_telephone() -> None:
    example = load("telephone")
    async with serve(example.stream) as url:
        async with httpx.AsyncClient() as http:
            answer = (await http.post(f"{url}/telephone/incoming")).text
        assert f'url="{url.replace("http", "ws")}/telephone/handler"' in answer
        assert "<Say>Goodbye.</Say>" in answer
        async with (
            open_phone(url, Start("MZ1"), TwilioFraming(), "/telephone/handler") as carrier,
            create_task_group() as tasks,
        ):
            tasks.start_soon(carrier.listen)
            await carrier.speak(np.zeros((1, 8_000), np.int16), 8_000)
            beep = carrier.sound.shape[1]
            assert beep == 4_000
            await carrier.speak(tone(440, 8_000, 1.5), 8_000)
            await carrier.speak(np.zeros((1, 24_000), np.int16), 8_000)
            assert carrier.sound.shape[1] - beep == pytest.approx(1.5 * 8_000, rel=0.5)
            carrier.press("#")
            with anyio.fail_after(5):
                await carrier.ended.wait()
            tasks.cancel_scope.cancel()
        await wait_until(lambda: example.stream.active == 0)


async def test_page_inputs() -> None:
    """The stream's own endpoints, used as its page does."""
    example = load("page_inputs")
    async with serve(example.stream) as url, httpx.AsyncClient(base_url=url) as http:
        async with place_call(url, "me") as client:
            await receive_json(client, "send_input")
            inputs = {"webrtc_id": "me", "volume": 2.0, "upside_down": False}
            reply = await http.post("/input_hook", json=inputs)
            assert reply.status_code == 200, reply.text
            speak(client, tone(440, 48_000, 20, amplitude=0.25))
            async with http.stream("GET", "/outputs", params={"webrtc_id": "me"}) as events:
                lines = events.aiter_lines()
                await read_level(lines, -12, -6)
                await http.post("/input_hook", json={**inputs, "volume": 0.5})
                await read_level(lines, -24, -18)  # a quarter of it
                client.hang_up()
                with anyio.fail_after(5):
                    assert "event: end" in [line async for line in lines]
        await wait_until(lambda: example.stream.active == 0)


async def read_level(lines: AsyncIterator[str], low: int, high: int) -> None:
    """Read until the displayed level is in a range of dBFS."""
    with anyio.fail_after(10):
        while True:
            line = await anext(lines)
            if line.startswith("data: "):
                shown = json.loads(line.removeprefix("data: "))["loudness"]
                if low <= int(shown.removesuffix(" dBFS")) <= high:
                    return


async def test_inputs_and_outputs_of_unknown_id_are_404(monkeypatch: pytest.MonkeyPatch) -> None:
    example = load("inputs_and_outputs")
    limits = RequestLimits(early_seconds=0.1)
    monkeypatch.setattr(example.stream._service, "early_readers", EarlyReaders(limits))
    async with open_server(example.app) as url, httpx.AsyncClient(base_url=url) as http:
        inputs = {"webrtc_id": "nobody", "volume": 1.0}
        replies = [
            await http.post("/input_hook", json=inputs),
            await http.get("/outputs", params={"webrtc_id": "nobody"}),
        ]
    assert [reply.status_code for reply in replies] == [404, 404]
    assert "nobody" in replies[0].json()["error"]


class Service:
    """The example's service; counts its connections."""

    def __init__(self, answer: Any) -> None:
        self.connected = 0
        self._answer = answer
        self.server = serve_websockets(self._serve, "127.0.0.1", 0)
        self.url = f"ws://127.0.0.1:{self.server.socket.getsockname()[1]}"

    def _serve(self, socket: Any) -> None:
        self.connected += 1
        try:
            self._answer(socket)
        finally:
            self.connected -= 1
            self.close_code = socket.close_code


@pytest.fixture
def asyncio_sdk() -> Any:
    return load("asyncio_sdk")


@pytest.fixture
def service(asyncio_sdk: Any) -> Generator[Service, None, None]:
    service = Service(asyncio_sdk.service)
    thread = threading.Thread(target=service.server.serve_forever)
    thread.start()
    yield service
    service.server.shutdown()
    thread.join()


async def test_asyncio_sdk(asyncio_sdk: Any, service: Service) -> None:
    async with open_memory_call(asyncio_sdk.Remote(service.url)) as call:
        await call.speak(tone(440, 48_000, 1.0))
        await anyio.sleep(0.3)
        assert service.connected == 1
    assert np.count_nonzero(call.heard) > 0.9 * 16_000
    assert typical_snr(call.heard[0], 440, 16_000) > 30
    await wait_until(lambda: service.connected == 0)
    assert service.close_code == 1000  # a closing handshake, not a dropped connection


async def test_asyncio_sdk_without_its_service(asyncio_sdk: Any) -> None:
    remote = asyncio_sdk.Remote("ws://127.0.0.1:9")  # no server listens on the discard port
    async with open_memory_call(remote, raise_errors=False) as call:
        with anyio.fail_after(5):
            await call.ended.wait()
    assert isinstance(call.session.error, OSError)
    assert call.session.closed is not None
    assert call.session.closed.reason is CloseReason.HANDLER_ERROR


@pytest.mark.parametrize("hesitation", [0.0005, 0.001, 0.002, 0.004, 0.008])
async def test_asyncio_sdk_hung_up_while_connecting(
    asyncio_sdk: Any, service: Service, hesitation: float
) -> None:
    async with open_memory_call(asyncio_sdk.Remote(service.url)) as call:
        while call.session.state is not SessionState.CONNECTED:
            await checkpoint()
        await anyio.sleep(hesitation)
    await wait_until(lambda: service.connected == 0)
