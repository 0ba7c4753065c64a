"""Measure what several processes cost: requests to the directory, and forwarded requests.

``python -m benchmarks.cluster [--backend trio] [--seconds 2] [--rounds 3]`` prints the CPU time of
one request, as the median of the rounds with the lowest and the highest:

* ``memory`` calls a ``MemoryDirectory`` in its own process, with some processes and claims.
* ``socket`` asks the directory of ``serve --workers`` from another process, over its socket. The
  time is that of the process that has the directory.
* ``forwarding`` sends requests to a small application: to the process that has their session, and
  to another one, which forwards them. The time is that of both processes and of the client.

Needs a machine with two idle cores.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager

import anyio
import httpx
from anyio.abc import TaskStatus
from starlette.responses import PlainTextResponse

from benchmarks.processes import cpu_seconds
from fastrtc_anyio._signaling.session_ids import make_session_id
from fastrtc_anyio.cluster import Member, MemoryDirectory, SessionDirectory, Switchboard
from fastrtc_anyio.cluster._remote import RemoteDirectory, serve_directory
from fastrtc_anyio.server.launch import create_listener, listener_url, serve_listener

SECRET = "the secret of the benchmark"
SIZES = ((4, 200), (200, 10_000), (20_000, 1_000_000))
"""Numbers of processes and claims."""
CLIENTS = 16
"""Concurrent requests to the socket of a directory."""
KEY = "0123456789abcdefghijkl"

Request = Callable[[int], Awaitable[object]]


async def fill(directory: SessionDirectory, processes: int, claims: int) -> None:
    for number in range(processes):
        await directory.join(f"w{number}", f"http://127.0.0.1:{number}")
    for number in range(claims):
        owner = f"w{number % processes}"
        await directory.claim(f"client-{number}", make_session_id(owner, KEY))


def requests(directory: SessionDirectory, processes: int, claims: int) -> dict[str, Request]:
    """The requests of one session: a claim, one that finds it by each kind of id, its end."""

    async def claim(number: int) -> None:
        session = make_session_id(f"w{number % processes}", KEY)
        await directory.claim(f"new-{number}", session)

    async def release(number: int) -> None:
        session = make_session_id(f"w{number % processes}", KEY)
        await directory.release(f"new-{number}", session)

    async def find(number: int) -> None:
        assert await directory.find(f"client-{number % claims}")

    async def join(number: int) -> None:
        name = number % processes
        assert await directory.join(f"w{name}", f"http://127.0.0.1:{name}")

    return {"claim": claim, "find": find, "release": release, "join": join}


async def repeat(request: Request, seconds: float, clients: int = 1) -> int:
    """Send requests one after the other from each client; return their number."""
    count = 0
    end = time.perf_counter() + seconds

    async def run() -> None:
        nonlocal count
        while time.perf_counter() < end:
            count += 1
            await request(count)

    async with anyio.create_task_group() as tasks:
        for _ in range(clients):
            tasks.start_soon(run)
    return count


async def measure_memory(seconds: float) -> dict[str, float]:
    found = {}
    for processes, claims in SIZES:
        directory = MemoryDirectory(lifetime=3600)
        await fill(directory, processes, claims)
        for name, request in requests(directory, processes, claims).items():
            began = time.process_time()
            count = await repeat(request, seconds)
            spent = time.process_time() - began
            found[f"memory, {processes} processes, {claims} claims: {name}"] = spent / count
    return found


async def measure_socket(backend: str, seconds: float) -> dict[str, float]:
    processes, claims = SIZES[1]
    found = {}
    command = [sys.executable, "-m", "benchmarks.cluster", "--serve", "--backend", backend]
    async with await anyio.open_process(command, stderr=None, stdin=subprocess.PIPE) as server:
        assert server.stdout is not None
        directory = RemoteDirectory(int(await server.stdout.receive()), SECRET)
        for name, request in requests(directory, processes, claims).items():
            began = cpu_seconds(server.pid)
            count = await repeat(request, seconds, CLIENTS)
            found[f"socket: {name}"] = (cpu_seconds(server.pid) - began) / count
        server.terminate()
    return found


async def serve() -> None:
    """Serve a directory until the process is terminated."""
    directory = MemoryDirectory(lifetime=3600)
    await fill(directory, *SIZES[1])
    async with anyio.create_task_group() as tasks:
        port = await tasks.start(serve_directory, directory, SECRET)
        print(port, flush=True)


@asynccontextmanager
async def open_process(
    directory: SessionDirectory, name: str
) -> AsyncGenerator[httpx.AsyncClient, None]:
    """A process with an application, in this one."""
    own, public = create_listener("127.0.0.1", 0), create_listener("127.0.0.1", 0)
    member = Member(directory, listener_url(own), name=name)
    board = Switchboard(PlainTextResponse("ok"), member, SECRET)

    async def join(*, task_status: TaskStatus[None]) -> None:
        await member.run(task_status=task_status)

    async with (
        anyio.create_task_group() as tasks,
        serve_listener(board.inlet, own),
        serve_listener(board, public) as server,
        httpx.AsyncClient(base_url=server.url) as http,
    ):
        await tasks.start(join)
        yield http
        tasks.cancel_scope.cancel()


async def measure_forwarding(seconds: float) -> dict[str, float]:
    directory, found = MemoryDirectory(), {}
    path = f"/state?webrtc_id={make_session_id('one', KEY)}"
    async with open_process(directory, "one") as one, open_process(directory, "two") as two:
        for name, http in {"by its process": one, "forwarded": two}.items():
            began, wall = time.process_time(), time.perf_counter()

            async def request(_number: int, http: httpx.AsyncClient = http) -> None:
                (await http.get(path)).raise_for_status()

            count = await repeat(request, seconds)
            found[f"forwarding: {name}"] = (time.process_time() - began) / count
            found[f"forwarding: {name}, latency"] = (time.perf_counter() - wall) / count
    return found


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cluster", description=__doc__)
    parser.add_argument("--backend", choices=("trio", "asyncio"), default="trio")
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    backend, seconds = options.backend, options.seconds
    if options.serve:
        anyio.run(serve, backend=backend)
        return
    rounds: dict[str, list[float]] = {}
    for _ in range(options.rounds):
        found = {
            **anyio.run(measure_memory, seconds, backend=backend),
            **anyio.run(measure_socket, backend, seconds, backend=backend),
            **anyio.run(measure_forwarding, seconds, backend=backend),
        }
        for name, spent in found.items():
            rounds.setdefault(name, []).append(1e6 * spent)
    print(f"{backend}: us a request\n")
    for name, values in rounds.items():
        print(f"{statistics.median(values):8.0f} [{min(values):.0f}-{max(values):.0f}]  {name}")


if __name__ == "__main__":
    main()
