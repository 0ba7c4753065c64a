"""Every example runs, on both backends."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import anyio
import numpy as np
import pytest

from fastrtc_anyio import AudioFrame, Stream
from fastrtc_anyio.testing import open_call, tone

EXAMPLES = Path(__file__).parents[1] / "examples"


def load(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_example_has_a_test() -> None:
    here = Path(__file__).read_text()
    for path in EXAMPLES.glob("*.py"):
        assert f'load("{path.stem}")' in here, path.name


async def test_echo() -> None:
    example = load("echo")
    assert isinstance(example.stream, Stream)
    async with open_call(example.Echo()) as call:
        for _ in range(50):
            call.client.send_audio(AudioFrame(48_000, tone(400, 48_000, 0.02)))
            await anyio.sleep(0.02)
    heard = np.concatenate(call.client.heard, axis=1)
    assert np.count_nonzero(heard) > 0.9 * 24_000


@pytest.mark.parametrize("example", sorted(path.stem for path in EXAMPLES.glob("*.py")))
def test_examples_have_a_docstring_and_a_main(example: str) -> None:
    text = (EXAMPLES / f"{example}.py").read_text()
    assert text.startswith('"""')
    assert 'if __name__ == "__main__":' in text
