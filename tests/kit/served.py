"""Separate processes: a server that a signal ends, and whether a process runs."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress

import anyio
from anyio.abc import Process
from anyio.streams.text import TextReceiveStream

from .waiting import wait_until

LIMIT = 5.0
"""Seconds within which the process must end."""


class Program:
    """The running process and its output."""

    def __init__(self, process: Process) -> None:
        self.process = process
        self.printed = {"stdout": "", "stderr": ""}

    @property
    def url(self) -> str:
        found = re.search(r"(http://127\.0\.0\.1:\d+)\b", "".join(self.printed.values()))
        return found[1] if found else ""

    async def read(self, name: str) -> None:
        stream = getattr(self.process, name)
        async for text in TextReceiveStream(stream):
            self.printed[name] += text

    async def interrupt(self, number: signal.Signals = signal.SIGINT) -> float:
        """Send the signal; return the seconds until the process has ended."""
        self.process.send_signal(number)
        return await self.wait()

    async def wait(self) -> float:
        """Return the seconds until the process has ended."""
        began = time.monotonic()
        with anyio.fail_after(LIMIT):
            await self.process.wait()
        return time.monotonic() - began


@asynccontextmanager
async def run_program(
    command: Sequence[str], variables: Mapping[str, str] | None = None
) -> AsyncGenerator[Program, None]:
    """Run a program. It is killed at the end, with all of its children."""
    async with (
        await anyio.open_process(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, **(variables or {})},
            start_new_session=True,
        ) as process,
        anyio.create_task_group() as tg,
    ):
        program = Program(process)
        tg.start_soon(program.read, "stdout")
        tg.start_soon(program.read, "stderr")
        try:
            yield program
        finally:
            with suppress(ProcessLookupError):  # otherwise the readers never end
                os.killpg(process.pid, signal.SIGKILL)


@asynccontextmanager
async def run_server(
    command: Sequence[str], variables: Mapping[str, str] | None = None
) -> AsyncGenerator[Program, None]:
    """Run a program that prints its URL; see :func:`run_program`."""
    async with run_program(command, variables) as program:
        await wait_until(lambda: bool(program.url))
        yield program


def is_running(pid: int) -> bool:
    """Whether a process exists."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
