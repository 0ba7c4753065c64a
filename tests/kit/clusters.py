"""A directory that is reached over a bad network, and processes that use it."""

from __future__ import annotations

import secrets
from collections import deque
from collections.abc import Awaitable
from typing import Literal, TypeVar

import anyio
from anyio.abc import TaskGroup

from fastrtc_anyio._signaling.session_ids import make_session_id
from fastrtc_anyio.cluster import Location, Member, MemoryDirectory, SessionDirectory

T = TypeVar("T")
Fault = Literal["refused", "request lost", "answer lost", "slow"]
SLOW = 0.5
"""Seconds that a slow answer takes."""


class Link(SessionDirectory):
    """A directory behind a network.

    Attributes:
        directory: replace it, and all entries are lost.
        faults: what happens to the next requests.
    """

    def __init__(self) -> None:
        self.directory: SessionDirectory = MemoryDirectory()
        self.faults: deque[Fault] = deque()

    async def join(self, owner: str, address: str) -> bool:
        return await self._carry(self.directory.join(owner, address))

    async def leave(self, owner: str) -> None:
        await self._carry(self.directory.leave(owner))

    async def list_processes(self) -> list[Location]:
        return await self._carry(self.directory.list_processes())

    async def claim(self, webrtc_id: str, session_id: str) -> str | None:
        return await self._carry(self.directory.claim(webrtc_id, session_id))

    async def release(self, webrtc_id: str, session_id: str) -> None:
        await self._carry(self.directory.release(webrtc_id, session_id))

    async def find(self, name: str, wait: float = 0.0) -> Location | None:
        return await self._carry(self.directory.find(name, wait))

    async def _carry(self, request: Awaitable[T]) -> T:
        fault = self.faults.popleft() if self.faults else None
        if fault in ("refused", "request lost"):
            request.close()  # type: ignore[attr-defined]
            if fault == "refused":
                raise ConnectionRefusedError("the directory has gone")
            await anyio.sleep_forever()
        answer = await request
        if fault == "answer lost":
            await anyio.sleep_forever()
        if fault == "slow":
            await anyio.sleep(SLOW)
        return answer


class Process:
    """A process of a cluster, with sessions that have ids of their clients."""

    def __init__(self, link: SessionDirectory, number: int) -> None:
        self.member = Member(link, f"http://127.0.0.1:{number}")
        self.sessions: dict[str, str] = {}
        """Ids of sessions, by those of their clients."""
        self._scope = anyio.CancelScope()
        self.has_crashed = False

    async def start(self, tasks: TaskGroup) -> None:
        await tasks.start(self._run)

    async def _run(self, *, task_status: anyio.abc.TaskStatus[None]) -> None:
        with self._scope:
            await self.member.run(task_status=task_status)

    def stop(self) -> None:
        self._scope.cancel()

    async def begin(self, webrtc_id: str) -> str:
        """Begin a session.

        Raises:
            InvalidStateError: another process has one with this id.
        """
        session_id = make_session_id(self.member.name, secrets.token_urlsafe(16))
        try:
            await self.member.claim(webrtc_id, session_id)
        except BaseException:
            self.member.release(webrtc_id, session_id)
            raise
        self.sessions[webrtc_id] = session_id
        return session_id

    def end(self, webrtc_id: str) -> None:
        self.member.release(webrtc_id, self.sessions.pop(webrtc_id))
