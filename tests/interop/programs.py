"""Run programs as a user would, and call them."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import wave
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import numpy as np
from anyio.abc import Process
from anyio.streams.text import TextReceiveStream

from fastrtc_anyio import _cli
from fastrtc_anyio._media.resample import StreamResampler
from fastrtc_anyio._wire.events import Start
from fastrtc_anyio._wire.payload import MULAW_8K
from fastrtc_anyio._wire.twilio import TwilioFraming
from tests.kit.calls import place_call
from tests.kit.measure import speak
from tests.kit.waiting import wait_until
from tests.kit.websockets import open_client as open_phone

SPEECH = Path(_cli.__file__).with_name("speech.wav")
LIMIT = 50
"""Seconds for each step of a call."""


@asynccontextmanager
async def open_program(
    command: list[str],
    folder: Path,
    variables: Mapping[str, str],
    printed: list[str],
    limit: float,
) -> AsyncGenerator[Process, None]:
    """Run a program, collect its output, and interrupt it if it is still running at the end."""

    async def read(process: Process) -> None:
        assert process.stdout is not None
        async for text in TextReceiveStream(process.stdout):
            printed.append(text)

    async with (
        await anyio.open_process(
            command, stderr=subprocess.STDOUT, cwd=folder, env=variables
        ) as process,
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(read, process)
        try:
            with anyio.fail_after(limit):
                yield process
        finally:
            if process.returncode is None:
                process.send_signal(signal.SIGINT)
        with anyio.fail_after(LIMIT):
            await process.wait()
    assert process.returncode == 0, "".join(printed)
    assert "Traceback" not in "".join(printed), "".join(printed)


async def call_program(url: str, program: str, *, silent: bool = False) -> None:
    """Call a program with what it takes, and speak, until it sends sound or a picture.

    Show the first token that a program requires.
    Call a telephone program from a telephone, too, and press the key that hangs up. A ``silent``
    program waits for inputs that only a page sends: the call lasts two seconds.
    """
    if "TelephoneOptions(" in program:
        await call_by_telephone(url)
    found = re.search(r'modality="([\w-]+)"', program)
    assert found is not None, program
    video, audio = "video" in found[1], "audio" in found[1]
    token = re.search(r'require_token\(\{?"(.+?)"', program)
    async with place_call(
        url,
        audio=audio,
        video="sendrecv" if video else None,
        token=token and token[1],
    ) as client:
        with anyio.fail_after(LIMIT):
            if video:
                client.camera.picture = np.full((240, 320, 3), 90, np.uint8)
                await wait_until(lambda: client.seen, "a picture", seconds=LIMIT)
            if audio:
                speak(client, read_utterance())
                frames = 0
                while np.abs((await client.receive_audio()).samples).max() < 1000:
                    frames += 1
                    if frames == 100 and '"play"' in program:
                        client.send_message("play")
                    if frames > 100 and silent:
                        return


async def call_by_telephone(url: str) -> None:
    path = "/telephone/handler"
    async with open_phone(url, Start("MZ1", MULAW_8K), TwilioFraming(), path) as carrier:
        with anyio.fail_after(LIMIT):
            while np.abs((await carrier.receive_audio()).samples).max() < 1000:
                pass
            carrier.press("#")
            await carrier.ended.wait()


def read_utterance() -> np.ndarray[tuple[int, ...], np.dtype[np.int16]]:
    """The first words of the demo's speech: int16, shape ``(1, n)``, at 48 kHz."""
    with wave.open(str(SPEECH)) as file:
        rate = file.getframerate()
        samples = np.frombuffer(file.readframes(rate * 3 // 2), np.int16)[np.newaxis]
    return StreamResampler(rate, 48_000, 1).push(samples)


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


def find_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])
