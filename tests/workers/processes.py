"""``serve --workers`` in a process."""

from __future__ import annotations

import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from tests.kit.served import Program, run_server

from .program import TOKEN

PROGRAM = Path(__file__).with_name("program.py")
ROOT = str(Path(__file__).parents[2])
ACCESS = {"Authorization": f"Bearer {TOKEN}"}


@dataclass
class Cluster:
    """Running workers."""

    program: Program
    url: str

    @property
    def errors(self) -> str:
        return self.program.printed["stderr"]

    @property
    def pids(self) -> set[int]:
        """The processes of the workers."""
        threads = Path(f"/proc/{self.program.process.pid}/task").glob("*/children")
        return {int(word) for listed in threads for word in listed.read_text("ascii").split()}

    def client(self) -> httpx.AsyncClient:
        """A client that opens a connection for each request, to any worker."""
        limits = httpx.Limits(max_keepalive_connections=0)
        return httpx.AsyncClient(base_url=self.url, headers=ACCESS, limits=limits, timeout=20)


@asynccontextmanager
async def run(
    backend: str = "trio", count: int = 2, *options: str, **variables: str
) -> AsyncGenerator[Cluster, None]:
    command = [sys.executable, "-m", "fastrtc_anyio", "serve", f"{PROGRAM}:stream", "--port", "0"]
    command += ["--workers", str(count), "--backend", backend, *options]
    async with run_server(command, {"PYTHONPATH": ROOT, **variables}) as program:
        yield Cluster(program, program.url)
