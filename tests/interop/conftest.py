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
from .likeness import read_wav, write_wav
from .node import check_node
from .pictures import write_camera

RATE = 48_000
PORTS = ("test_deploying", "test_documentation", "test_first_try", "test_programs")


@pytest.hookimpl(tryfirst=True)  # before xdist reads the marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """With ``--dist loadgroup``, run one browser test at a time, and one test per other file.

    The programs of the documentation share the ports that they name.
    """
    for item in items:
        browsers = {"chromium", "firefox"}.intersection(getattr(item, "fixturenames", ()))
        group = "browsers" if browsers else "ports" if item.path.stem in PORTS else item.path.stem
        item.add_marker(pytest.mark.xdist_group(group))


@pytest.fixture(scope="session")
def node() -> str:
    """Path of Node; fails without Node or its libwebrtc package."""
    return check_node()


@pytest.fixture(scope="session")
def chromium() -> str:
    """Path of Chromium; fails without it."""
    return check_chromium()


@pytest.fixture(scope="session")
def speech(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo's speech as a WAV file for a browser's fake microphone."""
    with wave.open(str(Path(_cli.__file__).with_name("speech.wav"))) as file:
        rate = file.getframerate()
        samples = np.frombuffer(file.readframes(file.getnframes()), np.int16)[np.newaxis]
    resampler = StreamResampler(rate, RATE, 1)
    samples = np.concatenate([resampler.push(samples), resampler.flush()], axis=1)
    return write_wav(tmp_path_factory.mktemp("microphone") / "speech.wav", samples)


@pytest.fixture(scope="session")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Numbered pictures as a Y4M file for a browser's fake camera."""
    path = tmp_path_factory.mktemp("camera") / "scene.y4m"
    write_camera(path)
    return path


@pytest.fixture
async def browser(chromium: str, speech: Path, scene: Path) -> AsyncGenerator[Browser, None]:
    async with open_browser(chromium, speech, scene) as browser:
        yield browser


@pytest.fixture
async def talker(chromium: str, speech: Path, tmp_path: Path) -> AsyncGenerator[Browser, None]:
    """A browser whose microphone repeats an utterance and a pause."""
    spoken = read_wav(speech)[np.newaxis, : RATE * 3 // 2]
    silence = np.zeros((1, 4 * RATE), np.int16)
    wav = write_wav(tmp_path / "turns.wav", np.concatenate([spoken, silence], axis=1))
    async with open_browser(chromium, wav, None) as browser:
        yield browser


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Folder for screenshots of the page."""
    folder = Path(os.environ.get("FASTRTC_SCREENSHOTS") or tmp_path)
    folder.mkdir(parents=True, exist_ok=True)
    return folder
