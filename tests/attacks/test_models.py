"""Frames of a call keep arriving while any shipped model is loaded and works in the process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest

from fastrtc_anyio.speech.loaders import STTModelName, TTSModelName
from tests.kit.freezing import NOT_INSTALLED, WORK
from tests.kit.gaps import ATTEMPTS, LIMIT

ROOT = Path(__file__).parents[2]


@pytest.mark.alone
@pytest.mark.parametrize("name", WORK)
def test_call_goes_on_while_model_works(name: str) -> None:
    gaps: list[tuple[float, float]] = []
    for _ in range(ATTEMPTS):
        done = subprocess.run(
            [sys.executable, "-m", "tests.kit.freezing", name],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode == NOT_INSTALLED:
            pytest.skip(done.stderr.strip())
        assert done.returncode == 0, done.stderr
        with_model, without_model = map(float, done.stdout.split())
        print(f"{name}: gap {with_model * 1000:.0f} ms, without it {without_model * 1000:.0f} ms")
        if with_model < without_model + LIMIT:
            return
        gaps.append((with_model, without_model))
    pytest.fail(f"gaps in seconds, with and without the model: {gaps}")


def test_every_shipped_model_is_tested() -> None:
    names = {name.partition(",")[0] for name in WORK}
    recognisers = {name for part in get_args(STTModelName) for name in (get_args(part) or (part,))}
    assert names == {*recognisers, *get_args(TTSModelName), "silero", "energy"}
