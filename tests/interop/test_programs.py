"""Programs, commands and messages of the documentation as written, with real servers and calls."""

from __future__ import annotations

import os
import re
import signal
import sys
import wave
from contextlib import AsyncExitStack
from pathlib import Path

import anyio
import numpy as np
import pytest
from anyio.abc import Process

from tests.examples.loading import EXAMPLES
from tests.examples.test_scripts import RUN
from tests.kit.backends import anyio_backend as anyio_backend
from tests.kit.backends import on_asyncio
from tests.kit.calls import make_stream, only_session, serve
from tests.kit.documentation import Block, all_blocks, blocks_of, find_block, put_voice
from tests.kit.waiting import wait_until
from tests.kit.websockets import open_wire

from .programs import LIMIT, SPEECH, call_program, find_port, is_free, open_program

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

pytestmark = [pytest.mark.interop, on_asyncio]  # the backend of the tests, not of the programs


def make_variables(folder: Path, **variables: str) -> dict[str, str]:
    """The environment of a program: this one, with a stand-in for espeak-ng."""
    path = f"{Path(sys.executable).parent}:{put_voice(folder, SPEECH)}"
    return os.environ | {"PATH": path, "PYTHONPATH": str(EXAMPLES.parent)} | variables


@pytest.mark.parametrize("backend", ["trio", "asyncio"])
@pytest.mark.parametrize("block", PROGRAMS, ids=str)
async def test_program_answers_a_call(block: Block, backend: str, tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(block.text, encoding="utf-8")
    printed: list[str] = []
    command = [sys.executable, str(RUN), str(program)]
    variables = make_variables(tmp_path, LAUNCH_BACKEND=backend)
    async with open_program(command, tmp_path, variables, printed, LIMIT):
        url = re.compile(r"http://127\.0\.0\.1:[1-9]\d*(?=\D)")
        await wait_until(lambda: url.search("".join(printed)), "the server")
        await call_program(url.findall("".join(printed))[0], block.text)


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
    variables = make_variables(tmp_path, LAUNCH_PORT=port or "0")
    async with AsyncExitStack() as servers:
        for command in text.splitlines():
            printed: list[str] = []
            # exec: the signal is for the command, not for its shell.
            process = await servers.enter_async_context(
                open_program(["sh", "-ec", f"exec {command}"], tmp_path, variables, printed, LIMIT)
            )

            def has_started(process: Process = process, printed: list[str] = printed) -> bool:
                return process.returncode is not None or "Ctrl-C ends it" in "".join(printed)

            await wait_until(has_started, command, seconds=LIMIT)


async def test_websocket_client_records_the_answer(tmp_path: Path) -> None:
    """The client of the guide calls the server of the guide."""
    page = "docs/guides/websockets_and_telephones.md"
    (tmp_path / "line.py").write_text(find_block(page, "TelephoneOptions(").text)
    client = find_block("docs/guides/websockets_and_telephones.md", "asyncio.run(main())").text
    printed: list[str] = []
    port = str(find_port())
    variables = make_variables(tmp_path, LAUNCH_PORT=port)
    (tmp_path / "question.wav").write_bytes(SPEECH.read_bytes())
    (tmp_path / "client.py").write_text(client.replace("7860", port))
    command = [sys.executable, str(RUN), "line.py"]
    async with open_program(command, tmp_path, variables, printed, LIMIT):
        await wait_until(lambda: "Ctrl-C ends it" in "".join(printed), "the server", seconds=LIMIT)
        with anyio.fail_after(LIMIT):
            done = await anyio.run_process([sys.executable, "client.py"], cwd=tmp_path)
    assert b"response_starting" in done.stdout
    with wave.open(str(tmp_path / "answer.wav")) as answer:
        heard = np.frombuffer(answer.readframes(answer.getnframes()), np.int16)
    assert np.abs(heard).max() > 1000


@pytest.mark.timeout(180)
async def test_application_of_the_guide_answers_calls(tmp_path: Path) -> None:
    commands = find_block("docs/guides/deploying.md", "fastrtc_anyio call").text
    program = blocks_of("docs/guides/deploying.md", "python")[0]
    (tmp_path / "app.py").write_text(program.text, encoding="utf-8")
    port = find_port()
    serve, call = commands.replace("7860", str(port)).splitlines()
    environment = make_variables(tmp_path)
    async with open_program([sys.executable, "-m", *serve.split()], tmp_path, environment, [], 150):
        await wait_until(lambda: not is_free(port), serve, seconds=LIMIT)
        with anyio.fail_after(LIMIT):
            await anyio.run_process([sys.executable, *call.split()[1:]], env=environment)


@pytest.mark.parametrize("block", MESSAGES, ids=str)
async def test_messages_are_accepted(block: Block) -> None:
    """A JSON block is a message that begins a session over a WebSocket."""
    stream = make_stream()
    async with serve(stream) as url, open_wire(url) as wire:
        await wire.send(block.text)
        await wire.send('{"event": "ping"}')
        assert await wire.receive_json() == {"event": "pong"}
        assert only_session(stream).closed is None
