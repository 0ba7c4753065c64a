"""The demo as a process, and the comparison of recordings that it relies on."""

from __future__ import annotations

import re
import subprocess
import sys
import wave
from pathlib import Path

import numpy as np
import pytest

from fastrtc_anyio._cli.client import SAMPLE_RATE
from fastrtc_anyio._cli.demo import draw
from fastrtc_anyio._cli.measure import compare, find_delays
from fastrtc_anyio._cli.wav import write_wav
from fastrtc_anyio.testing import speech_like
from tests.kit.measure import measure_until


@pytest.mark.timeout(180)
@pytest.mark.parametrize("backend", ["trio", "asyncio"])
def test_demo_prints_measurements_of_its_call(backend: str, tmp_path: Path) -> None:
    out = tmp_path / "echo.wav"
    command = [sys.executable, "-m", "fastrtc_anyio", "demo", "--backend", backend]

    def run() -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*command, "--out", str(out), "--picture", str(tmp_path / "echo.png")],
            capture_output=True,
            text=True,
            timeout=50,
            cwd=Path(__file__).parents[2],
            check=False,
        )

    done = measure_until(lambda done: done.returncode == 0, run)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"served under {backend}" in done.stdout
    assert re.search(r"connected in \d+ ms", done.stdout)
    assert re.search(r"round-trip latency +\d+ ms", done.stdout)
    assert re.search(r"frames lost +\d+ of \d\d\d", done.stdout)
    assert re.search(r"correlation +0\.9\d\d", done.stdout)
    assert "demo --serve" in done.stdout
    with wave.open(str(out)) as file:
        assert file.getnframes() > 3 * file.getframerate()
    assert "picture of both" in done.stdout
    assert (tmp_path / "echo.png").read_bytes().startswith(b"\x89PNG")


@pytest.fixture
def echo_wav(tmp_path: Path) -> Path:
    write_wav(tmp_path / "echo.wav", speech_like(SAMPLE_RATE, 1.0), SAMPLE_RATE)
    return tmp_path / "echo.wav"


def test_demo_without_matplotlib_says_how_to_install_it(
    echo_wav: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    draw(echo_wav, echo_wav.with_suffix(".png"))
    assert "pip install 'fastrtc-anyio[demo]'" in capsys.readouterr().out


def test_demo_reports_a_picture_that_cannot_be_written(
    echo_wav: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    draw(echo_wav, echo_wav.parent / "nosuch" / "echo.png")
    assert "cannot be written: No such file or directory" in capsys.readouterr().out


def test_delays_of_pieces_follow_a_gap() -> None:
    sent = speech_like(16_000, 4.0)[0]
    gap = np.zeros(800, np.int16)
    found = find_delays(sent, np.concatenate([sent[:32_000], gap, sent[32_000:]]), 16_000)
    assert set(found.lags[found.times < 1.8]) == {0.0}
    assert set(found.lags[found.times > 2.2]) == {0.05}


def test_compare_finds_delay_and_correlation() -> None:
    sent = speech_like(16_000, 2.0)[0]
    returned = np.concatenate([np.zeros(1234, np.int16), sent // 2])
    found = compare(sent, returned, 16_000)
    assert found.lag == 1234 / 16_000
    assert found.correlation > 0.999
    assert abs(compare(sent, speech_like(16_000, 2.0, seed=7)[0], 16_000).correlation) < 0.3
    assert compare(sent, np.zeros(5000, np.int16), 16_000).correlation == 0


def test_gap_in_response_keeps_lag_and_correlation() -> None:
    sent = speech_like(16_000, 4.0)[0]
    gap = np.zeros(800, np.int16)
    returned = np.concatenate([np.zeros(160, np.int16), sent[:41_000], gap, sent[41_000:]])
    found = compare(sent, returned, 16_000)
    assert found.lag == 0.01
    assert found.correlation > 0.999


@pytest.mark.filterwarnings("error")
def test_late_answer_is_not_an_echo() -> None:
    sent = speech_like(16_000, 2.0)[0]
    for silence in (3.9, 4.3, 6.0):
        late = np.concatenate([np.zeros(round(silence * 16_000), np.int16), sent])
        assert compare(sent, late, 16_000).correlation < 0.5  # and not NaN


def test_compare_accepts_recordings_of_any_length() -> None:
    sent = speech_like(16_000, 2.0)[0]
    for size in (0, 1, 100, 5000):
        assert compare(sent[:0], sent[:size], 16_000).correlation == 0
    assert compare(sent[:1000], sent, 16_000).correlation > 0.999
    assert compare(sent, sent[:1000], 16_000).correlation < 0.5
    long = np.tile(sent, 20)
    assert compare(long, long, 16_000).correlation > 0.999
