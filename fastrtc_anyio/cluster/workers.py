"""Serve a stream in several processes of one machine, which share a listening socket.

The parent owns the socket and the directory, and starts the workers. It serves nothing itself.
"""

from __future__ import annotations

import json
import secrets
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict, dataclass, field, replace

import anyio
from anyio import BrokenResourceError, CancelScope, create_task_group, move_on_after
from anyio.abc import Process, TaskGroup, TaskStatus

from fastrtc_anyio._core.groups import collapse_groups
from fastrtc_anyio._core.log import logger
from fastrtc_anyio._core.options import check_number

from ._remote import serve_directory
from .directory import MemoryDirectory

__all__ = ["Settings", "WorkersFailed", "serve_workers"]

_PAUSE = 5.0
"""Seconds before another attempt to replace a worker, whose replacement did not start."""
_START_SECONDS = 60.0
"""Seconds for a worker to import its modules, and join."""
_LAST_SECONDS = 15.0
"""Seconds for a worker to end its sessions at once: more than the default limits of a session."""


class WorkersFailed(Exception):
    """The first workers have ended by themselves: their output says why."""


@dataclass(frozen=True)
class Settings:
    """What a worker has to know.

    Attributes:
        target: names the stream; see :func:`.load_stream`.
        backend: ``"trio"`` or ``"asyncio"``.
        name: of the process.
        listener: file descriptor of the listening socket, shared by all workers.
        directory: port of the directory, on the loopback interface.
        secret: of the cluster.
        drain_timeout: in place of the stream's, or None.
    """

    target: str
    backend: str
    name: str
    listener: int
    directory: int
    secret: str
    drain_timeout: float | None = None

    def encode(self) -> bytes:
        return json.dumps(asdict(self)).encode() + b"\n"


@dataclass(eq=False)
class _Worker:
    name: str
    process: Process
    is_stopping: bool = False
    joined: anyio.Event = field(default_factory=anyio.Event)
    ended: anyio.Event = field(default_factory=anyio.Event)

    def stop(self, number: signal.Signals) -> None:
        """Let it end: SIGTERM and SIGHUP drain it before, the latter without a timeout.

        A worker that does not serve yet has no calls, and is killed.
        """
        self.is_stopping = True
        if self.process.returncode is None:
            self.process.send_signal(number if self.joined.is_set() else signal.SIGKILL)


class _Directory(MemoryDirectory):
    """Tells when workers join."""

    def __init__(self) -> None:
        super().__init__()
        self.workers: dict[str, _Worker] = {}

    async def join(self, owner: str, address: str) -> bool:
        known = await super().join(owner, address)
        if (worker := self.workers.get(owner)) is not None:
            worker.joined.set()
        return known


class _Parent:
    def __init__(self, settings: Settings, count: int) -> None:
        self._settings = settings
        self._count = count
        self._directory = _Directory()
        self._slots: list[_Worker | None] = [None] * count
        """The workers that have started last, also if they have ended."""
        self._filling = [anyio.Lock() for _ in range(count)]
        """Held while a worker starts in a slot, so that one starts at a time."""
        self._tasks: TaskGroup
        self._is_stopping = False
        self._started = anyio.Event()
        self._replacing = anyio.Lock()

    @asynccontextmanager
    async def open(self) -> AsyncGenerator[None, None]:
        """Serve the directory while the block runs, and end all workers after it."""
        with collapse_groups():
            async with create_task_group() as self._tasks:
                secret = self._settings.secret
                port = await self._tasks.start(serve_directory, self._directory, secret)
                self._settings = replace(self._settings, directory=port)
                try:
                    yield
                finally:
                    with CancelScope(shield=True):
                        await self._end(signal.SIGINT, _LAST_SECONDS)
                    self._tasks.cancel_scope.cancel()

    async def start(self) -> bool:
        """Start all workers, and wait until they serve. Return whether they do.

        Otherwise, a signal ends them.

        Raises:
            WorkersFailed: one has ended by itself, or does not serve in time.
        """
        await self._start_first(0)  # alone: its errors are those of all
        async with create_task_group() as tasks:
            for slot in range(1, self._count):
                tasks.start_soon(self._start_first, slot)
        self._started.set()
        return not self._is_stopping

    async def _start_first(self, slot: int) -> None:
        async with self._filling[slot]:
            if not await self._fill(slot) and not self._is_stopping:
                raise WorkersFailed("a worker did not start")

    async def _fill(self, slot: int) -> bool:
        """Start a worker, and wait until it serves. Return whether it does.

        The caller holds the lock of the slot.
        """
        if self._is_stopping:
            return False
        try:
            worker: _Worker = await self._tasks.start(self._watch, slot)
        except OSError as exc:  # the system is out of processes, or of memory
            logger.error("no worker can be started: %s", exc, event="cluster.start_failed")
            return False
        with move_on_after(_START_SECONDS):
            async with create_task_group() as tasks:
                for event in (worker.joined, worker.ended):
                    tasks.start_soon(_cancel_after, event, tasks.cancel_scope)
        if not worker.joined.is_set():
            worker.stop(signal.SIGKILL)
            return False
        self._slots[slot] = worker
        return True

    async def _watch(self, slot: int, *, task_status: TaskStatus[_Worker]) -> None:
        """Run a worker, and start another one if it ends by itself."""
        name = f"w{slot}-{secrets.token_hex(3)}"
        process = await self._spawn(replace(self._settings, name=name))
        worker = _Worker(name, process)
        self._directory.workers[name] = worker
        task_status.started(worker)
        if self._is_stopping:
            worker.stop(signal.SIGINT)
        try:
            status = await process.wait()
        except BaseException:
            process.kill()
            raise
        finally:
            worker.ended.set()
            del self._directory.workers[name]
        await self._directory.leave(name)
        if worker.is_stopping or self._is_stopping or not worker.joined.is_set():
            return
        logger.error(
            "worker %s has ended with status %d: its calls are lost",
            name,
            status,
            event="cluster.worker_lost",
        )
        await self._refill(slot, worker)

    async def _refill(self, slot: int, worker: _Worker) -> None:
        """Replace a worker that has ended by itself, unless it is replaced already."""
        while not self._is_stopping:
            async with self._filling[slot]:
                if self._slots[slot] is not worker or await self._fill(slot):
                    return
            await anyio.sleep(_PAUSE)

    async def _spawn(self, settings: Settings) -> Process:
        process = await anyio.open_process(
            [sys.executable, "-m", "fastrtc_anyio._cli.worker"],
            stdin=subprocess.PIPE,
            stdout=None,
            stderr=None,
            pass_fds=[settings.listener],
            start_new_session=True,  # the parent passes a terminal's signals on
        )
        assert process.stdin is not None
        with suppress(BrokenResourceError):  # it has ended already
            await process.stdin.send(settings.encode())  # which stays open as long as this process
        return process

    async def replace_all(self) -> None:
        """Replace the workers one by one. The old ones drain meanwhile."""
        await self._started.wait()
        async with self._replacing:
            for slot in range(self._count):
                async with self._filling[slot]:
                    old = self._slots[slot]
                    if not await self._fill(slot):
                        if not self._is_stopping:
                            text = "a new worker did not start: the old ones stay"
                            logger.error(text, event="cluster.replace_failed")
                        return
                    if old is not None:
                        old.stop(signal.SIGHUP)
            print("all workers are replaced: the old ones drain", file=sys.stderr, flush=True)

    async def drain(self) -> None:
        """Let all calls end, within their timeout, and all workers."""
        await self._end(signal.SIGTERM, None)

    async def _end(self, number: signal.Signals, seconds: float | None) -> None:
        self._is_stopping = True
        workers = list(self._directory.workers.values())
        for worker in workers:
            worker.stop(number)
        with move_on_after(seconds):
            for worker in workers:
                await worker.ended.wait()
        for worker in workers:
            if worker.process.returncode is None:
                worker.process.kill()


async def _cancel_after(event: anyio.Event, scope: CancelScope) -> None:
    await event.wait()
    scope.cancel()


async def serve_workers(
    target: str,
    listener: socket.socket,
    count: int,
    *,
    backend: str = "trio",
    drain_timeout: float | None = None,
    message: str | None = None,
) -> None:
    """Serve a stream in several processes until SIGINT or SIGTERM.

    SIGTERM drains all workers first; a second signal ends them at once. SIGHUP replaces them, one
    after the other: calls go on until they end. A worker that ends by itself is replaced. None
    outlives this process.

    Args:
        target: names the stream; see ``fastrtc-anyio serve``. Each worker imports it.
        listener: the listening socket.
        count: number of workers.
        backend: of the workers.
        drain_timeout: of the stream, in place of its own. It also limits calls after SIGHUP.
        message: printed once all workers serve.

    Raises:
        WorkersFailed: a worker did not start.
        NotImplementedError: this is Windows.
    """
    check_number("count", count, integer=True, at_least=1)
    if not hasattr(signal, "SIGHUP"):
        raise NotImplementedError("workers need a system with the signals of POSIX")
    settings = Settings(
        target=target,
        backend=backend,
        name="",
        listener=listener.fileno(),
        directory=0,
        secret=secrets.token_urlsafe(32),
        drain_timeout=drain_timeout,
    )
    parent = _Parent(settings, count)
    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM, signal.SIGHUP) as signals:
        async with parent.open(), create_task_group() as tasks:
            tasks.start_soon(_start, parent, message)
            is_draining = False
            async for number in signals:
                if number == signal.SIGHUP:
                    if not is_draining:
                        tasks.start_soon(parent.replace_all)
                elif number == signal.SIGTERM and not is_draining:
                    is_draining = True
                    tasks.start_soon(_drain, parent, tasks.cancel_scope)
                else:
                    tasks.cancel_scope.cancel()


async def _start(parent: _Parent, message: str | None) -> None:
    if await parent.start() and message is not None:
        print(message, flush=True)


async def _drain(parent: _Parent, scope: CancelScope) -> None:
    await parent.drain()
    scope.cancel()
