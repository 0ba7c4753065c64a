"""Importing the package loads no event loop, codec or web framework."""

from __future__ import annotations

import json
import subprocess
import sys
from types import ModuleType
from typing import Any

import fastrtc_anyio

# A handler that runs under trio does not need asyncio and its libraries, and vice versa.
LOADED_ON_FIRST_USE = {
    "aiortc",
    "asyncio",
    "av",
    "h11",
    "onnxruntime",
    "opentelemetry",
    "prometheus_client",
    "starlette",
    "trio",
    "wsproto",
}


def run_python(program: str) -> Any:
    """Run a program in a separate interpreter, and decode the JSON that it prints."""
    finished = subprocess.run(
        [sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, timeout=50
    )
    assert finished.returncode == 0, finished.stderr
    return json.loads(finished.stdout)


def test_import_loads_no_event_loop_and_no_media_library() -> None:
    loaded = run_python("import fastrtc_anyio, json, sys; print(json.dumps(sorted(sys.modules)))")
    assert "fastrtc_anyio" in loaded
    assert LOADED_ON_FIRST_USE & set(loaded) == set()


def test_import_of_observability_loads_no_library_of_metrics_or_spans() -> None:
    loaded = run_python(
        "import fastrtc_anyio.observability, json, sys; print(json.dumps(sorted(sys.modules)))"
    )
    assert LOADED_ON_FIRST_USE & set(loaded) == set()


def test_dir_loads_no_event_loop_and_no_media_library() -> None:
    loaded = run_python(
        "import fastrtc_anyio, json, sys; dir(fastrtc_anyio);print(json.dumps(sorted(sys.modules)))"
    )
    assert LOADED_ON_FIRST_USE & set(loaded) == set()


def test_every_public_attribute_is_exported() -> None:
    public = {
        name
        for name, value in vars(fastrtc_anyio).items()
        if not name.startswith("_") and not isinstance(value, ModuleType) and name != "annotations"
    }
    assert public - set(fastrtc_anyio.__all__) == set()
