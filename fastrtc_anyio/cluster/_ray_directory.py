"""A directory in an actor of Ray."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, TypeVar, cast

import anyio
from anyio import get_cancelled_exc_class

from fastrtc_anyio._core.host import Host
from fastrtc_anyio._core.options import check_type
from fastrtc_anyio.resumption import SessionStore

from .directory import Location, MemoryDirectory, SessionDirectory

if TYPE_CHECKING:  # installed by the extra `ray`
    from ray import ObjectRef
    from ray.actor import ActorHandle

__all__ = ["NAMESPACE", "RayDirectory"]

NAMESPACE = "fastrtc-anyio"
_PREFIX = "directory-1"
"""Of an actor's name, with the version of its methods."""
_REQUESTS = 10_000
"""Requests at a time: finders wait."""

T = TypeVar("T")


class _Actor(MemoryDirectory):
    """The directory in its process."""

    def __init__(self, secret: str) -> None:
        super().__init__()
        self._secret = secret

    async def read_secret(self) -> str:
        return self._secret


class RayDirectory(SessionDirectory, SessionStore):
    """A directory in an actor, which all processes of a Ray cluster reach, and a store.

    The first process creates the actor. It needs no CPU, outlives the job, and is restarted if its
    process or its node fails; the members of the cluster then repeat their claims. What sessions
    have saved is in its memory, and lost until they save again. It stays until
    it is killed: ``ray.kill(ray.get_actor("directory-1-calls", namespace="fastrtc-anyio"))``.

    The methods work under trio and asyncio. They raise the exceptions of Ray if the actor cannot be
    reached.

    Args:
        name: of the directory, such as that of the application. Each has an actor of its own.

    Raises:
        ImportError: Ray is not installed.
    """

    def __init__(self, name: str) -> None:
        check_type("name", name, str)
        try:
            import ray
        except ImportError as exc:
            raise ImportError(
                f"RayDirectory needs Ray: pip install 'fastrtc-anyio[ray]' ({exc})"
            ) from exc
        # A restarted actor is created with the same secret.
        options = ray.remote(_Actor).options(
            name=f"{_PREFIX}-{name}",
            namespace=NAMESPACE,
            get_if_exists=True,
            lifetime="detached",
            max_restarts=-1,
            max_concurrency=_REQUESTS,
            num_cpus=0,
        )
        actor = options.remote(secrets.token_urlsafe(32))
        self._actor = cast("ActorHandle[_Actor]", actor)

    async def read_secret(self) -> str:
        """Return a secret of the processes that use this directory, for their :class:`Switchboard`.

        It waits for the actor, which takes some seconds to start.
        """
        return await _wait(self._actor.read_secret.remote())

    async def join(self, owner: str, address: str) -> bool:
        return await _wait(self._actor.join.remote(owner, address))

    async def leave(self, owner: str) -> None:
        await _wait(self._actor.leave.remote(owner))

    async def list_processes(self) -> list[Location]:
        return await _wait(self._actor.list_processes.remote())

    async def claim(self, webrtc_id: str, session_id: str) -> str | None:
        return await _wait(self._actor.claim.remote(webrtc_id, session_id))

    async def release(self, webrtc_id: str, session_id: str) -> None:
        await _wait(self._actor.release.remote(webrtc_id, session_id))

    async def find(self, name: str, wait: float = 0.0) -> Location | None:
        return await _wait(self._actor.find.remote(name, wait))

    async def save(self, key: str, value: bytes, lifetime: float) -> bool:
        return await _wait(self._actor.save.remote(key, value, lifetime))

    async def take(self, key: str) -> bytes | None:
        return await _wait(self._actor.take.remote(key))

    async def delete(self, key: str) -> None:
        await _wait(self._actor.delete.remote(key))


async def _wait(reference: ObjectRef[T]) -> T:
    """Return the result of a call, on any event loop. Cancellation cancels the call."""
    host, done = Host(), anyio.Event()
    future = reference.future()
    future.add_done_callback(lambda _: host.post(done.set))
    try:
        await done.wait()
    except get_cancelled_exc_class():
        import ray

        ray.cancel(reference)
        raise
    return future.result()
