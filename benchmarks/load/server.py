"""Starts a server of :mod:`benchmarks.servers`, and exchanges offers and answers with it."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Server:
    """A server to measure.

    Attributes:
        name: name in tables.
        python: interpreter of its environment.
        arguments: of ``python -m benchmarks.servers``.
    """

    name: str
    python: str
    arguments: tuple[str, ...]

    @property
    def environment(self) -> dict[str, str]:
        return {**os.environ, "PYTHONPATH": str(ROOT), "OPENBLAS_NUM_THREADS": "1"}


class ServerProcess:
    """A running server."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.pid = process.pid
        self._process = process
        self._waiting: dict[str, asyncio.Future[Any]] = {}

    async def exchange(self, offer: str) -> str:
        """Send an offer's SDP, and return the answer's."""
        answer: str = await self._ask({"sdp": offer})
        return answer

    async def count_memory(self) -> dict[str, int]:
        """Return the memory in use; see :mod:`benchmarks.servers.memory`."""
        answer: dict[str, int] = await self._ask({})
        return answer

    async def _ask(self, question: dict[str, str]) -> Any:
        identifier = os.urandom(16).hex()
        future = self._waiting[identifier] = asyncio.get_running_loop().create_future()
        assert self._process.stdin is not None
        self._process.stdin.write((json.dumps({"id": identifier, **question}) + "\n").encode())
        return await future

    async def read_line(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = await self._process.stdout.readline()
        if not line:
            raise RuntimeError("the server ended; its output is above")
        answer: dict[str, Any] = json.loads(line)
        return answer

    async def read_answers(self) -> None:
        try:
            while True:
                answer = await self.read_line()
                self._waiting.pop(answer["id"]).set_result(answer["answer"])
        except RuntimeError as error:
            for future in self._waiting.values():
                future.set_exception(error)


@asynccontextmanager
async def open_server(server: Server, core: int) -> AsyncGenerator[ServerProcess, None]:
    """Start a server on a core, and wait until it is ready."""
    process = await asyncio.create_subprocess_exec(
        server.python,
        *("-m", "benchmarks.servers", *server.arguments),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=2**20,
        env=server.environment,
        preexec_fn=lambda: os.sched_setaffinity(0, {core}),
    )
    opened = ServerProcess(process)
    await opened.read_line()
    answers = asyncio.create_task(opened.read_answers())
    try:
        yield opened
    finally:
        answers.cancel()
        assert process.stdin is not None
        process.stdin.close()
        try:
            await asyncio.wait_for(process.wait(), 10)
        except TimeoutError:
            process.kill()
            await process.wait()
