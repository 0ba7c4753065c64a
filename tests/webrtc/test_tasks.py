"""The places where aiortc and aioice start tasks, and which connection a task belongs to."""

from __future__ import annotations

import ast
import asyncio
import gc
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import aioice.turn
import aiortc
import pytest

from fastrtc_anyio._peers.portal import Portal, open_portal
from fastrtc_anyio._peers.webrtc.task_internals import HANDLED, abort_sockets
from fastrtc_anyio._peers.webrtc.tasks import ConnectionTasks

STARTS = {
    "call_at",
    "call_later",
    "call_soon",
    "call_soon_threadsafe",
    "create_task",
    "ensure_future",
    "gather",
    "run_coroutine_threadsafe",
    "run_in_executor",
    "shield",
    "Thread",
    "wait_for",
}
"""Functions that start a task, a thread or a callback."""
PLACES = {
    ("ice", "Connection.check_start_task", "create_task"): 1,
    ("ice", "Connection.connect", "create_task"): 1,  # query_consent is replaced
    ("ice", "Connection.gather_candidates", "gather"): 1,
    ("ice", "Connection.get_component_candidates", "create_task"): 2,  # their errors are read
    ("ice", "Connection.get_event", "shield"): 1,
    ("ice", "server_reflexive_candidate", "run_in_executor"): 1,
    ("mdns", "MDnsProtocol.resolve", "wait_for"): 1,
    ("rtcdtlstransport", "RTCDtlsTransport._recv_next", "wait_for"): 1,
    ("rtcdtlstransport", "RTCDtlsTransport.start", "ensure_future"): 1,
    ("rtcicetransport", "RTCIceTransport.start", "ensure_future"): 1,
    ("rtcpeerconnection", "RTCPeerConnection.__gather", "gather"): 1,
    ("rtcpeerconnection", "RTCPeerConnection.__updateConnectionState", "ensure_future"): 1,
    ("rtcpeerconnection", "RTCPeerConnection.getStats", "gather"): 1,
    ("rtcpeerconnection", "RTCPeerConnection.setLocalDescription", "ensure_future"): 1,
    ("rtcpeerconnection", "RTCPeerConnection.setRemoteDescription", "ensure_future"): 1,
    ("rtcpeerconnection", "RTCPeerConnection.setRemoteDescription", "gather"): 1,
    ("rtcpeerconnection", "add_remote_candidates", "gather"): 1,  # empty: none are described
    ("rtcrtpreceiver", "RTCRtpReceiver.receive", "Thread"): 1,
    ("rtcrtpreceiver", "RTCRtpReceiver.receive", "ensure_future"): 1,
    ("rtcrtpreceiver", "decoder_worker", "run_coroutine_threadsafe"): 2,  # Queue.put, unbounded
    ("rtcrtpsender", "RTCRtpSender._next_encoded_frame", "run_in_executor"): 1,
    ("rtcrtpsender", "RTCRtpSender.send", "ensure_future"): 2,
    ("rtcrtpsender", "RTCRtpSender.stop", "gather"): 2,
    ("rtcsctptransport", "RTCSctpTransport._data_channel_close", "ensure_future"): 1,
    ("rtcsctptransport", "RTCSctpTransport._data_channel_open", "ensure_future"): 1,
    ("rtcsctptransport", "RTCSctpTransport._data_channel_send", "ensure_future"): 1,
    ("rtcsctptransport", "RTCSctpTransport._reconfig_timer_expired", "call_later"): 1,
    ("rtcsctptransport", "RTCSctpTransport._reconfig_timer_expired", "ensure_future"): 1,
    ("rtcsctptransport", "RTCSctpTransport._reconfig_timer_start", "call_later"): 1,
    ("rtcsctptransport", "RTCSctpTransport._set_state", "ensure_future"): 1,
    ("rtcsctptransport", "RTCSctpTransport._t1_expired", "call_later"): 1,
    ("rtcsctptransport", "RTCSctpTransport._t1_expired", "ensure_future"): 1,
    ("rtcsctptransport", "RTCSctpTransport._t1_start", "call_later"): 1,
    ("rtcsctptransport", "RTCSctpTransport._t2_expired", "call_later"): 1,
    ("rtcsctptransport", "RTCSctpTransport._t2_expired", "ensure_future"): 1,
    ("rtcsctptransport", "RTCSctpTransport._t2_start", "call_later"): 1,
    ("rtcsctptransport", "RTCSctpTransport._t3_expired", "ensure_future"): 1,
    ("rtcsctptransport", "RTCSctpTransport._t3_restart", "call_later"): 1,
    ("rtcsctptransport", "RTCSctpTransport._t3_start", "call_later"): 1,
    ("stun", "Transaction.__retry", "call_later"): 1,
    ("turn", "TurnClientMixin.connect", "create_task"): 1,
    ("turn", "TurnTransport.close", "create_task"): 1,
    ("turn", "TurnTransport.sendto", "create_task"): 1,
}
"""The places by module, function and what they call. A new place needs a decision: its errors end
the connection, unless its coroutine is in HANDLED."""


def find_places(package: ModuleType) -> Iterator[tuple[str, str, str]]:
    """Yield the places of a package, except those of aiortc.contrib, which is not used."""
    for path in sorted(Path(str(package.__file__)).parent.glob("*.py")):
        yield from _visit(ast.parse(path.read_text()), path.stem, ())


def _visit(node: ast.AST, module: str, scope: tuple[str, ...]) -> Iterator[tuple[str, str, str]]:
    for child in ast.iter_child_nodes(node):
        inner = scope
        match child:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                inner = (*scope, name)
            case ast.ClassDef(name=name):
                inner = (*scope, name)
            case ast.Call(func=ast.Attribute(value=owner, attr=called)) if called in STARTS:
                if not (called == "gather" and "iceGatherer" in ast.unparse(owner)):
                    yield module, ".".join(scope), called
        yield from _visit(child, module, inner)


def test_each_place_that_starts_a_task_is_known() -> None:
    found = Counter(place for package in (aiortc, aioice) for place in find_places(package))
    assert dict(found) == PLACES


def test_named_coroutines_exist() -> None:
    sources = "\n".join(
        path.read_text()
        for package in (aiortc, aioice, asyncio)
        for path in Path(str(package.__file__)).parent.glob("*.py")
    )
    for name in HANDLED:
        if "<locals>" not in name:
            assert f"async def {name.rpartition('.')[2]}(" in sources, name


async def fail(error: BaseException) -> None:
    await asyncio.sleep(0)
    raise error


async def start(portal: Portal, *coroutines: BaseException) -> list[tuple[str, BaseException]]:
    """Fail in tasks that other tasks of a connection start; return what it learns."""
    failures: list[tuple[str, BaseException]] = []

    async def outer() -> None:
        inner = [asyncio.ensure_future(fail(error)) for error in coroutines]
        await asyncio.wait(inner)

    async def run() -> None:
        tasks = ConnectionTasks(lambda *failure: failures.append(failure))
        await asyncio.wait([tasks.start(outer())])
        gc.collect()

    await portal.call(run)
    return failures


async def test_failures_of_inner_tasks_are_reported_to_their_connection() -> None:
    error = ValueError("injected")
    async with open_portal() as portal:
        assert await start(portal, error) == [("fail", error)]


async def test_end_of_the_transport_is_not_a_failure() -> None:
    async with open_portal() as portal:
        assert await start(portal, ConnectionError("not connected")) == []


async def test_failing_callback_is_reported_to_its_connection(
    caplog: pytest.LogCaptureFixture,
) -> None:
    failures: list[BaseException] = []

    async def run() -> None:
        loop = asyncio.get_running_loop()
        tasks = ConnectionTasks(lambda _name, error: failures.append(error))
        tasks.run(loop.call_soon, int, "x")
        tasks.run(loop.call_later, 0.001, int, "y")
        await asyncio.sleep(0.01)

    async with open_portal() as portal:
        await portal.call(run)
    assert [type(error) for error in failures] == [ValueError, ValueError]
    assert caplog.records == []


async def test_failures_elsewhere_on_the_loop_are_logged_by_asyncio(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def run() -> None:
        ConnectionTasks(lambda *_: None).run(int)
        asyncio.get_running_loop().call_soon(int, "x")
        await asyncio.sleep(0.001)

    async with open_portal() as portal:
        await portal.call(run)
    assert [record.name for record in caplog.records] == ["asyncio"]


async def test_cancel_ends_all_tasks() -> None:
    async def run() -> bool:
        tasks = ConnectionTasks(lambda *_: None)
        task = tasks.start(asyncio.sleep(1000))
        await tasks.cancel()
        return task.cancelled()

    async with open_portal() as portal:
        assert await portal.call(run)


def test_abort_closes_sockets_and_relays() -> None:
    aborted: list[str] = []
    socket, relay = (
        SimpleNamespace(abort=partial(aborted.append, name)) for name in ("socket", "relay")
    )
    client: Any = SimpleNamespace(transport=relay)
    protocols: Any = [
        SimpleNamespace(transport=socket),
        SimpleNamespace(transport=aioice.turn.TurnTransport(client)),
    ]
    abort_sockets(protocols)
    assert aborted == ["socket", "relay"]
