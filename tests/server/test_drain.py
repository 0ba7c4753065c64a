"""SIGTERM drains a server: calls continue, and new ones get a 503. A second signal ends all."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import AsyncGenerator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
from websockets.exceptions import InvalidStatus

from tests.kit.aiortc_client import AiortcClient, open_client
from tests.kit.calls import make_offer, place_call, post, receive_json
from tests.kit.measure import check_echo
from tests.kit.served import Program, run_server
from tests.kit.waiting import wait_until
from tests.kit.websockets import Wire, open_wire

PROGRAM = Path(__file__).with_name("drainable.py")
ROOT = str(Path(__file__).parents[2])
CALLER = "3f0c8e7a5d1b4296af7083c2de91b654"
OFFER = {"type": "offer", "sdp": "v=0", "webrtc_id": "0a1c8e7a5d1b4296af7083c2de91b654"}

# The program has its own backend; one backend is enough for the client.
pytestmark = pytest.mark.parametrize("anyio_backend", ["asyncio"])


def module(name: str, *arguments: str) -> list[str]:
    return [sys.executable, "-m", name, *arguments]


COMMANDS = {
    "serve-trio": module("fastrtc_anyio", "serve", f"{PROGRAM}:stream", "--port", "0"),
    "serve-asyncio": module(
        "fastrtc_anyio", "serve", f"{PROGRAM}:stream", "--port", "0", "--backend", "asyncio"
    ),
    "uvicorn": module("uvicorn", "tests.server.drainable:app", "--port", "0"),
    **{
        mode: [sys.executable, str(PROGRAM), mode]
        for mode in (
            "launch-trio",
            "launch-asyncio",
            "open-trio",
            "open-asyncio",
            "hypercorn-trio",
            "hypercorn-asyncio",
        )
    },
}
HYPERCORN = ("hypercorn", "tests.server.drainable:app", "--bind", "127.0.0.1:0")
every_server = pytest.mark.parametrize("mode", COMMANDS)


def running(command: Sequence[str], **variables: str) -> AbstractAsyncContextManager[Program]:
    return run_server(command, {"PYTHONPATH": ROOT, **variables})


@asynccontextmanager
async def open_call(url: str) -> AsyncGenerator[Wire, None]:
    """Call over a WebSocket."""
    async with open_wire(url) as wire:
        await wire.send(json.dumps({"event": "start", "websocket_id": CALLER}))
        await check_wire(wire)
        yield wire


async def check_wire(wire: Wire) -> None:
    """Check that the session returns a message."""
    await wire.send('{"type": "hello"}')
    while (await wire.receive_json()).get("type") != "hello":
        pass


async def wait_draining(url: str, path: str = "") -> httpx.Response:
    """Return the first response that is not about the malformed offer."""
    with anyio.fail_after(5):
        while True:
            if (reply := await post(url + path, OFFER)).status_code != 400:
                return reply
            await anyio.sleep(0.05)


async def check_refusals(url: str) -> None:
    """Check that new sessions are refused, on every transport."""
    reply = await wait_draining(url)
    assert (reply.status_code, reply.headers["retry-after"]) == (503, "5")
    assert reply.json()["meta"]["reason"] == "draining"
    async with httpx.AsyncClient() as http, open_client() as client:
        assert (await http.get(f"{url}/webrtc/config")).status_code == 200
        headers, offer = {"Content-Type": "application/sdp"}, await make_offer(client)
        for path in ("whip", "whep", "telephone/incoming"):
            reply = await http.post(f"{url}/{path}", content=offer, headers=headers)
            assert (reply.status_code, reply.headers["retry-after"]) == (503, "5"), path
    for path in ("/websocket/offer", "/telephone/handler"):
        with pytest.raises(InvalidStatus) as caught:
            async with open_wire(url, path):
                pass
        response = caught.value.response
        assert (response.status_code, response.headers["retry-after"]) == (503, "5")


def check_quiet(program: Program, *statuses: int) -> None:
    assert program.process.returncode in statuses, program.printed
    assert "Traceback" not in program.printed["stderr"], program.printed["stderr"]


async def hang_up(client: AiortcClient) -> None:
    client.hang_up()
    await wait_until(client.closed.is_set)


@asynccontextmanager
async def open_calls(
    command: Sequence[str], **variables: str
) -> AsyncGenerator[tuple[Program, Wire, AiortcClient], None]:
    """Run a server, and call it over a WebSocket and over WebRTC."""
    async with (
        running(command, **variables) as program,
        open_call(program.url) as wire,
        place_call(program.url) as client,
    ):
        await check_echo(client)
        yield program, wire, client


@every_server
async def test_sigterm_lets_calls_continue_and_refuses_new_ones(mode: str) -> None:
    async with open_calls(COMMANDS[mode]) as (program, wire, client):
        program.process.send_signal(signal.SIGTERM)
        await check_refusals(program.url)
        await check_wire(wire)
        await check_echo(client)
        await wire.aclose()
        await check_echo(client)
        assert program.process.returncode is None
        await hang_up(client)
        print(f"{mode}: ended {await program.wait():.2f} s after the last call")
    check_quiet(program, 0, -signal.SIGTERM)


@every_server
async def test_sigint_ends_calls_at_once(mode: str) -> None:
    async with open_calls(COMMANDS[mode]) as (program, wire, client):
        print(f"{mode}: {await program.interrupt():.2f} s")
        await wait_until(client.closed.is_set, seconds=1)
        await wire.receive_end()
    check_quiet(program, 0, -signal.SIGINT)


@every_server
@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
async def test_second_signal_ends_calls_at_once(mode: str, second: signal.Signals) -> None:
    async with open_calls(COMMANDS[mode]) as (program, wire, client):
        program.process.send_signal(signal.SIGTERM)
        await wait_draining(program.url)
        await check_wire(wire)
        print(f"{mode}: {await program.interrupt(second):.2f} s")
        await wait_until(client.closed.is_set, seconds=1)
        await wire.receive_end()
    check_quiet(program, 0, -signal.SIGTERM, -signal.SIGINT)


@every_server
async def test_sigterm_ends_idle_server_at_once(mode: str) -> None:
    async with running(COMMANDS[mode]) as program:
        async with open_call(program.url):
            pass
        print(f"{mode}: {await program.interrupt(signal.SIGTERM):.2f} s")
    check_quiet(program, 0, -signal.SIGTERM)


@pytest.mark.parametrize("mode", ["serve-trio", "uvicorn", "hypercorn-asyncio"])
async def test_timeout_ends_calls_after_a_warning(mode: str) -> None:
    async with open_calls(COMMANDS[mode], DRAIN_TIMEOUT="1") as (program, wire, client):
        program.process.send_signal(signal.SIGTERM)
        seen: list[Any] = []
        while not seen or seen[-1]["type"] != "end_stream":
            seen.append(await wire.receive_json())
        warnings = [message for message in seen if message["type"] == "warning"]
        assert warnings[0]["data"] == "The server is restarting. This call ends in 0.5 s."
        assert seen[-1]["data"] == "the server is restarting"
        warning = await receive_json(client, "warning")
        assert warning["reason"] == "draining"
        assert (await receive_json(client, "end_stream"))["reason"] == "cancelled"
        await program.wait()
    check_quiet(program, 0, -signal.SIGTERM)


async def test_streams_of_one_application_drain_together() -> None:
    async with running(COMMANDS["uvicorn"]) as program, place_call(program.url) as client:
        program.process.send_signal(signal.SIGTERM)
        assert (await wait_draining(program.url, "/other")).status_code == 503
        await check_echo(client)
        await hang_up(client)
        await program.wait()
    check_quiet(program, -signal.SIGTERM)


@pytest.mark.parametrize("worker", ["trio", "asyncio"])
async def test_command_of_hypercorn_lets_calls_continue(worker: str) -> None:
    """It answers no request meanwhile, and closes WebSockets after the graceful timeout."""
    command = module(*HYPERCORN, "--worker-class", worker, "--graceful-timeout", "20")
    async with open_calls(command) as (program, wire, client):
        port = int(program.url.rpartition(":")[2])
        async with await anyio.connect_tcp("127.0.0.1", port) as idle:
            program.process.send_signal(signal.SIGTERM)
            with anyio.fail_after(5), pytest.raises(anyio.EndOfStream):
                await idle.receive()
        await check_wire(wire)
        await check_echo(client)
        await wire.aclose()
        await check_echo(client)
        await hang_up(client)
        print(f"{worker}: ended {await program.wait():.2f} s after the last call")
    check_quiet(program, 0)


async def test_server_without_handlers_of_signals_drains() -> None:
    """Hypercorn on trio, in one process: by default SIGTERM kills it."""
    command = module(*HYPERCORN, "--worker-class", "trio", "--workers", "0")
    async with (
        running(command) as program,
        place_call(program.url) as client,
    ):
        await check_echo(client)
        program.process.send_signal(signal.SIGTERM)
        await check_refusals(program.url)
        await check_echo(client)
        await hang_up(client)
        await program.wait()
    check_quiet(program, -signal.SIGTERM)


async def test_serve_with_a_drain_timeout() -> None:
    command = [*COMMANDS["serve-trio"], "--drain-timeout", "0.2"]
    async with (
        running(command) as program,
        place_call(program.url) as client,
    ):
        await check_echo(client)
        await program.interrupt(signal.SIGTERM)
        await wait_until(client.closed.is_set, seconds=1)
    check_quiet(program, 0)
