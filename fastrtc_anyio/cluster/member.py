"""A process as a member of a cluster."""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable
from typing import TypeVar

import anyio
from anyio import TASK_STATUS_IGNORED, fail_after, move_on_after
from anyio.abc import TaskStatus

from fastrtc_anyio._core.log import logger
from fastrtc_anyio._core.options import check_number, check_type
from fastrtc_anyio._sessions.claims import SessionClaims
from fastrtc_anyio._signaling.session_ids import check_owner, owner_of, shorten
from fastrtc_anyio.errors import InvalidStateError

from .directory import Location, SessionDirectory

__all__ = ["Member"]

_RETRY = 1.0
"""Seconds between two requests to a directory that does not answer."""

T = TypeVar("T")


class Member(SessionClaims):
    """This process in a cluster: joins the directory, and claims the ids of its sessions.

    :meth:`run` keeps it in the directory. Assign it to ``Stream.claims`` before the stream has
    sessions.

    A directory that does not answer ends no session, and refuses none. Requests about sessions that
    reach another process fail until the directory is back, and has the claims again.

    Args:
        directory: the directory of the cluster.
        address: the URL at which other processes reach this one, such as
            ``http://127.0.0.1:41823``.
        name: the name of this process: 1 to 64 letters, digits, ``-`` and ``_``. No other process
            may have had it. By default a random one.
        interval: seconds between two entries in the directory: at most a third of its lifetime.
        deadline: seconds for a request to the directory.
    """

    def __init__(
        self,
        directory: SessionDirectory,
        address: str,
        *,
        name: str | None = None,
        interval: float = 5.0,
        deadline: float = 2.0,
    ) -> None:
        check_type("address", address, str)
        check_number("interval", interval, above=0, unit="s")
        check_number("deadline", deadline, above=0, unit="s")
        self._name = secrets.token_hex(4) if name is None else check_owner(name)
        self._address = address
        self._directory = directory
        self._interval = interval
        self._retry = min(interval, _RETRY)
        self._deadline = deadline
        self._claims: dict[str, set[str]] = {}
        """The sessions of this process, by the ids that their clients have chosen."""
        self._released: dict[tuple[str, str], None] = {}
        """Claims that the directory has yet to forget."""
        self._is_known = False
        """Whether the directory has this process, and all claims of its sessions."""
        self._is_reachable = True
        self._changed = anyio.Event()

    @property
    def name(self) -> str:
        return self._name

    @property
    def address(self) -> str:
        """The URL at which other processes reach this one."""
        return self._address

    def holds(self, name: str) -> bool:
        """Return whether a session of this process has an id: its own, or its client's."""
        return name in self._claims or owner_of(name) == self._name

    async def run(self, *, task_status: TaskStatus[None] = TASK_STATUS_IGNORED) -> None:
        """Keep this process in the directory until the call is cancelled, and leave it then.

        It has started once it has joined, or has tried for ``deadline``.
        """
        try:
            while True:
                self._changed = anyio.Event()
                await self._renew()
                task_status.started()
                task_status = TASK_STATUS_IGNORED
                with move_on_after(self._interval if self._is_reachable else self._retry):
                    await self._changed.wait()
        finally:
            with move_on_after(self._deadline, shield=True):
                await self._ask(lambda: self._directory.leave(self._name))
            self._is_known = False

    async def claim(self, webrtc_id: str, session_id: str) -> None:
        # First, so that the end of the session releases what a cancelled request has claimed.
        self._claims.setdefault(webrtc_id, set()).add(session_id)
        if not self._is_reachable:
            self._is_known = False
            return
        holder = await self._ask(lambda: self._directory.claim(webrtc_id, session_id))
        if holder is None:
            self._is_known = False
            self._changed.set()
        elif holder != session_id:
            self._drop(webrtc_id, session_id)
            raise InvalidStateError(f"the webrtc_id {webrtc_id!r} is in use")

    def release(self, webrtc_id: str, session_id: str) -> None:
        if self._drop(webrtc_id, session_id):
            self._released[webrtc_id, session_id] = None
            self._changed.set()

    def _drop(self, webrtc_id: str, session_id: str) -> bool:
        sessions = self._claims.get(webrtc_id, set())
        is_held = session_id in sessions
        sessions.discard(session_id)
        if not sessions:
            self._claims.pop(webrtc_id, None)
        return is_held

    async def find(self, name: str, wait: float = 0.0) -> Location | None:
        """Return the process that has a session; None if there is none, or the directory is gone.

        ``wait`` is in seconds; see :meth:`.SessionDirectory.find`.
        """
        if not self._is_reachable:
            return None
        return await self._ask(lambda: self._directory.find(name, wait), wait)

    async def list_others(self) -> list[Location]:
        """Return the other processes of the cluster."""
        found = await self._ask(self._directory.list_processes)
        return [one for one in found or () if one.owner != self._name]

    async def report_lost(self, process: Location) -> None:
        """Tell the directory that a process has ended: it has refused a connection."""
        logger.warning(
            "process %s of the cluster does not listen any more",
            process.owner,
            event="cluster.process_lost",
        )
        await self._ask(lambda: self._directory.leave(process.owner))

    async def _renew(self) -> None:
        known = await self._ask(lambda: self._directory.join(self._name, self._address))
        if known is None:
            return
        if not known:
            self._released.clear()
        if not (known and self._is_known):
            self._is_known = await self._claim_all()
        for webrtc_id, session_id in list(self._released):
            if not await self._tell(webrtc_id, session_id):
                return
            del self._released[webrtc_id, session_id]

    async def _tell(self, webrtc_id: str, session_id: str) -> bool:
        async def release() -> bool:
            await self._directory.release(webrtc_id, session_id)
            return True

        return bool(await self._ask(release))

    async def _claim_all(self) -> bool:
        claims = [(name, one) for name, sessions in self._claims.items() for one in sessions]
        for webrtc_id, session_id in claims:
            if session_id not in self._claims.get(webrtc_id, ()):
                continue  # it has ended meanwhile
            holder = await self._ask(lambda: self._directory.claim(webrtc_id, session_id))  # noqa: B023
            if holder is None:
                return False
            if holder != session_id:
                logger.warning(
                    "session %s is not reached by its client's id any more: a session of another "
                    "process has it, which began while the directory did not know this process",
                    shorten(session_id),
                    event="cluster.id_lost",
                    session_id=shorten(session_id),
                )
        return True

    async def _ask(self, request: Callable[[], Awaitable[T]], wait: float = 0.0) -> T | None:
        """Return the directory's answer; None if there is none in time."""
        try:
            with fail_after(wait + self._deadline):
                answer = await request()
        except Exception as exc:  # directories raise the exceptions of their network
            if self._is_reachable:
                logger.warning(
                    "the directory of the cluster does not answer: %r",
                    exc,
                    event="cluster.directory_lost",
                )
            self._is_reachable = False
            return None
        if not self._is_reachable:
            logger.info(
                "the directory of the cluster answers again", event="cluster.directory_found"
            )
            self._is_reachable = True
        return answer
