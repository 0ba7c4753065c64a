"""Import the examples as modules."""

from __future__ import annotations

import importlib.util
from functools import partialmethod
from pathlib import Path
from typing import Any
from unittest.mock import patch

from fastrtc_anyio import Stream
from tests.kit.calls import LOOPBACK

EXAMPLES = Path(__file__).parents[2] / "examples"
NAMES = sorted(path.stem for path in EXAMPLES.glob("*.py"))
WITHOUT_STREAM = ("fake_chat_completions", "fake_realtime", "turn_benchmark")
"""Servers of other examples, and programs that measure and end."""
NEEDS_RAY = ("ray_calls",)
"""Applications of Ray Serve: tests/ray."""
NEEDS_ESPEAK = ("llm_agent", "stop_words", "voice_agent")
"""Their programs need espeak-ng: tests/interop/test_voice_agents.py."""


def load(name: str) -> Any:
    """Import an example as a new module, with its stream on the loopback interface."""
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    on_loopback = partialmethod(Stream.__init__, server_rtc_configuration=LOOPBACK)
    with patch.object(Stream, "__init__", on_loopback):
        spec.loader.exec_module(module)
    return module
