"""``python -m fastrtc_anyio serve`` and ``call``, as processes."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import socket
import subprocess
import sys
import wave
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import pytest

from fastrtc_anyio._cli.main import main
from fastrtc_anyio._cli.target import TargetError, load_stream
from tests.kit.measure import measure_until

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

async def fail(session):
    raise WebRTCError("no train today")

def make(handler, **options):
    here = RtcConfiguration(addresses=("127.0.0.1",))
    return Stream(handler, modality="audio", server_rtc_configuration=here, **options)

stream = make(echo)
class streams:
    guarded = make(echo, authenticate=require_token("secret"))
    hearing = make(hear, mode="send")
    leaving = make(leave)
    failing = make(fail)
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


@pytest.mark.timeout(240)  # a call takes 6 s, and is placed up to four times
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_stream_is_served_and_called(backend: str, program: Path, tmp_path: Path) -> None:
    out = tmp_path / "heard.wav"
    with serving("served:stream", backend, program.parent) as url:
        options = ("--listen", "0.6", "--out", str(out), "--backend", backend)

        def call() -> subprocess.CompletedProcess[str]:
            return run("call", url, "--json", *options)

        def is_echo(done: subprocess.CompletedProcess[str]) -> bool:
            return done.returncode == 0 and json.loads(done.stdout)["correlation"] > 0.4

        done = measure_until(is_echo, call)
        assert done.returncode == 0, done.stderr
        result = json.loads(done.stdout)
        assert result["ok"] is True
        assert 0 < result["connect_seconds"] < 5
        assert 0 < result["latency"] < 1
        assert result["correlation"] > 0.4
        assert result["frames"] > 100
        assert result["answer_after"] is None  # it is an echo
        assert result["out"] == str(out)
        assert "\r" not in done.stderr  # progress is for terminals
        with wave.open(str(out)) as file:
            assert file.getnframes() > 3 * file.getframerate()

        address = url.removeprefix("http://") + "/?a=b#c"  # as a browser shows it
        said = run("call", address, "--listen", "0.6")
        assert "echo after " in said.stdout
        assert "answer after" not in said.stdout
        assert "frames lost " in said.stdout


@pytest.mark.timeout(180)
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
        assert "--token TOKEN sends one" in refused.stderr
        assert "does not take this --token" in run("call", url, "--token", "no").stderr
        options = ("--token", "secret", "--wav", str(wav), "--listen", "1", "--json")
        done = measure_until(
            lambda done: '"first_sound": null' not in done.stdout,
            lambda: run("call", url, *options),
        )
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
        done = run("call", url)
        assert done.returncode == 0, done.stderr
        assert "ended by             the server\n" in done.stdout
        assert "nothing but silence" in done.stdout


def test_a_handler_that_fails(program: Path) -> None:
    with serving("served:streams.failing", "trio", program.parent) as url:
        done = run("call", url, "--json")
    assert done.returncode == 1
    assert json.loads(done.stdout)["ok"] is False
    assert "error: the handler failed: no train today" in done.stderr


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_call_on_a_terminal(backend: str, program: Path) -> None:
    """Progress is one line, written over; Ctrl-C ends the call in good order."""
    with serving("served:stream", backend, program.parent) as url:
        ours, theirs = pty.openpty()
        process = subprocess.Popen(
            command("call", url, "--listen", "60", "--backend", backend),
            stdout=subprocess.PIPE,
            stderr=theirs,
            env=environment(),
        )
        with process, os.fdopen(ours, "rb", buffering=0) as terminal:
            os.close(theirs)
            try:
                shown = b""
                while b"heard" not in shown:
                    shown += terminal.read(1000)
                second = run("call", url)
                process.send_signal(signal.SIGINT)
                assert process.wait(20) == 130
                with suppress(OSError):  # Linux's word for the end of a terminal
                    while more := terminal.read(1000):
                        shown += more
            finally:
                process.kill()
    lines = shown.decode().splitlines()
    assert lines[0].startswith("connected in ")
    assert all(re.fullmatch(r"(\x1b\[K)?( +said .* heard .* s)?", line) for line in lines[1:])
    assert second.returncode == 1
    assert second.stderr.startswith("error: the server refused the call: 503, the limit of 1")
    assert second.stderr.endswith("Try again in a while\n")


def test_a_file_that_cannot_be_written(tmp_path: Path) -> None:
    """It is said before the call."""
    done = run("call", "http://127.0.0.1:9", "--out", str(tmp_path / "nosuch" / "heard.wav"))
    assert done.returncode == 1
    assert done.stderr.endswith("heard.wav cannot be written: No such file or directory\n")


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
def test_a_wav_that_is_none(
    content: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "said.wav"
    path.write_bytes(content)
    assert main(["call", "http://127.0.0.1:9", "--wav", str(path)]) == 1
    assert f"error: {path} cannot be read as WAV" in capsys.readouterr().err


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


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["call"], "required: url"),
        (["call", "ftp://x"], "a URL is like http://127.0.0.1:7860, not 'ftp://x'"),
        (["call", "http://[x"], "a URL is like"),
        (["call", "x", "--listen", "long"], "a number of seconds below 3600, not 'long'"),
        (["call", "x", "--token", "gr\u00f6\u00dfe"], "no letters beyond ASCII"),
        (["serve", "x", "--port", "65536"], "a port is a number from 0 to 65535, not '65536'"),
        ([], "serve a stream and its page"),
    ],
    ids=str,
)
def test_wrong_arguments_are_explained(
    arguments: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        status: object = main(arguments)
    except SystemExit as ended:
        status = ended.code
    assert status == 2
    said = capsys.readouterr().err
    assert "usage:" in said
    assert told in " ".join(said.split())


def test_the_status_of_a_process_that_was_given_the_wrong_target() -> None:
    served = run("serve", "nosuchmodule:stream")
    assert served.returncode == 2
    assert served.stderr.startswith("error: there is no module")
