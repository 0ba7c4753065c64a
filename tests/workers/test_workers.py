"""``serve --workers``: real processes and calls."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
from collections import Counter
from pathlib import Path

import anyio
import pytest
from anyio import create_task_group

from tests.kit.aiortc_client import open_client
from tests.kit.calls import make_offer, place_call
from tests.kit.documentation import find_block
from tests.kit.measure import check_echo
from tests.kit.served import run_program, run_server
from tests.kit.waiting import wait_until

from .follow_ups import check_outputs, check_taken, check_whip, follow_up, open_calls
from .processes import PROGRAM, ROOT, run

# The workers have their own backend; one backend is enough for the client.
pytestmark = pytest.mark.parametrize("anyio_backend", [("asyncio", {})])
each_backend = pytest.mark.parametrize("backend", ["trio", "asyncio"])


def _running(pids: set[int]) -> list[int]:
    return [pid for pid in pids if Path(f"/proc/{pid}").exists()]


@each_backend
async def test_every_request_reaches_its_session(backend: str) -> None:
    async with (
        run(backend) as cluster,
        open_calls(cluster, 6) as calls,
        cluster.client() as http,
    ):
        assert len({call.owner for call in calls}) == 2
        wrong = [
            found
            for number in range(200)
            if (found := await follow_up(http, calls[number % 6], number // 6))
        ]
        assert not wrong
        for level, call in enumerate(calls):
            await check_outputs(http, call, 100 + level)
            await check_echo(call.client)
        assert await cluster.program.interrupt() < 5
        assert cluster.program.process.returncode in (0, 130)
        assert "Traceback" not in cluster.errors, cluster.errors


@each_backend
async def test_whip_resources_and_taken_ids(backend: str) -> None:
    async with run(backend) as cluster, cluster.client() as http:
        await check_whip(http)
        async with open_calls(cluster, 1) as (call,):
            await check_taken(http, call)


@each_backend
async def test_a_killed_worker_loses_only_its_own_calls(backend: str) -> None:
    async with (
        run(backend) as cluster,
        open_calls(cluster, 6) as calls,
        cluster.client() as http,
    ):
        owners = {call.owner for call in calls}
        assert len(owners) == 2
        before = cluster.pids
        victim = min(before)
        os.kill(victim, signal.SIGKILL)
        await wait_until(lambda: len(cluster.pids - before) == 1, "another worker")
        async with open_calls(cluster, 4) as later:  # the new worker may still start
            assert len(later) == 4
        lost = re.findall(r"worker (\S+) has ended with status -9", cluster.errors)
        assert len(lost) == 1
        living = [call for call in calls if call.owner != lost[0]]
        assert living
        counted = {call.id: call.frames for call in living}
        await wait_until(lambda: all(c.frames > counted[c.id] + 25 for c in living))
        assert [call.lost for call in living] == [0] * len(living)
        for number, call in enumerate(living * 8):
            assert await follow_up(http, call, number // len(living)) == ""
        for call in calls:
            if call not in living:
                body = {"webrtc_id": call.id, "level": 1}
                assert (await http.post("/input_hook", json=body)).status_code == 404


@each_backend
async def test_command_calls_another_worker_when_its_own_has_died(
    backend: str, tmp_path: Path
) -> None:
    """And the handler continues what the former session has saved."""
    pid, resumed = tmp_path / "pid", tmp_path / "resumed"
    variables = {"IS_PUBLIC": "1", "PID_FILE": str(pid), "RESUMED_FILE": str(resumed)}
    async with run(backend, 2, **variables) as cluster:
        command = [sys.executable, "-m", "fastrtc_anyio", "call", cluster.url]
        command += ["--listen", "1"]
        async with run_program(command, {"PYTHONPATH": ROOT}) as caller:
            await wait_until(lambda: "connected in" in caller.printed["stderr"], "a call")
            await wait_until(resumed.exists, "its handler")
            first, former = int(pid.read_text()), json.loads(resumed.read_text())
            began = anyio.current_time()
            os.kill(first, signal.SIGKILL)
            await wait_until(lambda: "the connection is lost" in caller.printed["stderr"])
            print(f"noticed after {anyio.current_time() - began:.1f} s")
            await wait_until(lambda: caller.printed["stderr"].count("connected in") == 2)
            print(f"connected again after {anyio.current_time() - began:.1f} s")
            with anyio.fail_after(30):
                assert await caller.process.wait() == 0
        assert "connection lost      1 time before" in caller.printed["stdout"]
        assert int(pid.read_text()) != first
        found = json.loads(resumed.read_text())
        assert found["from"] == {"id": former["id"], "value": {"pid": first}}


@each_backend
async def test_workers_are_replaced_without_ending_a_call(backend: str) -> None:
    async with (
        run(backend, DRAIN_TIMEOUT="0") as cluster,
        open_calls(cluster, 4) as calls,
        cluster.client() as http,
    ):
        before = cluster.pids
        cluster.program.process.send_signal(signal.SIGHUP)
        wrong: list[str] = []
        number = 0
        with anyio.fail_after(60):
            while "the old ones drain" not in cluster.errors or number < 100:
                wrong += [await follow_up(http, calls[number % 4], number // 4)]
                number += 1
        assert not [one for one in wrong if one]
        async with open_calls(cluster, 4) as later:
            assert not {call.owner for call in calls} & {call.owner for call in later}
            assert all(not call.client.closed.is_set() for call in calls)
            for call in calls:
                await check_echo(call.client)
            assert [call.lost for call in calls] == [0] * 4
            async with create_task_group() as tasks:
                for call in calls:
                    tasks.start_soon(call.hang_up)
            await wait_until(lambda: not cluster.pids & before, "the old workers", seconds=5)
            for number, call in enumerate(later * 4):
                assert await follow_up(http, call, number // 4) == ""


@each_backend
async def test_sigterm_drains_all_workers(backend: str) -> None:
    async with (
        run(backend) as cluster,
        open_calls(cluster, 4) as calls,
        cluster.client() as http,
        open_client() as another,
    ):
        offer = {"type": "offer", "sdp": await make_offer(another)}
        cluster.program.process.send_signal(signal.SIGTERM)
        with anyio.fail_after(10):
            while (reply := await http.post("/webrtc/offer", json=offer)).status_code != 503:
                pass
        assert reply.json()["meta"]["reason"] == "draining"
        for number, call in enumerate(calls * 5):
            assert await follow_up(http, call, number // 4) == ""
        for call in calls:
            await check_echo(call.client)
        for call in calls:
            await call.hang_up()
        assert await cluster.program.wait() < 5
        assert cluster.program.process.returncode == 0
        assert "Traceback" not in cluster.errors, cluster.errors


async def test_a_second_signal_ends_all_workers() -> None:
    async with run() as cluster, open_calls(cluster, 2) as calls:
        pids = cluster.pids
        cluster.program.process.send_signal(signal.SIGTERM)
        await anyio.sleep(0.3)
        assert await cluster.program.interrupt(signal.SIGTERM) < 5
        await wait_until(lambda: all(call.client.closed.is_set() for call in calls))
        assert not _running(pids)


@each_backend
async def test_no_worker_outlives_its_parent(backend: str) -> None:
    async with run(backend) as cluster, open_calls(cluster, 1):
        pids = cluster.pids
        cluster.program.process.send_signal(signal.SIGKILL)
        await wait_until(lambda: not _running(pids), "the end of the workers")


async def test_calls_that_one_worker_refuses_are_taken_by_another() -> None:
    async with run(CONCURRENCY_LIMIT="2") as cluster, open_calls(cluster, 4) as calls:
        assert set(Counter(call.owner for call in calls).values()) == {2}


@pytest.mark.parametrize(
    ("target", "error"),
    [
        ("missing.py:stream", "error: file missing.py not found"),
        (f"{PROGRAM}:other", "has no other; its streams: stream"),
    ],
)
async def test_a_stream_that_cannot_be_loaded(target: str, error: str) -> None:
    command = [sys.executable, "-m", "fastrtc_anyio", "serve", target, "--port", "0"]
    found = await anyio.run_process(
        [*command, "--workers", "3"], check=False, env={**os.environ, "PYTHONPATH": ROOT}
    )
    assert found.returncode == 1
    printed = found.stderr.decode()
    assert printed.count(error) == 1
    assert "Traceback" not in printed


async def test_program_of_the_guide(tmp_path: Path) -> None:
    program = find_block("docs/guides/several_processes.md", "concurrency_limit=20").text
    command = find_block("docs/guides/several_processes.md", "--workers 4\n").text.split()
    await anyio.Path(tmp_path / "calls.py").write_text(program)
    assert command[0] == "python"
    command = [sys.executable, *command[1:], "--port", "0"]
    command = [str(tmp_path / word) if word.startswith("calls.py") else word for word in command]
    async with run_server(command, {"PYTHONPATH": ROOT}) as served:
        async with place_call(served.url) as client:
            await check_echo(client)
        assert "4 workers serve" in served.printed["stdout"]


async def test_processes_of_the_guide(tmp_path: Path) -> None:
    program = find_block("docs/guides/several_processes.md", "Switchboard(app").text
    await anyio.Path(tmp_path / "processes.py").write_text(program)
    command = [sys.executable, str(tmp_path / "processes.py")]
    found = await anyio.run_process(command, env={**os.environ, "PYTHONPATH": ROOT})
    lines = found.stdout.decode().splitlines()
    assert len(lines) == 2
    assert all("{'status': 'ready'}" in line for line in lines)
