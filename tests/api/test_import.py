"""What `import fastrtc_anyio` costs and offers."""

from __future__ import annotations

import json
import subprocess
import sys
from types import ModuleType
from typing import Any

import fastrtc_anyio

# A handler that runs under trio needs none of asyncio and its libraries, and the other way round.
LOADED_ON_FIRST_USE = {
    "aiortc",
    "asyncio",
    "av",
    "hypercorn",
    "onnxruntime",
    "starlette",
    "trio",
}


def run_python(program: str) -> Any:
    """What a program prints as JSON, in an interpreter of its own."""
    finished = subprocess.run(
        [sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, timeout=50
    )
    assert finished.returncode == 0, finished.stderr
    return json.loads(finished.stdout)


def test_import_loads_no_event_loop_and_no_media_library() -> None:
    loaded = run_python("import fastrtc_anyio, json, sys; print(json.dumps(sorted(sys.modules)))")
    assert "fastrtc_anyio" in loaded
    assert LOADED_ON_FIRST_USE & set(loaded) == set()


def test_listing_the_package_loads_nothing_either() -> None:
    loaded = run_python(
        "import fastrtc_anyio, json, sys; dir(fastrtc_anyio);print(json.dumps(sorted(sys.modules)))"
    )
    assert LOADED_ON_FIRST_USE & set(loaded) == set()


def test_every_exported_name_resolves() -> None:
    # Some may be attributes that load on first use, hence getattr.
    missing = [name for name in fastrtc_anyio.__all__ if not hasattr(fastrtc_anyio, name)]
    assert missing == []


def test_exports_are_sorted_and_named_once() -> None:
    exported = list(fastrtc_anyio.__all__)
    assert exported == sorted(set(exported))


def test_every_public_attribute_is_exported() -> None:
    public = {
        name
        for name, value in vars(fastrtc_anyio).items()
        if not name.startswith("_") and not isinstance(value, ModuleType) and name != "annotations"
    }
    assert public - set(fastrtc_anyio.__all__) == set()
