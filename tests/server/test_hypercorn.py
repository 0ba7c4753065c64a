"""Private names of hypercorn: used in one module, and checked on import."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import trio
from anyio.lowlevel import checkpoint
from hypercorn.events import Closed, RawData

import fastrtc_anyio
from fastrtc_anyio.server import _hypercorn
from tests.kit.backends import on_trio

PACKAGE = Path(fastrtc_anyio.__file__).parent
PYPROJECT = Path(__file__).parents[2] / "pyproject.toml"


@pytest.mark.parametrize(
    ("program", "missing"),
    [
        (
            "from hypercorn.config import Config; del Config.create_sockets\n"
            "import fastrtc_anyio.server.launch",
            "Config.create_sockets",
        ),
        (
            "from hypercorn.trio import run; del run.TCPServer\n"
            "from fastrtc_anyio.server._hypercorn import _load_worker; _load_worker(True)",
            "hypercorn.trio.run.TCPServer",
        ),
        (
            "from hypercorn.asyncio.run import TCPServer; del TCPServer.run\n"
            "from fastrtc_anyio.server._hypercorn import _load_worker; _load_worker(False)",
            "TCPServer.run",
        ),
    ],
)
def test_missing_name_is_an_import_error_with_versions(program: str, missing: str) -> None:
    command = [sys.executable, "-O", "-c", program]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert re.search(
        rf"ImportError: hypercorn [\d.]+ has no {re.escape(missing)}; fastrtc_anyio works with "
        r"hypercorn>=0\.18,<0\.19 \(installed: hypercorn [\d.]+\)",
        ended.stderr,
    )


def test_supported_versions_match_pyproject() -> None:
    project = tomllib.loads(PYPROJECT.read_text())["project"]
    (versions,) = _hypercorn.SUPPORTED.values()
    assert f"hypercorn[trio]{versions}" in project["optional-dependencies"]["server"]


def test_hypercorn_is_imported_in_one_module_only() -> None:
    imports = re.compile(r"^\s*(from|import) hypercorn|import_module\(.*hypercorn", re.MULTILINE)
    found = {path.name for path in PACKAGE.rglob("*.py") if imports.search(path.read_text())}
    assert found == {"_hypercorn.py"}


class ShuttingDown:
    """A stream of trio whose end is being sent by another task."""

    async def send_all(self, data: bytes) -> None:
        await checkpoint()
        raise trio.BusyResourceError


class Protocol:
    def __init__(self) -> None:
        self.handled: list[object] = []

    async def handle(self, event: object) -> None:
        await checkpoint()
        self.handled.append(event)


@on_trio
async def test_send_while_the_connection_shuts_down_closes_it() -> None:
    _hypercorn._load_worker(True)
    worker: Any = import_module("hypercorn.trio.run")
    connection = object.__new__(worker.TCPServer)
    connection.stream, connection.send_lock = ShuttingDown(), trio.Lock()
    connection.protocol = Protocol()
    await connection.protocol_send(RawData(b"x"))
    assert connection.protocol.handled == [Closed()]
