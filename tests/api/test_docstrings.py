"""Every example in a docstring runs, with the names that its text introduces."""

from __future__ import annotations

import itertools
import re
import textwrap
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import numpy as np
import pytest

import fastrtc_anyio
from fastrtc_anyio import AsyncStreamHandler, Stream, errors, run_sync
from fastrtc_anyio.audio import async_aggregate_bytes_to_16bit
from fastrtc_anyio.testing import open_call, tone
from fastrtc_anyio.testing.faults import faulty, inject_fault
from tests.kit.documentation import ROOT, docstring_examples
from tests.testing.test_plugin import HANDLER, Run

EXAMPLES = {str(example): example for example in docstring_examples(ROOT / "fastrtc_anyio")}
TREE = "fastrtc_anyio.errors"
TESTS = ("fastrtc_anyio.testing.pytest_plugin", "fastrtc_anyio.testing.strategies")
PROGRAMS = sorted(EXAMPLES.keys() - {TREE, *TESTS})


class MyHandler(AsyncStreamHandler):
    async def receive(self, frame: object) -> None:
        await anyio.lowlevel.checkpoint()

    async def emit(self) -> None:
        await anyio.sleep(0.02)

    def copy(self) -> MyHandler:
        return MyHandler()


class Response:
    async def aiter_bytes(self) -> AsyncGenerator[bytes, None]:
        for chunk in (b"\0", b"\1\2", b"\3"):
            yield chunk


class Model:
    def stt(self, audio: object) -> str:
        return "hello"

    async def stream_tts(self, text: str) -> AsyncGenerator[tuple[int, Any], None]:
        yield 24_000, np.zeros((1, 480), np.int16)


NAMES = {
    "AsyncStreamHandler": AsyncStreamHandler,
    "MyHandler": MyHandler,
    "Stream": Stream,
    "aclosing": aclosing,
    "answer": "hello",
    "anyio": anyio,
    "async_aggregate_bytes_to_16bit": async_aggregate_bytes_to_16bit,
    "audio": (16_000, np.zeros((1, 160), np.int16)),
    "everything_is_released": lambda: True,
    "faulty": faulty,
    "inject_fault": inject_fault,
    "itertools": itertools,
    "model": Model(),
    "open_call": open_call,
    "response": Response(),
    "run_sync": run_sync,
    "suppress": suppress,
    "tone": tone,
}


@pytest.mark.parametrize("name", PROGRAMS)
async def test_example_runs(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    launched: list[Stream] = []
    monkeypatch.setattr(Stream, "launch", lambda stream: launched.append(stream))
    # The package's example leaves the methods of its handler to the reader.
    monkeypatch.setattr(AsyncStreamHandler, "__abstractmethods__", frozenset())
    names = dict(NAMES)
    body = textwrap.indent(EXAMPLES[name].text, "    ")
    exec(f"async def example():\n{body}", names)
    example: Any = names["example"]
    await example()
    assert bool(launched) == (name == fastrtc_anyio.__name__)


@pytest.mark.parametrize("name", TESTS)
def test_example_of_a_test_passes(name: str, tmp_path: Path) -> None:
    run = Run(tmp_path, f"{HANDLER}\nMyHandler = Echo\n\n{EXAMPLES[name].text}")
    assert set(run.outcomes.values()) == {"PASSED"}, run.output


def test_tree_of_errors_is_complete() -> None:
    """Names are indented below their bases, and some have a status."""
    text = EXAMPLES[TREE].text
    assert set(re.findall(r"\b[A-Z]\w*[a-z]\w*", text)) == {
        name
        for name in errors.__all__
        if isinstance(getattr(errors, name), type) and issubclass(getattr(errors, name), Exception)
    }
    parents: dict[int, type] = {}
    for line in text.rstrip().splitlines():
        depth = len(line) - len(line.lstrip())
        names, *also = line.split(" also a ")
        for found, status in re.findall(r"\b([A-Z]\w*[a-z]\w*)(?: (\d{3})\b(?! or|,))?", names):
            cls = getattr(errors, found)
            bases = [parents.get(depth - 2, Exception), *(getattr(errors, name) for name in also)]
            assert all(issubclass(cls, base) for base in bases), found
            parents[depth] = cls
            assert not status or cls.status_hint == int(status), found
