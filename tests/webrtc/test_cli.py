"""``python -m fastrtc_anyio serve`` and ``call``, as processes."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import wave
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from fastrtc_anyio.cli.target import TargetError, load_stream

ROOT = Path(__file__).parents[2]
BACKENDS = ["trio", "asyncio"]
PROGRAM = """
from fastrtc_anyio import RtcConfiguration, Stream, WebRTCError
from fastrtc_anyio.server import require_token

async def echo(session):
    async for frame in session.audio_in:
        await session.audio_out.send(frame)

async def hear(session):
    async for frame in session.audio_in:
        pass

async def leave(session):
    pass

def make(handler, **options):
    here = RtcConfiguration(addresses=("127.0.0.1",))
    return Stream(handler, modality="audio", server_rtc_configuration=here, **options)

stream = make(echo)
class streams:
    guarded = make(echo, authenticate=require_token("secret"))
    hearing = make(hear, mode="send")
    leaving = make(leave)
number = 5
"""


@pytest.fixture
def program(tmp_path: Path) -> Path:
    path = tmp_path / "served.py"
    path.write_text(PROGRAM)
    return path


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "fastrtc_anyio", *arguments]


def environment() -> dict[str, str]:
    return {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"}


def run(*arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*arguments),
        capture_output=True,
        text=True,
        timeout=50,
        cwd=cwd,
        env=environment(),
        check=False,
    )


@contextmanager
def serving(target: str, backend: str, cwd: Path) -> Generator[str, None, None]:
    """A served stream's URL; it ends well at Ctrl-C."""
    process = subprocess.Popen(
        command("serve", target, "--port", "0", "--json", "--backend", backend),
        stdout=subprocess.PIPE,
        text=True,
        cwd=cwd,
        env=environment(),
    )
    with process:
        try:
            assert process.stdout is not None
            said = json.loads(process.stdout.readline())
            assert (said["event"], said["modality"]) == ("serving", "audio")
            yield said["url"]
            process.send_signal(signal.SIGINT)
            assert process.wait(20) == 0
        finally:
            process.kill()


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_stream_is_served_and_called(backend: str, program: Path, tmp_path: Path) -> None:
    out = tmp_path / "heard.wav"
    with serving("served:stream", backend, program.parent) as url:
        options = ("--listen", "0.6", "--out", str(out), "--backend", backend)
        done = run("call", url, "--json", *options)
        assert done.returncode == 0, done.stderr
        result = json.loads(done.stdout)
        assert result["ok"] is True
        assert 0 < result["connect_seconds"] < 5
        assert 0 < result["latency"] < 1
        assert result["correlation"] > 0.4  # a busy machine may leave gaps
        assert result["frames"] > 100
        assert result["answer_after"] is None  # it is an echo
        assert result["out"] == str(out)
        assert "heard" in done.stderr
        with wave.open(str(out)) as file:
            assert file.getnframes() > 3 * file.getframerate()

        said = run("call", url, "--listen", "0.6")
        assert "echo after " in said.stdout
        assert "frames lost " in said.stdout


def test_another_wav_and_a_token(program: Path, tmp_path: Path) -> None:
    wav = tmp_path / "said.wav"
    samples = (8000 * np.sin(np.arange(8_000) * 0.3)).astype("<i2")
    with wave.open(str(wav), "wb") as file:
        file.setnchannels(2)
        file.setsampwidth(2)
        file.setframerate(16_000)
        file.writeframes(np.repeat(samples, 2).tobytes())
    with serving(f"{program}:streams.guarded", "trio", ROOT) as url:
        refused = run("call", url, "--json")
        assert refused.returncode == 1
        assert json.loads(refused.stdout)["status"] == 401
        assert "refused the call: 401" in refused.stderr
        options = ("--token", "secret", "--wav", str(wav), "--listen", "0.5", "--json")
        done = run("call", url, *options)
        assert done.returncode == 0, done.stderr
        result = json.loads(done.stdout)
        assert result["said_seconds"] == 0.5
        assert result["first_sound"] is not None


def test_a_stream_that_only_hears(program: Path) -> None:
    with serving("served:streams.hearing", "asyncio", program.parent) as url:
        done = run("call", url, "--listen", "0", "--json")
        assert done.returncode == 0, done.stderr
        assert "heard_seconds" not in json.loads(done.stdout)


def test_a_stream_that_hangs_up(program: Path) -> None:
    with serving("served:streams.leaving", "trio", program.parent) as url:
        done = run("call", url, "--json")
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["ended"] is True


@pytest.mark.parametrize("backend", BACKENDS)
def test_nobody_is_there(backend: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    done = run("call", url, "--json", "--backend", backend)
    assert done.returncode == 1
    assert json.loads(done.stdout)["ok"] is False
    assert f"error: nobody answers at {url}/" in done.stderr
    assert "Traceback" not in done.stderr


def test_what_is_no_stream(program: Path) -> None:
    with serving("served", "trio", program.parent) as url:
        done = run("call", f"{url}/elsewhere")
        assert done.returncode == 1
        assert "there is no stream at" in done.stderr
        assert "404" in done.stderr


@pytest.mark.parametrize("content", [b"", b"rubbish", b"RIFF\0\0\0\0WAVE"])
def test_a_wav_that_is_none(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "said.wav"
    path.write_bytes(content)
    done = run("call", "http://127.0.0.1:9", "--wav", str(path))
    assert done.returncode == 1
    assert f"error: {path} cannot be read as WAV" in done.stderr


def test_a_port_that_is_taken(program: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = run("serve", "served:stream", "--port", port, cwd=program.parent)
    assert done.returncode == 1
    assert f"error: 127.0.0.1:{port} cannot be listened on" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("nosuchmodule:stream", "there is no module nosuchmodule"),
        ("os.nosuch:stream", "there is no module os.nosuch"),
        ("nosuch.py:stream", "there is no file nosuch.py"),
        ("a b:stream", "a target is module:stream"),
        ("", "a target is module:stream"),
        ("served:nosuch", "served has no nosuch; its streams are stream"),
        ("served:streams.nosuch", "served has no streams.nosuch"),
        ("served:number", "served:number is no Stream but of type int"),
        ("json:stream", "json has no stream and no stream at all"),
    ],
)
def test_a_target_that_is_none(
    target: str, message: str, program: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(program.parent)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, "served", raising=False)
    with pytest.raises(TargetError, match=message):
        load_stream(target)


def test_what_a_module_lacks_is_its_own_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "lacking.py").write_text("import nosuchlibrary\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    with pytest.raises(ModuleNotFoundError, match="nosuchlibrary"):
        load_stream("lacking")


def test_wrong_arguments_are_explained() -> None:
    for arguments in (["call"], ["call", "x", "--listen", "long"], ["serve"], []):
        done = run(*arguments)
        assert done.returncode == 2
        assert "usage:" in done.stderr
    served = run("serve", "nosuchmodule:stream")
    assert served.returncode == 2
    assert served.stderr.startswith("error: there is no module")
