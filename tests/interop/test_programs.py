"""Programs, commands and messages of the documentation as written, with real servers and calls."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import wave
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import anyio
import numpy as np
import pytest
from anyio.abc import Process
from anyio.streams.text import TextReceiveStream

from fastrtc_anyio import _cli
from fastrtc_anyio._media.resample import StreamResampler
from fastrtc_anyio._wire.events import Start
from fastrtc_anyio._wire.payload import MULAW_8K
from fastrtc_anyio._wire.twilio import TwilioFraming
from tests.examples.loading import EXAMPLES
from tests.examples.test_scripts import RUN
from tests.kit.backends import anyio_backend as anyio_backend
from tests.kit.backends import on_asyncio
from tests.kit.calls import make_stream, only_session, place_call, serve
from tests.kit.documentation import Block, all_blocks, blocks_of, find_block, put_voice
from tests.kit.measure import speak
from tests.kit.waiting import wait_until
from tests.kit.websockets import open_client as open_phone
from tests.kit.websockets import open_wire

SPEECH = Path(_cli.__file__).with_name("speech.wav")
SERVED = """\
from fastrtc_anyio import Stream

async def echo(session):
    async for frame in session.audio_in:
        await session.audio_out.send(frame)

stream = Stream(echo, modality="audio")
"""
PROGRAMS = [
    block
    for block in all_blocks()
    if block.language == "python" and block.marker is None and ".launch(" in block.text
]
COMMANDS = [block for block in all_blocks() if block.language == "sh" and block.marker is None]
MESSAGES = [block for block in all_blocks() if block.language == "json" and block.marker is None]
LIMIT = 50

pytestmark = [pytest.mark.interop, on_asyncio]  # the backend of the tests, not of the programs


@asynccontextmanager
async def open_program(
    command: list[str], folder: Path, printed: list[str], **variables: str
) -> AsyncGenerator[Process, None]:
    """Run a program, collect its output, and interrupt it if it is still running at the end."""
    path = f"{Path(sys.executable).parent}:{put_voice(folder, SPEECH)}"
    environment = os.environ | {"PATH": path, "PYTHONPATH": str(EXAMPLES.parent)} | variables

    async def read(process: Process) -> None:
        assert process.stdout is not None
        async for text in TextReceiveStream(process.stdout):
            printed.append(text)

    with anyio.fail_after(LIMIT):
        async with (
            await anyio.open_process(
                command, stderr=subprocess.STDOUT, cwd=folder, env=environment
            ) as process,
            anyio.create_task_group() as tasks,
        ):
            tasks.start_soon(read, process)
            yield process
            if process.returncode is None:
                process.send_signal(signal.SIGINT)
    assert process.returncode == 0, "".join(printed)
    assert "Traceback" not in "".join(printed), "".join(printed)


@pytest.mark.parametrize("backend", ["trio", "asyncio"])
@pytest.mark.parametrize("block", PROGRAMS, ids=str)
async def test_program_answers_a_call(block: Block, backend: str, tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(block.text, encoding="utf-8")
    printed: list[str] = []
    command = [sys.executable, str(RUN), str(program)]
    async with open_program(command, tmp_path, printed, LAUNCH_BACKEND=backend):
        url = re.compile(r"http://127\.0\.0\.1:[1-9]\d*(?=\D)")
        await wait_until(lambda: url.search("".join(printed)), "the server")
        await call_program(url.findall("".join(printed))[0], block.text)


async def call_program(url: str, program: str) -> None:
    """Call a program until it sends sound or, if it serves video, a picture.

    Call a telephone program from a telephone, too, and press the key that hangs up.
    """
    if "TelephoneOptions(" in program:
        await call_by_telephone(url)
    video = 'modality="video"' in program
    directions = "sendrecv" if video else None
    async with place_call(url, audio=not video, video=directions) as client:
        with anyio.fail_after(LIMIT):
            if video:
                client.camera.picture = np.full((240, 320, 3), 90, np.uint8)
                await wait_until(lambda: client.seen, "a picture", seconds=LIMIT)
                return
            speak(client, read_utterance())
            while np.abs((await client.receive_audio()).samples).max() < 1000:
                pass


async def call_by_telephone(url: str) -> None:
    path = "/telephone/handler"
    async with open_phone(url, Start("MZ1", MULAW_8K), TwilioFraming(), path) as carrier:
        with anyio.fail_after(LIMIT):
            while np.abs((await carrier.receive_audio()).samples).max() < 1000:
                pass
            carrier.press("#")
            await carrier.ended.wait()


@pytest.mark.timeout(180)
@pytest.mark.parametrize("server", ["uvicorn", "hypercorn"])
async def test_deployed_program_answers_calls(server: str, tmp_path: Path) -> None:
    (program,) = blocks_of("docs/tutorial/deploying.md", "python")
    (tmp_path / "app.py").write_text(program.text, encoding="utf-8")
    port = find_port()
    commands = find_block("docs/tutorial/deploying.md", "uvicorn app:app").text.replace(
        "7860", str(port)
    )
    (token,) = re.findall(r"PARROT_TOKEN=(\w+)", commands)
    (serve,) = re.findall(rf"^{server} .*", commands, re.MULTILINE)
    (call,) = re.findall(r"^python .*", commands, re.MULTILINE)
    environment = os.environ | {"PYTHONPATH": str(EXAMPLES.parent), "PARROT_TOKEN": token}
    with anyio.fail_after(150):
        async with await anyio.open_process(
            [sys.executable, "-m", *serve.split()],
            cwd=tmp_path,
            env=environment,
            stdout=None,
            stderr=None,
        ) as process:
            try:
                await wait_until(lambda: not is_free(port), server, seconds=LIMIT)
                for words, status in ((call.split(), 0), (call.split()[:-2], 1)):
                    done = await anyio.run_process(
                        [sys.executable, *words[1:]], cwd=tmp_path, env=environment, check=False
                    )
                    assert done.returncode == status, done.stderr
                    assert status == 0 or b"401" in done.stderr
            finally:
                process.send_signal(signal.SIGINT)


def read_utterance() -> np.ndarray[tuple[int, ...], np.dtype[np.int16]]:
    """The first words of the demo's speech: int16, shape ``(1, n)``, at 48 kHz."""
    with wave.open(str(SPEECH)) as file:
        rate = file.getframerate()
        samples = np.frombuffer(file.readframes(rate * 3 // 2), np.int16)[np.newaxis]
    return StreamResampler(rate, 48_000, 1).push(samples)


@pytest.mark.timeout(180)
@pytest.mark.parametrize("block", COMMANDS, ids=str)
async def test_commands_run(block: Block, tmp_path: Path) -> None:
    """Each command succeeds. Servers run beside the commands below them, until Ctrl-C.

    ``python program.py`` runs the program of the page. Where another program uses a server's port,
    all commands use another one.
    """
    (tmp_path / "module.py").write_text(SERVED)
    (tmp_path / "question.wav").write_bytes(SPEECH.read_bytes())
    text = block.text
    port = next(iter(re.findall(r"127\.0\.0\.1:(\d+)|--port (\d+)", text)), "")
    port = "".join(port)
    if port and not is_free(int(port)):
        text, port = text.replace(port, (free := str(find_port()))), free
    for name in re.findall(r"^python (\w+\.py)", text, re.MULTILINE):
        (program,) = [shown for shown in PROGRAMS if shown.page == block.page]
        (tmp_path / name).write_text(program.text, encoding="utf-8")
        text = text.replace(f"python {name}", f"python {RUN} {name}")
    async with AsyncExitStack() as servers:
        for command in text.splitlines():
            printed: list[str] = []
            # exec: the signal is for the command, not for its shell.
            process = await servers.enter_async_context(
                open_program(
                    ["sh", "-ec", f"exec {command}"], tmp_path, printed, LAUNCH_PORT=port or "0"
                )
            )

            def has_started(process: Process = process, printed: list[str] = printed) -> bool:
                return process.returncode is not None or "Ctrl-C ends it" in "".join(printed)

            await wait_until(has_started, command, seconds=LIMIT)


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


def find_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@pytest.mark.parametrize("block", MESSAGES, ids=str)
async def test_messages_are_accepted(block: Block) -> None:
    """A JSON block is a message that begins a session over a WebSocket."""
    stream = make_stream()
    async with serve(stream) as url, open_wire(url) as wire:
        await wire.send(block.text)
        await wire.send('{"event": "ping"}')
        assert await wire.receive_json() == {"event": "pong"}
        assert only_session(stream).closed is None
