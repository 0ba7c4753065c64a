from __future__ import annotations

import os
import wave
from collections.abc import AsyncGenerator
from pathlib import Path

import numpy as np
import pytest

from fastrtc_anyio import _cli
from fastrtc_anyio._media.resample import StreamResampler
from tests.kit.backends import anyio_backend as anyio_backend

from .chromium import Browser, check_chromium, open_browser
from .node import check_node
from .pictures import write_camera

RATE = 48_000


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """With ``--dist loadgroup`` no two browsers run at once, nor two tests of a file."""
    for item in items:
        browsers = {"chromium", "firefox"}.intersection(getattr(item, "fixturenames", ()))
        group = "browsers" if browsers else item.path.stem
        item.add_marker(pytest.mark.xdist_group(group))


@pytest.fixture(scope="session")
def node() -> str:
    """The Node that has libwebrtc beside it. Missing, it is a failure."""
    return check_node()


@pytest.fixture(scope="session")
def chromium() -> str:
    """The browser. Missing, it is a failure."""
    return check_chromium()


@pytest.fixture(scope="session")
def speech(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo's speech as a browser takes it for a microphone."""
    with wave.open(str(Path(_cli.__file__).with_name("speech.wav"))) as file:
        rate = file.getframerate()
        samples = np.frombuffer(file.readframes(file.getnframes()), np.int16)[np.newaxis]
    resampler = StreamResampler(rate, RATE, 1)
    samples = np.concatenate([resampler.push(samples), resampler.flush()], axis=1)
    path = tmp_path_factory.mktemp("microphone") / "speech.wav"
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes(samples.tobytes())
    return path


@pytest.fixture(scope="session")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a browser's camera sees: the pictures that tests can read."""
    path = tmp_path_factory.mktemp("camera") / "scene.y4m"
    write_camera(path)
    return path


@pytest.fixture
async def browser(chromium: str, speech: Path, scene: Path) -> AsyncGenerator[Browser, None]:
    async with open_browser(chromium, speech, scene) as browser:
        yield browser


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Where pictures of the page go."""
    folder = Path(os.environ.get("FASTRTC_SCREENSHOTS") or tmp_path)
    folder.mkdir(parents=True, exist_ok=True)
    return folder
