"""A Ray cluster of one node on the loopback interface, and the replicas of one application."""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

import anyio
import httpx
from anyio import to_thread

from tests.kit.served import is_running
from tests.workers.program import TOKEN

ROOT = str(Path(__file__).parents[2])
SECONDS = 60.0
"""Deadline for replicas to start or to stop, on a busy machine."""


class Serving:
    """Ray Serve, and the one application that it runs.

    Attributes:
        url: of its proxy.
        folder: of modules that the replicas can import.
        version: change it, and the next deployment is a new version.
        deployed: what the tests have deployed last.
    """

    def __init__(self, url: str, folder: Path) -> None:
        self.url = url
        self.folder = folder
        self.version = ""
        self.deployed: object = None

    def client(self) -> httpx.AsyncClient:
        """A client that opens a connection for each request."""
        access = {"Authorization": f"Bearer {TOKEN}"}
        limits = httpx.Limits(max_keepalive_connections=0)
        return httpx.AsyncClient(base_url=self.url, headers=access, limits=limits, timeout=20)

    async def deploy(self, args: dict[str, Any], **options: Any) -> None:
        """Deploy ``program.py``. Return before the replicas are as the configuration says.

        Args:
            args: of ``deployment``.
            options: of the deployment in the configuration.
        """
        application = {
            "name": "calls",
            "route_prefix": "/",
            "import_path": "tests.ray.program:app",
            "args": args,
            "deployments": [{"name": "calls", **options}],
        }
        await self.deploy_config({"applications": [application]})

    async def deploy_config(self, config: dict[str, Any]) -> None:
        """Deploy a configuration, with smaller replicas."""
        for deployment in config["applications"][0]["deployments"]:
            environment = {"env_vars": {"VERSION": self.version}}
            deployment["ray_actor_options"] = {"num_cpus": 0.2, "runtime_env": environment}
        await to_thread.run_sync(_deploy, config)

    async def replicas(self, state: str = "RUNNING") -> dict[str, int]:
        """Return the processes of the replicas in a state, by their ids."""
        found = await to_thread.run_sync(_describe)
        # Serve's description of a replica may lack its process at first.
        known = [one for one in found if one["state"] == state and one.get("pid")]
        return {one["replica_id"]: one["pid"] for one in known}

    async def wait_running(self, count: int, *, without: object = ()) -> dict[str, int]:
        """Wait until so many replicas run, and none of those to leave."""
        with anyio.fail_after(SECONDS):
            while True:
                running = await self.replicas()
                ready = len(running) == count and not running.keys() & set(without)  # type: ignore[call-overload]
                if ready and not await self.replicas("STARTING"):
                    return running
                await anyio.sleep(0.1)

    async def wait_gone(self, pid: int) -> float:
        """Wait until a process has ended, and return the seconds."""
        began = time.monotonic()
        with anyio.fail_after(SECONDS):
            while is_running(pid):
                await anyio.sleep(0.02)
        return time.monotonic() - began


def _deploy(config: dict[str, Any]) -> None:
    # `serve deploy` sends the same to the dashboard, which does not run here.
    from ray.serve.context import _get_global_client
    from ray.serve.schema import ServeDeploySchema

    client = _get_global_client()
    assert client is not None
    client.deploy_apps(ServeDeploySchema.model_validate(config))


def _describe() -> list[dict[str, Any]]:
    from ray.serve.context import _get_global_client

    client = _get_global_client()
    assert client is not None
    applications: dict[str, Any] = client.get_serve_details()["applications"]
    deployments = applications.get("calls", {}).get("deployments", {})
    found: list[dict[str, Any]] = deployments.get("calls", {}).get("replicas", [])
    return found


@contextmanager
def serve() -> Generator[Serving, None, None]:
    """Run Ray and Serve."""
    import ray
    from ray import serve

    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
    with TemporaryDirectory() as folder, patch.dict(os.environ, OPENBLAS_NUM_THREADS="1"):
        os.environ["PYTHONPATH"] = os.pathsep.join((ROOT, f"{ROOT}/examples", folder))
        os.environ["RAY_AUTH_MODE"] = "disabled"  # it would leave a file in the home directory
        ray.init(
            num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR
        )
        try:
            serve.start(http_options={"host": "127.0.0.1", "port": port})
            yield Serving(f"http://127.0.0.1:{port}", Path(folder))
            serve.shutdown()  # type: ignore[no-untyped-call]
        finally:
            ray.shutdown()
