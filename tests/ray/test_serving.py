"""A deployment of Ray Serve: real replicas and calls."""

from __future__ import annotations

import os
import secrets
import signal
from collections.abc import AsyncGenerator, Generator, Set
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import anyio
import pytest
import ray
import yaml
from anyio import create_task_group
from ray.exceptions import RayError

from fastrtc_anyio import SessionStore
from fastrtc_anyio._signaling.session_ids import make_session_id
from fastrtc_anyio.cluster import Location, SessionDirectory
from fastrtc_anyio.cluster.ray import RayDirectory
from tests.kit.calls import place_call, receive_json
from tests.kit.documentation import find_block
from tests.kit.measure import check_echo
from tests.kit.waiting import wait_until
from tests.kit.websockets import open_client, wait_for_echo
from tests.workers.follow_ups import (
    Call,
    check_outputs,
    check_taken,
    check_whip,
    follow_up,
    open_calls,
)
from tests.workers.processes import ACCESS

from .serving import ROOT, SECONDS, Serving, serve


# The replicas have their own backend; one backend is enough for the client.
@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    return "asyncio", {}


pytestmark = [
    # Of Ray's own modules.
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning"),
]


@pytest.fixture(scope="module")
def serving() -> Generator[Serving, None, None]:
    with serve() as running:
        yield running


def replica_of(call: Call) -> str:
    """The id of the replica that has a call."""
    return call.owner.partition("-")[0]


async def start(
    serving: Serving, count: int, args: dict[str, Any], *, anew: bool = False, **options: Any
) -> dict[str, int]:
    """Wait for so many replicas. They are a new version if ``anew``, or if anything changes."""
    before = await serving.replicas()
    if anew or serving.deployed != (args, options):
        serving.deployed = args, options
        serving.version = secrets.token_hex(4)
    else:
        before = {}
    if "autoscaling_config" not in options:
        options = options | {"num_replicas": count}
    await serving.deploy(args, **options)
    return await serving.wait_running(count, without=before)


@asynccontextmanager
async def open_calls_on(
    serving: Serving, replicas: Set[str], count: int
) -> AsyncGenerator[list[Call], None]:
    """Open so many calls, and more if a replica has none: Serve chooses at random."""
    async with AsyncExitStack() as stack:
        calls: list[Call] = []
        while len(calls) < count or not replicas <= {replica_of(call) for call in calls}:
            assert len(calls) < 20, "a replica gets no calls"
            calls += await stack.enter_async_context(open_calls(serving, 1))
        yield calls


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
async def test_every_request_reaches_its_session(serving: Serving, backend: str) -> None:
    replicas = await start(serving, 2, {"backend": backend, "drain_timeout": 60})
    async with open_calls_on(serving, replicas.keys(), 6) as calls, serving.client() as http:
        wrong = [
            found
            for number in range(200)
            if (found := await follow_up(http, calls[number % len(calls)], number // len(calls)))
        ]
        assert not wrong
        for level, call in enumerate(calls[:4]):
            await check_outputs(http, call, 100 + level)
            await check_echo(call.client)
        await check_whip(http)
        await check_taken(http, calls[0])
        async with open_client(serving.url, headers=ACCESS) as websocket:
            await wait_for_echo(websocket)


async def test_calls_of_a_replica_that_is_removed_go_on(serving: Serving) -> None:
    args = {"backend": "trio", "drain_timeout": 60}
    replicas = await start(serving, 2, args)
    async with open_calls_on(serving, replicas.keys(), 6) as calls, serving.client() as http:
        await serving.deploy(args, num_replicas=1)
        left = await serving.wait_running(1)
        (removed,) = replicas.keys() - left
        leaving = [call for call in calls if replica_of(call) == removed]
        await wait_placed(serving, left.keys())
        async with open_calls(serving, 2) as later:
            assert {replica_of(call) for call in later} == set(left)
            for number, call in enumerate((calls + later) * 4):
                assert await follow_up(http, call, number // len(calls + later)) == ""
            for call in calls:
                await check_echo(call.client)
            assert (await serving.replicas("STOPPING")).keys() == {removed}
            await hang_up_all(leaving)
            print(f"removed after {await serving.wait_gone(replicas[removed]):.2f} s")
            for number, call in enumerate(later * 4):
                assert await follow_up(http, call, number // 2) == ""
        assert not [call for call in calls if call.client.closed.is_set() and call not in leaving]
        assert {call.lost for call in calls} == {0}


async def wait_placed(serving: Serving, replicas: Set[str]) -> None:
    """Wait until new calls reach these replicas only: Serve's proxies learn of a change later."""
    placed = 0
    with anyio.fail_after(SECONDS):
        while placed < 3:
            async with open_calls(serving, 1) as (call,):
                placed = placed + 1 if replica_of(call) in replicas else 0


async def hang_up_all(calls: list[Call]) -> None:
    async with create_task_group() as tasks:
        for call in calls:
            tasks.start_soon(call.hang_up)


async def test_a_killed_replica_loses_only_its_own_calls(serving: Serving) -> None:
    replicas = await start(serving, 2, {"backend": "trio", "drain_timeout": 60})
    async with open_calls_on(serving, replicas.keys(), 6) as calls, serving.client() as http:
        victim = replica_of(calls[0])
        living = [call for call in calls if replica_of(call) != victim]
        os.kill(replicas[victim], signal.SIGKILL)
        async with open_calls(serving, 4) as later:
            assert len(later) == 4
            counted = {call.id: call.frames for call in living}
            await wait_until(lambda: all(c.frames > counted[c.id] + 25 for c in living))
            assert [call.lost for call in living] == [0] * len(living)
            for number, call in enumerate((living + later) * 4):
                assert await follow_up(http, call, number // len(living + later)) == ""
            for call in calls:
                if call not in living:
                    body = {"webrtc_id": call.id, "level": 1}
                    assert (await http.post("/input_hook", json=body)).status_code == 404
            await serving.wait_running(2, without={victim})


async def test_directory_that_has_died_is_started_again(serving: Serving) -> None:
    replicas = await start(serving, 2, {"backend": "trio", "drain_timeout": 60})
    async with open_calls_on(serving, replicas.keys(), 4) as calls, serving.client() as http:
        directory = RayDirectory("calls")
        secret = await directory.read_secret()
        owners = {entry.owner for entry in await directory.list_processes()}
        assert owners >= {call.owner for call in calls}
        actor = ray.get_actor("directory-1-calls", namespace="fastrtc-anyio")
        ray.kill(actor, no_restart=False)
        with anyio.fail_after(30):
            while not await is_complete(directory, calls):
                await anyio.sleep(0.1)
        assert await directory.read_secret() == secret
        for number, call in enumerate(calls * 8):
            assert await follow_up(http, call, number // len(calls)) == ""
        for call in calls:
            await check_echo(call.client)


async def is_complete(directory: RayDirectory, calls: list[Call]) -> bool:
    """Whether the directory knows all calls."""
    try:
        found = [await directory.find(call.id) for call in calls]
    except RayError:
        return False
    return all(found)


async def test_a_new_version_starts_beside_live_calls(serving: Serving) -> None:
    args = {"backend": "asyncio", "drain_timeout": 60}
    before = await start(serving, 2, args)
    async with open_calls_on(serving, before.keys(), 4) as calls, serving.client() as http:
        wrong: list[str] = []
        async with create_task_group() as tasks:
            tasks.start_soon(start_and_stop, serving, tasks.cancel_scope, args)
            number = 0
            while True:
                wrong += [await follow_up(http, calls[number % len(calls)], number // len(calls))]
                number += 1
        print(f"{number} requests about live calls during the change")
        assert number > 20
        assert not [one for one in wrong if one]
        await wait_placed(serving, (await serving.replicas()).keys())
        async with open_calls(serving, 2) as later:
            assert not {replica_of(call) for call in later} & set(before)
            for call in calls:
                await check_echo(call.client)
            assert not [call for call in calls if call.client.closed.is_set()]
            await hang_up_all(calls)
            for pid in before.values():
                print(f"old version gone after {await serving.wait_gone(pid):.2f} s")
            for number, call in enumerate(later * 4):
                assert await follow_up(http, call, number // 2) == ""


async def start_and_stop(serving: Serving, scope: anyio.CancelScope, args: Any) -> None:
    await start(serving, 2, args, anew=True)
    scope.cancel()


async def test_replicas_are_as_many_as_the_sessions_need(serving: Serving) -> None:
    config = yaml.safe_load(find_block("docs/guides/ray_serve.md", "SessionsPolicy").text)
    (deployment,) = config["applications"][0]["deployments"]
    scaling = deployment["autoscaling_config"] | {
        "upscale_delay_s": 0.5,
        "downscale_delay_s": 1,
        "metrics_interval_s": 0.5,
        "look_back_period_s": 1,
        "max_replicas": 2,
    }
    scaling["policy"]["policy_kwargs"]["per_replica"] = 2
    args = {"backend": "asyncio", "drain_timeout": 60}
    (first,) = await start(serving, 1, args, autoscaling_config=scaling)
    async with open_calls(serving, 1) as (kept,):
        async with open_calls(serving, 2):
            running = await serving.wait_running(2)
            assert first in running
        await serving.wait_running(1)
        assert not kept.client.closed.is_set()
        await check_echo(kept.client)


async def test_program_of_the_guide(serving: Serving) -> None:
    program = find_block("docs/guides/ray_serve.md", "drain_timeout=3600").text
    config = yaml.safe_load(find_block("docs/guides/ray_serve.md", "num_replicas: 2").text)
    await anyio.Path(serving.folder / "calls.py").write_text(program)
    await check_application(serving, config, 2)


async def test_changed_program_of_the_guide_is_a_new_version(serving: Serving) -> None:
    path = anyio.Path(serving.folder / "calls.py")
    program = find_block("docs/guides/ray_serve.md", "drain_timeout=3600").text
    config = yaml.safe_load(find_block("docs/guides/ray_serve.md", "VERSION").text)
    config["applications"][0]["deployments"] = [{"name": "calls"}]
    await path.write_text(program)
    await check_application(serving, config, 1)
    before = await serving.replicas()
    await path.write_text(program.replace("concurrency_limit=20", "concurrency_limit=1"))
    config["applications"][0]["runtime_env"]["env_vars"]["VERSION"] = "3"
    await serving.deploy_config(config)
    await wait_replaced(serving, before, 1)
    async with place_call(serving.url) as client, serving.client() as http:
        await check_echo(client)
        assert (await http.get("/health/ready")).json()["reason"] == "full"


async def test_application_of_the_guide(serving: Serving) -> None:
    program = find_block("docs/guides/ray_serve.md", "FastAPI()").text
    await anyio.Path(serving.folder / "application.py").write_text(program)
    application = {"import_path": "application:app", "deployments": [{"name": "calls"}]}
    config = {"applications": [{"name": "calls", "route_prefix": "/", **application}]}
    await check_application(serving, config, 1, "/voice")


async def test_example_takes_calls(serving: Serving) -> None:
    text = await anyio.Path(ROOT, "examples/ray_calls.yaml").read_text()
    await check_application(serving, yaml.safe_load(text), 1)


async def check_application(
    serving: Serving, config: dict[str, Any], count: int, path: str = ""
) -> None:
    """Deploy an application, and call each of its replicas."""
    before, serving.deployed = await serving.replicas(), None
    await serving.deploy_config(config)
    await wait_replaced(serving, before, count)
    async with AsyncExitStack() as stack:
        for _ in range(count):
            client = await stack.enter_async_context(place_call(serving.url + path))
            await check_echo(client)


async def wait_replaced(serving: Serving, before: dict[str, int], count: int) -> None:
    """Wait until so many replicas run, and former ones, which have no calls, have ended."""
    await serving.wait_running(count, without=before)
    for pid in before.values():
        await serving.wait_gone(pid)


async def test_calls_are_told_before_the_drain_timeout(serving: Serving) -> None:
    before = await start(serving, 1, {"backend": "trio", "drain_timeout": 4})
    async with open_calls(serving, 1) as (call,), serving.client() as http:
        async with http.stream("GET", f"/outputs?webrtc_id={call.id}") as outputs:
            assert outputs.status_code == 200  # Serve waits for it
            serving.version = secrets.token_hex(4)
            await serving.deploy({"backend": "trio", "drain_timeout": 4}, num_replicas=1)
            warning = await receive_json(call.client, "warning")
            assert warning["reason"] == "draining"
            end = await receive_json(call.client, "end_stream")
            assert (end["data"], end["reason"]) == ("the server is restarting", "cancelled")
            async for _ in outputs.aiter_lines():
                pass  # until the server ends it
        (pid,) = before.values()
        await serving.wait_gone(pid)


@pytest.mark.parametrize("anyio_backend", [("asyncio", {}), ("trio", {})])
async def test_directory_in_an_actor(serving: Serving, anyio_backend: Any) -> None:
    directory = RayDirectory(f"a directory for {anyio_backend[0]}")
    assert isinstance(directory, SessionDirectory)
    assert isinstance(directory, SessionStore)
    assert len(await directory.read_secret()) > 30
    assert not await directory.join("one", "http://127.0.0.1:1")
    assert await directory.join("one", "http://127.0.0.1:1")
    session = make_session_id("one", secrets.token_urlsafe(16))
    assert await directory.claim("chosen", session) == session
    assert await directory.find("chosen") == Location("one", "http://127.0.0.1:1")
    with anyio.move_on_after(0.2) as waited:
        await directory.find("unknown", 60)
    assert waited.cancelled_caught
    await directory.release("chosen", session)
    assert await directory.find("chosen", 0.01) is None
    with pytest.raises(ValueError, match="must name its process"):
        await directory.claim("chosen", "nobody")
    assert await directory.save("key", b"value", 60)
    assert await directory.take("key") == b"value"
    await directory.delete("key")
    await directory.leave("one")
    assert await directory.list_processes() == []
