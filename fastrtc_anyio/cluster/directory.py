"""The directory of a cluster: which process has a session."""

from __future__ import annotations

import math
from typing import NamedTuple, Protocol, runtime_checkable

import anyio
from anyio import current_time, move_on_after
from anyio.lowlevel import checkpoint

from fastrtc_anyio._core.options import check_number
from fastrtc_anyio._signaling.session_ids import check_owner, owner_of
from fastrtc_anyio.resumption import MemoryStore

__all__ = ["Location", "MemoryDirectory", "SessionDirectory"]


class Location(NamedTuple):
    """A process of a cluster."""

    owner: str
    """Its name."""
    address: str
    """The URL at which other processes reach it, such as ``http://127.0.0.1:41823``."""


@runtime_checkable
class SessionDirectory(Protocol):
    """Knows the processes of a cluster, and the sessions whose ids do not name their process.

    Each process joins under a name of its own, and again every few seconds: the directory forgets a
    process that has not joined for a while, with all its claims. A session id that a process has
    made names the process. Ids that clients choose are claimed.

    All methods may raise exceptions of the network. What they were to do may or may not have
    happened then, and each may be repeated.
    """

    async def join(self, owner: str, address: str) -> bool:
        """Add a process, or renew its entry.

        Returns:
            Whether the directory knew it. If not, the process has no claims, and has to repeat
            those of its sessions.
        """
        ...

    async def leave(self, owner: str) -> None:
        """Forget a process and its claims, if it is known. Other processes may ask for it."""

    async def list_processes(self) -> list[Location]:
        """Return the processes, in the order in which they have joined."""
        ...

    async def claim(self, webrtc_id: str, session_id: str) -> str | None:
        """Register the id that the client of a session has chosen, unless another process has it.

        Several sessions of one process may have the same id. The process itself decides about this.

        Returns:
            ``session_id`` if the id is registered; the id of a session of the process that has it
            otherwise; None if the process that ``session_id`` names is not known, and has to join.
        """
        ...

    async def release(self, webrtc_id: str, session_id: str) -> None:
        """Give up the claim of a session, if there is one. Other sessions keep theirs."""

    async def find(self, name: str, wait: float = 0.0) -> Location | None:
        """Return the process that has a session.

        Args:
            name: the id that its client has chosen, or its own.
            wait: seconds to wait for a session with this id.
        """
        ...


class _Process:
    def __init__(self, address: str, expires: float) -> None:
        self.address = address
        self.expires = expires
        self.claims: set[str] = set()
        """Ids that clients of its sessions have chosen."""


class MemoryDirectory(MemoryStore, SessionDirectory):
    """A directory in the memory of one process, and a store for what sessions save.

    Args:
        lifetime: seconds after which a process is forgotten that has not joined again.
    """

    def __init__(self, lifetime: float = 15.0) -> None:
        check_number("lifetime", lifetime, above=0, unit="s")
        super().__init__()
        self._lifetime = lifetime
        self._processes: dict[str, _Process] = {}
        self._earliest = math.inf
        """No process expires before this time."""
        self._claims: dict[str, dict[str, None]] = {}
        """Ids of sessions of one process, none empty, by the ids that their clients have chosen."""
        self._waiting: dict[str, set[anyio.Event]] = {}
        """Requests that wait for a session, by its id."""

    async def join(self, owner: str, address: str) -> bool:
        check_owner(owner)
        await checkpoint()
        self._forget_expired()
        known = self._processes.get(owner)
        expires = current_time() + self._lifetime
        self._earliest = min(self._earliest, expires)
        if known is None or known.address != address:
            self._forget(owner)
            self._processes[owner] = _Process(address, expires)
            for name in [one for one in self._waiting if owner_of(one) == owner]:
                self._notify(name)
            return False
        known.expires = expires
        return True

    async def leave(self, owner: str) -> None:
        await checkpoint()
        self._forget(owner)

    async def list_processes(self) -> list[Location]:
        await checkpoint()
        self._forget_expired()
        return [Location(name, process.address) for name, process in self._processes.items()]

    async def claim(self, webrtc_id: str, session_id: str) -> str | None:
        owner = owner_of(session_id)
        if owner is None:
            raise ValueError(f"the id of a session must name its process; got {session_id!r}")
        await checkpoint()
        self._forget_expired()
        if owner not in self._processes:
            return None
        holders = self._claims.setdefault(webrtc_id, {})
        for holder in holders:
            if owner_of(holder) != owner:
                return holder
        holders[session_id] = None
        self._processes[owner].claims.add(webrtc_id)
        self._notify(webrtc_id)
        return session_id

    async def release(self, webrtc_id: str, session_id: str) -> None:
        await checkpoint()
        holders = self._claims.get(webrtc_id, {})
        holders.pop(session_id, None)
        process = self._processes.get(owner_of(session_id) or "")
        if not holders and process is not None:
            self._claims.pop(webrtc_id, None)
            process.claims.discard(webrtc_id)

    async def find(self, name: str, wait: float = 0.0) -> Location | None:
        await checkpoint()
        found = self._find(name)
        if found is None and wait > 0:
            with move_on_after(wait):
                while found is None:
                    await self._wait(name)
                    found = self._find(name)
        return found

    def _find(self, name: str) -> Location | None:
        self._forget_expired()
        holder = next(iter(self._claims.get(name, ())), name)
        owner = owner_of(holder)
        process = self._processes.get(owner or "")
        return None if owner is None or process is None else Location(owner, process.address)

    def _forget_expired(self) -> None:
        now = current_time()
        if now < self._earliest:
            return  # most requests: there may be thousands of processes
        for name in [one for one, process in self._processes.items() if process.expires <= now]:
            self._forget(name)
        expiries = (process.expires for process in self._processes.values())
        self._earliest = min(expiries, default=math.inf)

    def _forget(self, owner: str) -> None:
        process = self._processes.pop(owner, None)
        for webrtc_id in process.claims if process is not None else ():
            del self._claims[webrtc_id]

    async def _wait(self, name: str) -> None:
        """Wait until a session may have an id."""
        event = anyio.Event()
        waiting = self._waiting.setdefault(name, set())
        waiting.add(event)
        try:
            await event.wait()
        finally:
            waiting.discard(event)
            if not waiting:
                self._waiting.pop(name, None)

    def _notify(self, name: str) -> None:
        for event in self._waiting.get(name, ()):
            event.set()
