"""``python -m fastrtc_anyio serve`` and ``call`` as processes: output, exit status, Ctrl-C."""

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
from typing import Any

import anyio
import numpy as np
import pytest

from fastrtc_anyio import __version__
from fastrtc_anyio._cli.inputs import InputError, choose_inputs
from fastrtc_anyio._cli.main import main
from fastrtc_anyio._cli.serve import TargetError, load_stream
from fastrtc_anyio.stream import Stream
from tests.kit.backends import on_trio
from tests.kit.calls import make_stream, serve
from tests.kit.measure import measure_until
from tests.kit.waiting import wait_until

ROOT = Path(__file__).parents[2]
BACKENDS = ["trio", "asyncio"]
PROGRAM = """
import json

import anyio
from fastrtc_anyio import AsyncStreamHandler, Checkbox, RtcConfiguration, Slider, Stream, Textbox
from fastrtc_anyio import WebRTCError
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

class Repeat(AsyncStreamHandler):
    async def start_up(self):
        self.written = anyio.Event()
        for _ in range(2):
            await self.wait_for_args()
            await self.send_message(json.dumps(self.latest_args[1:]))
            self.reset()
        await self.written.wait()
        self.hang_up("Enough.")

    async def on_message(self, message):
        await self.send_message(f"you wrote {message}")
        self.written.set()

    async def receive(self, frame): ...
    async def emit(self): ...

    def copy(self):
        return Repeat()

FIELDS = [Slider("Volume", 0, 10, value=3), Textbox("Name", value="Ann"), Checkbox("Loud")]

def make(handler, **options):
    here = RtcConfiguration(addresses=("127.0.0.1",))
    return Stream(handler, modality="audio", server_rtc_configuration=here, **options)

stream = make(echo)
class streams:
    guarded = make(echo, authenticate=require_token("secret"))
    hearing = make(hear, mode="send")
    leaving = make(leave)
    failing = make(fail)
    asking = make(Repeat, additional_inputs=FIELDS)
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
    return os.environ | {"PYTHONPATH": str(ROOT)}


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
    """Serve a stream and yield its URL. Afterwards Ctrl-C must end the server with status 0."""
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
            where = json.loads(process.stdout.readline())
            assert (where["event"], where["modality"]) == ("serving", "audio")
            yield where["url"]
            process.send_signal(signal.SIGINT)
            assert process.wait(20) == 0
        finally:
            process.kill()


@pytest.mark.timeout(240)  # a call takes 6 s and may be repeated three times
def test_call_reports_measurements_as_json(program: Path, tmp_path: Path) -> None:
    backend = "asyncio"
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
        assert result["answer_after"] is None  # the response is an echo
        assert result["out"] == str(out)
        assert "\r" not in done.stderr  # progress goes to terminals only
        with wave.open(str(out)) as file:
            assert file.getnframes() > 3 * file.getframerate()


@pytest.mark.timeout(240)
def test_call_prints_measurements_as_a_table(program: Path) -> None:
    with serving("served:stream", "trio", program.parent) as url:
        address = url.removeprefix("http://") + "/?a=b#c"  # as a browser shows it

        def call() -> str:
            return run("call", address, "--listen", "0.6").stdout

        table = measure_until(lambda table: "echo after " in table, call)
        assert "echo after " in table
        assert "answer after" not in table
        assert "frames lost " in table


@pytest.mark.timeout(180)
def test_call_with_wav_file_and_token(program: Path, tmp_path: Path) -> None:
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
        assert "Send a token with --token TOKEN" in refused.stderr
        assert "does not accept this --token" in run("call", url, "--token", "no").stderr
        options = ("--token", "secret", "--wav", str(wav), "--listen", "1", "--json")
        done = measure_until(
            lambda done: '"first_sound": null' not in done.stdout,
            lambda: run("call", url, *options),
        )
        assert done.returncode == 0, done.stderr
        result = json.loads(done.stdout)
        assert result["said_seconds"] == 0.5
        assert result["first_sound"] is not None


def test_send_only_stream_returns_no_audio(program: Path) -> None:
    with serving("served:streams.hearing", "asyncio", program.parent) as url:
        done = run("call", url, "--listen", "0", "--json")
        assert done.returncode == 0, done.stderr
        assert "heard_seconds" not in json.loads(done.stdout)


def test_call_ended_by_server_succeeds(program: Path) -> None:
    with serving("served:streams.leaving", "trio", program.parent) as url:
        done = run("call", url)
        assert done.returncode == 0, done.stderr
        assert "ended by             the server\n" in done.stdout
        assert "nothing but silence" in done.stdout


def test_handler_error_fails_call(program: Path) -> None:
    with serving("served:streams.failing", "trio", program.parent) as url:
        done = run("call", url, "--json")
    assert done.returncode == 1
    assert json.loads(done.stdout)["ok"] is False
    assert "error: the handler failed: no train today" in done.stderr


def test_terminal_shows_progress_and_ctrl_c_ends_call(program: Path) -> None:
    with serving("served:stream", "asyncio", program.parent) as url:
        ours, theirs = pty.openpty()
        process = subprocess.Popen(
            command("call", url, "--listen", "60", "--backend", "trio"),
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
                with suppress(OSError):  # Linux raises at the end of a terminal
                    while more := terminal.read(1000):
                        shown += more
            finally:
                process.kill()
    lines = shown.decode().splitlines()
    assert lines[0].startswith("connected in ")
    assert all(re.fullmatch(r"(\x1b\[K)?( +said .* heard .* s)?", line) for line in lines[1:])
    assert second.returncode == 1
    assert second.stderr.startswith("error: the server refused the call: 503, the limit of 1")
    assert second.stderr.endswith("Try again later\n")


@on_trio
async def test_call_fails_if_a_drain_ends_or_refuses_it() -> None:
    stream = make_stream(drain_timeout=0)
    async with serve(stream) as url, anyio.create_task_group() as tasks:
        tasks.start_soon(drain_the_first_call, stream)
        ended = await run_async("call", url, "--listen", "60")
        refused = await run_async("call", url)
    assert ended.returncode == refused.returncode == 1
    lines = ended.stderr.decode().splitlines()
    assert lines[-1] == "error: the server ended the call: the server is restarting"
    assert "ended by             the server (the server is restarting)" in ended.stdout.decode()
    assert refused.stderr.decode() == (
        "error: the server refused the call: 503, the server is restarting and takes no new calls; "
        "call again in a few seconds\n"
    )


async def drain_the_first_call(stream: Stream) -> None:
    await wait_until(lambda: stream.active, "the call")
    await stream.drain()


async def run_async(*arguments: str) -> subprocess.CompletedProcess[bytes]:
    return await anyio.run_process(command(*arguments), check=False, env=environment())


def test_unwritable_out_file_fails_before_call(tmp_path: Path) -> None:
    done = run("call", "http://127.0.0.1:9", "--out", str(tmp_path / "nosuch" / "heard.wav"))
    assert done.returncode == 1
    assert done.stderr.endswith("heard.wav cannot be written: No such file or directory\n")


@pytest.mark.parametrize("backend", BACKENDS)
def test_unreachable_server_fails_without_traceback(backend: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    done = run("call", url, "--json", "--backend", backend)
    assert done.returncode == 1
    assert json.loads(done.stdout)["ok"] is False
    assert f"error: no answer from {url}/" in done.stderr
    assert "Traceback" not in done.stderr


def test_url_without_stream_fails_with_404(program: Path) -> None:
    with serving("served", "trio", program.parent) as url:
        done = run("call", f"{url}/elsewhere")
        assert done.returncode == 1
        assert "no stream found at" in done.stderr
        assert "404" in done.stderr


def test_call_sends_inputs_and_messages(program: Path) -> None:
    with serving("served:streams.asking", "trio", program.parent) as url:
        done = run("call", url, "--message", "hello", "--input", "name=Bo", "--input", "loud=true")
        assert done.returncode == 0, done.stderr
        assert done.stderr.count('message: [3, "Bo", true]') == 2  # at the start, and when asked
        assert "message: you wrote hello" in done.stderr
        assert "ended by             the server (Enough.)" in done.stdout
        wrong = run("call", url, "--input", "nosuch=1")
        assert wrong.returncode == 1
        assert wrong.stderr == (
            "error: the stream has no input 'nosuch'; its inputs: volume, name, loud\n"
        )
        refused = run("call", url, "--input", "volume=11")
        assert refused.returncode == 1
        assert "the server refused the inputs: 422, 'volume' must be from 0 to 10" in refused.stderr


def test_inputs_are_the_defaults_with_changes() -> None:
    slider = {"name": "volume", "kind": "slider", "value": 3}
    textbox = {"name": "name", "kind": "textbox", "value": "Ann"}
    config = {"inputs": [slider, textbox]}
    assert choose_inputs(config, []) == {"volume": 3, "name": "Ann"}
    assert choose_inputs(config, ["volume=2.5", "name=1=2"]) == {"volume": 2.5, "name": "1=2"}
    assert choose_inputs({}, []) == {}
    with pytest.raises(InputError, match=r"'volume' must be JSON such as 2\.5; got 'loud'"):
        choose_inputs(config, ["volume=loud"])
    for text in ("NaN", "-Infinity", "1e999", "[" * 10_000):
        with pytest.raises(InputError, match="the value of 'volume' must be JSON"):
            choose_inputs(config, [f"volume={text}"])
    with pytest.raises(InputError, match="no input 'volume'; its inputs: none"):
        choose_inputs({}, ["volume=1"])


def test_version_is_that_of_the_package(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"fastrtc-anyio {__version__}\n"


@pytest.mark.parametrize("library", ["httpx", "starlette"])
def test_missing_package_is_explained_in_one_line(
    library: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def start(options: object) -> int:
        raise ModuleNotFoundError(f"No module named {library!r}", name=library)

    monkeypatch.setattr("fastrtc_anyio._cli.main._start_call", start)
    assert main(["call", "http://127.0.0.1:9"]) == 2
    printed = capsys.readouterr().err
    assert printed.startswith("error: fastrtc-anyio call needs more packages: ")
    assert "pip install 'fastrtc-anyio[demo]'" in printed
    assert printed.count("\n") == 1


def test_launch_without_server_extra_exits_with_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "fastrtc_anyio.server.launch", raising=False)
    monkeypatch.setitem(sys.modules, "starlette.applications", None)
    with pytest.raises(SystemExit, match=r"Stream.launch needs more .*fastrtc-anyio\[server\]"):
        make_stream().launch()


@pytest.mark.parametrize("backend", BACKENDS)
def test_launch_on_a_busy_port_exits_with_one_line(backend: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(SystemExit, match=f"error: cannot listen on 127.0.0.1:{port}: Address"):
            make_stream().launch(port=port, backend=backend)


def test_reload_takes_no_drain_timeout(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", "any.py", "--reload", "--drain-timeout", "5"]) == 2
    assert capsys.readouterr().err == "error: --reload ends calls without a drain\n"


def test_reload_restarts_after_changes_and_waits_after_an_error(tmp_path: Path) -> None:
    program = tmp_path / "served.py"
    program.write_text(PROGRAM)
    process = subprocess.Popen(
        command("serve", "served", "--port", "0", "--json", "--reload"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
        env=environment(),
    )
    with process:
        try:
            assert process.stdout is not None
            assert process.stderr is not None
            assert json.loads(process.stdout.readline())["mode"] == "send-receive"
            program.write_text("stream = (\n")
            printed = [process.stderr.readline()]
            assert printed == ["served.py has changed: restarting\n"]
            while printed[-1] != "waiting for a change of a source file\n":
                printed.append(process.stderr.readline())
            assert any("SyntaxError" in line for line in printed)
            program.write_text(PROGRAM + "stream = streams.hearing\n")
            assert json.loads(process.stdout.readline())["mode"] == "send"
            process.send_signal(signal.SIGINT)
            assert process.wait(20) == 0
        finally:
            process.kill()


@pytest.mark.parametrize("content", [b"", b"rubbish", b"RIFF\0\0\0\0WAVE"])
def test_invalid_wav_file_fails(
    content: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "said.wav"
    path.write_bytes(content)
    assert main(["call", "http://127.0.0.1:9", "--wav", str(path)]) == 1
    assert f"error: {path} cannot be read as WAV" in capsys.readouterr().err


def test_occupied_port_fails_without_traceback(program: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = run("serve", "served:stream", "--port", port, cwd=program.parent)
    assert done.returncode == 1
    assert f"error: cannot listen on 127.0.0.1:{port}" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("nosuchmodule:stream", "module nosuchmodule not found"),
        ("os.nosuch:stream", "module os.nosuch not found"),
        ("nosuch.py:stream", "file nosuch.py not found"),
        ("a b:stream", "the target must be module:stream"),
        ("", "the target must be module:stream"),
        ("served:nosuch", "served has no nosuch; its streams: stream"),
        ("served:streams.nosuch", "served has no streams.nosuch"),
        ("served:number", "served:number must be a Stream; got int"),
        ("json:stream", "json has no stream; its streams: none"),
    ],
)
def test_invalid_target_raises_target_error(
    target: str, message: str, program: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(program.parent)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, "served", raising=False)
    with pytest.raises(TargetError, match=message):
        load_stream(target)


def test_import_error_inside_target_propagates(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "lacking.py").write_text("import nosuchlibrary\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    with pytest.raises(ModuleNotFoundError, match="nosuchlibrary"):
        load_stream("lacking")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["call"], "required: url"),
        (["call", "ftp://x"], "must be like http://127.0.0.1:7860; got 'ftp://x'"),
        (["call", "http://[x"], "must be like http"),
        (["call", "x", "--listen", "long"], "must be a number of seconds below 3600; got 'long'"),
        (["call", "x", "--input", "=5"], "must be name=value; got '=5'"),
        (["call", "x", "--token", "gr\u00f6\u00dfe"], "must be printable ASCII without spaces"),
        (["serve", "x", "--workers", "0"], "must be a number from 1 to 256; got '0'"),
        (["serve", "x", "--workers", "2", "--reload"], "not allowed with argument --workers"),
        (["serve", "x", "--port", "65536"], "must be a port from 0 to 65535; got '65536'"),
        ([], "serve a stream and its page"),
    ],
    ids=str,
)
def test_invalid_argument_prints_usage_and_reason(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        status: object = main(arguments)
    except SystemExit as ended:
        status = ended.code
    assert status == 2
    printed = capsys.readouterr().err
    assert "usage:" in printed
    assert message in " ".join(printed.split())


def test_invalid_target_exits_with_status_2() -> None:
    served = run("serve", "nosuchmodule:stream")
    assert served.returncode == 2
    assert served.stderr.startswith("error: module nosuchmodule not found")
