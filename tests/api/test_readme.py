"""The README's code runs, and its commands, files, reasons and defaults exist."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import anyio
import pytest

from fastrtc_anyio import AudioFrame, CloseReason, Limits, RequestLimits, StreamHandlerBase
from fastrtc_anyio.testing import open_call, tone

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
COMMANDS = re.findall(r"```sh\n(.*?)```", README, re.DOTALL)


def run_handler_block() -> dict[str, Any]:
    (block,) = [b for b in BLOCKS if "class Echo" in b]
    code, launch = block.rsplit("\n\n", 1)
    assert launch.startswith("Stream(Echo, ")
    namespace: dict[str, Any] = {}
    exec(code, namespace)
    namespace["stream"] = eval(launch.strip().removesuffix(".launch()"), namespace)
    return namespace


async def test_handler_echoes_audio() -> None:
    handler: StreamHandlerBase = run_handler_block()["Echo"]()
    async with open_call(handler) as call:
        for _ in range(50):
            call.client.send_audio(AudioFrame(48_000, tone(440, 48_000, 0.02)))
            await anyio.sleep(0.02)
        await anyio.sleep(1)
    assert any(frame.any() for frame in call.client.heard)


async def test_test_passes() -> None:
    namespace = run_handler_block()
    (block,) = [b for b in BLOCKS if "async def test_echo" in b]
    exec(block, namespace)
    await namespace["test_echo"](open_call)


def test_ci_runs_the_test_command() -> None:
    _, test, *_ = COMMANDS
    assert test.strip() in (ROOT / ".ci" / "run").read_text()


@pytest.mark.parametrize(
    "path", sorted(set(re.findall(r"`((?:tests|fastrtc_anyio|examples)/[\w/.]+)`", README)))
)
def test_named_files_exist(path: str) -> None:
    assert (ROOT / path).exists()


def test_close_reasons_exist() -> None:
    named = set(re.findall(r"\| `([A-Z_]+)` \|", README))
    assert named
    assert named <= {reason.name for reason in CloseReason}


@pytest.mark.parametrize("settings", [Limits(), RequestLimits()])
def test_every_limit_is_listed_with_its_default(settings: Limits | RequestLimits) -> None:
    text = README.replace("\n", " ").replace("_", "")
    for field in fields(settings):
        assert f"{field.name}={getattr(settings, field.name)}".replace("_", "") in text
