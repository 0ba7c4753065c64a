"""The class whose instances are the replicas of a Ray Serve deployment."""

from __future__ import annotations

import secrets
import sys
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager

from starlette.types import ASGIApp

from fastrtc_anyio.server.launch import SWITCH_INTERVAL
from fastrtc_anyio.stream import Stream

from ._app_thread import AppThread
from ._process import Built, Process
from ._ray_directory import RayDirectory
from ._serve_internals import find_stopping

__all__ = ["Replica"]


class Replica:
    """The class of the deployment.

    Serve calls its methods, on an event loop of its own. The stream runs in another thread.
    """

    def __init__(self, build: Callable[[], Built], drain_timeout: float, backend: str) -> None:
        import ray
        from ray import serve

        context = serve.get_replica_context()
        self._directory = context.app_name
        name = f"{context.replica_tag}-{secrets.token_hex(2)}"
        host: str = ray.util.get_node_ip_address()  # type: ignore[no-untyped-call]
        self._process = Process(build, name, host, drain_timeout, find_stopping())
        self._streams: list[Stream] = []
        self._thread = AppThread(self._open, backend)

    @asynccontextmanager
    async def _open(self) -> AsyncGenerator[ASGIApp, None]:
        sys.setswitchinterval(min(sys.getswitchinterval(), SWITCH_INTERVAL))
        directory = RayDirectory(self._directory)
        secret = await directory.read_secret()
        async with self._process.open(directory, secret, self._streams) as app:
            yield app

    async def __serve_build_asgi_app__(self) -> ASGIApp:
        # Here, and not in the lifespan, so that Serve shows the error of a build that fails.
        await self._thread.start()
        return self._thread

    async def check_health(self) -> None:
        """Raise an error if the stream does not run any more. Serve replaces the replica then."""
        await self._thread.check()

    async def record_autoscaling_stats(self) -> dict[str, float]:
        """Return the numbers that the policy of the autoscaler reads."""
        return {"sessions": float(sum(stream.active for stream in self._streams))}
