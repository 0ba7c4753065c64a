"""Private names of aiortc and aioice: written in one module each, and checked on import."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest

import fastrtc_anyio
from fastrtc_anyio._peers.webrtc import internals

PACKAGE = Path(fastrtc_anyio.__file__).parent
PYPROJECT = Path(__file__).parents[2] / "pyproject.toml"
INTERNALS = sorted((PACKAGE / "_peers/webrtc").glob("*internals.py"))
MODULES = [import_module(f"fastrtc_anyio._peers.webrtc.{path.stem}") for path in INTERNALS]
_COMMON = {"_queue"}
"""Names that this package uses for something else, too."""
REQUIRED = [names for module in MODULES for names in module.REQUIRED.values()]
PRIVATE = {
    name.rpartition(".")[2] for names in REQUIRED for name in names if name[0] == "_"
} - _COMMON
MANGLED = re.compile(r"_(RTC\w*|Vp8\w*|H264\w*)__\w+")


def private_names(path: Path) -> Iterator[str]:
    """Yield the private names of aiortc and aioice in a module, except attributes of ``self``."""
    for node in ast.walk(ast.parse(path.read_text())):
        match node:
            case ast.Attribute(value=ast.Name(id="self")):
                continue
            case ast.Attribute(attr=name) | ast.Constant(value=str(name)):
                if name in PRIVATE or MANGLED.fullmatch(name):
                    yield f"{path.name}:{node.lineno}: {name}"


def test_private_names_are_written_in_internals_only() -> None:
    assert all(len(list(private_names(path))) > 10 for path in INTERNALS)
    others = set(PACKAGE.rglob("*.py")) - set(INTERNALS)
    assert [found for path in sorted(others) for found in private_names(path)] == []


@pytest.mark.parametrize(
    ("change", "missing"),
    [
        ("from aioice import ice; del ice.get_host_addresses", "aioice.ice.get_host_addresses"),
        (
            "from aiortc import RTCSctpTransport as T; del T._receive_data_chunk",
            "RTCSctpTransport._receive_data_chunk",
        ),
        (
            "from aiortc import RTCRtpReceiver as R; R.__init__ = lambda self: None",
            "RTCRtpReceiver.__remote_streams",
        ),
        (
            "from aiortc import RTCRtpReceiver as R; R._handle_rtp_packet = lambda self: None",
            "RTCRtpReceiver._handle_rtp_packet._data",
        ),
    ],
)
def test_missing_private_name_is_an_import_error_with_versions(change: str, missing: str) -> None:
    program = f"{change}\nimport fastrtc_anyio._peers.webrtc"
    # -O, under which assertions do not run.
    command = [sys.executable, "-O", "-c", program]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert re.search(
        rf"ImportError: aio\w+ [\d.]+ has no {re.escape(missing)}; fastrtc_anyio works with "
        r"aiortc>=1\.16,<1\.17 and aioice>=0\.13,<0\.14 \(installed: aiortc [\d.]+, aioice [\d.]+",
        ended.stderr,
    )


def test_supported_versions_are_those_of_the_project() -> None:
    project = tomllib.loads(PYPROJECT.read_text())["project"]
    for name, versions in internals.SUPPORTED.items():
        assert f"{name}{versions}" in project["dependencies"]
