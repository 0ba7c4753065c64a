"""``serve --workers``: endpoints for operators answer for all workers."""

from __future__ import annotations

import os
import shlex
import signal
import sys
from collections import Counter
from configparser import RawConfigParser
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.kit.calls import place_call
from tests.kit.documentation import find_block
from tests.kit.measure import check_echo
from tests.kit.served import run_server
from tests.kit.waiting import wait_until

from .follow_ups import open_calls
from .processes import ACCESS, ROOT, run
from .program import TOKEN
from .test_workers import each_backend

pytestmark = pytest.mark.parametrize("anyio_backend", [("asyncio", {})])


async def scrape(http: httpx.AsyncClient) -> dict[tuple[str, str], float]:
    """The samples without further labels, by their names and processes."""
    reply = await http.get("/metrics")
    assert reply.status_code == 200, reply.text
    return {
        (sample.name, sample.labels["process"]): sample.value
        for family in text_string_to_metric_families(reply.text)
        for sample in family.samples
        if len(sample.labels) == 1
    }


def total(samples: dict[tuple[str, str], float], name: str) -> float:
    return sum(value for (one, _), value in samples.items() if one == name)


def processes(samples: dict[tuple[str, str], float]) -> dict[str, float]:
    return {name: value for (one, name), value in samples.items() if one == "fastrtc_process_up"}


@each_backend
async def test_metrics_of_all_workers(backend: str) -> None:
    async with run(backend) as cluster, cluster.client() as http:
        async with httpx.AsyncClient(base_url=cluster.url) as stranger:
            for _ in range(4):
                assert (await stranger.get("/metrics")).status_code == 401
        async with open_calls(cluster, 5) as calls:
            owners = Counter(call.owner for call in calls)
            for _ in range(6):  # whichever worker answers
                samples = await scrape(http)
                found = {p: n for (name, p), n in samples.items() if name == ADMITTED and n}
                assert found == owners
                assert len(processes(samples)) == 2
        frozen = min(cluster.pids)
        os.kill(frozen, signal.SIGSTOP)
        try:
            samples = await scrape(http)
            assert sorted(processes(samples).values()) == [0, 1]
            assert len({process for _, process in samples}) == 2
        finally:
            os.kill(frozen, signal.SIGCONT)
        before = total(await scrape(http), ADMITTED)
        assert before == 5
        cluster.program.process.send_signal(signal.SIGHUP)
        await wait_until(lambda: "the old ones drain" in cluster.errors, "the new workers")
        await wait_until(lambda: len(cluster.pids) == 2, "the end of the old workers")
        assert not set(processes(await scrape(http))) & set(processes(samples))


ADMITTED = "fastrtc_sessions_admitted_total"


async def test_the_port_is_ready_if_any_worker_is() -> None:
    async with run(CONCURRENCY_LIMIT="1") as cluster, cluster.client() as http:

        async def ready() -> list[Any]:
            return [(await http.get("/health/ready")).status_code for _ in range(8)]

        assert set(await ready()) == {200}
        async with open_calls(cluster, 1) as (call,):
            assert set(await ready()) == {200}
            described = (await http.get(f"/sessions/{call.id}")).json()["session_id"]
            for _ in range(8):  # the short id, which the log shows
                found = await http.get(f"/sessions/{described}")
                assert found.json()["session_id"] == described
            async with place_call(cluster.url, token=TOKEN):
                await anyio.sleep(1)  # the answer of another worker is used for so long
                assert set(await ready()) == {503}


async def test_connections_to_a_replaced_worker_close() -> None:
    """A proxy keeps its connections, and its further requests go to the new workers."""
    async with (
        run(count=1) as cluster,
        open_calls(cluster, 1) as (call,),
        httpx.AsyncClient(base_url=cluster.url, headers=ACCESS) as proxy,
    ):
        assert (await proxy.get("/health/ready")).headers.get("connection") is None
        cluster.program.process.send_signal(signal.SIGHUP)
        await wait_until(lambda: "the old ones drain" in cluster.errors, "the new worker")
        for path in (f"/sessions/{call.id}", "/health/ready"):  # the old worker would drain
            reply = await proxy.get(path)
            assert reply.status_code == 200, reply.text


async def test_unit_of_the_guide(tmp_path: Path) -> None:
    unit = RawConfigParser(interpolation=None)
    unit.optionxform = str  # type: ignore[assignment, method-assign]
    unit.read_string(find_block("docs/guides/several_processes.md", "[Service]").text)
    service = unit["Service"]
    program = find_block("docs/guides/several_processes.md", "concurrency_limit=20").text
    await anyio.Path(tmp_path / "calls.py").write_text(program)
    interpreter, *arguments = shlex.split(service["ExecStart"])
    assert Path(interpreter).name == "python"
    words = ["0" if word == "7860" else word for word in arguments]
    command = [
        sys.executable,
        *[word.replace("calls.py", f"{tmp_path}/calls.py") for word in words],
    ]
    async with (
        run_server(command, {"PYTHONPATH": ROOT}) as served,
        place_call(served.url) as client,
    ):
        reload = service["ExecReload"].replace("$MAINPID", str(served.process.pid))
        await anyio.run_process(shlex.split(reload))
        await wait_until(lambda: "the old ones drain" in served.printed["stderr"], "the reload")
        await check_echo(client)
        async with place_call(served.url) as later:
            await check_echo(later)
