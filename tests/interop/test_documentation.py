"""Commands of the documentation that need ffmpeg, espeak-ng or new packages, as written."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import anyio
import imageio_ffmpeg  # pyright: ignore[reportMissingImports]
import pytest

from fastrtc_anyio import Session
from fastrtc_anyio.server import require_token
from tests.kit.backends import on_trio
from tests.kit.calls import make_stream, serve
from tests.kit.documentation import ROOT, Block, find_block
from tests.kit.waiting import wait_until

from .programs import is_free

pytestmark = pytest.mark.interop

PORT = 7860
NOT_COPIED = (".*", "__pycache__", "node_modules", "soak")


@pytest.fixture
def ffmpeg(tmp_path: Path) -> Path:
    """A folder with the program ffmpeg 8 or later, which Debian 12 does not have."""
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "ffmpeg").symlink_to(imageio_ffmpeg.get_ffmpeg_exe())
    return folder


@on_trio
async def test_ffmpeg_command_publishes(ffmpeg: Path, tmp_path: Path) -> None:
    """The command publishes a film with the token that the page shows."""
    sources = ("testsrc=size=320x240:rate=25", "sine=frequency=440")
    make = [str(ffmpeg / "ffmpeg"), "-loglevel", "error"]
    for source in sources:
        make += ["-f", "lavfi", "-i", source]
    await anyio.run_process([*make, "-t", "4", "-pix_fmt", "yuv420p", str(tmp_path / "talk.mp4")])
    frames = pictures = 0

    async def watch(session: Session) -> None:
        nonlocal pictures
        async for _picture in session.video_in:
            pictures += 1

    async def serve_client(session: Session) -> None:
        nonlocal frames
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(watch, session)
            async for frame in session.audio_in:
                frames += bool(abs(frame.samples).max() > 1000)

    options = {"modality": "audio-video", "mode": "send", "authenticate": require_token("secret")}
    stream = make_stream(serve_client, **options)
    await wait_until(lambda: is_free(PORT), f"port {PORT}")
    async with serve(stream, PORT):
        block = find_block("docs/guides/whip_and_whep.md", "ffmpeg -re")
        with anyio.fail_after(40):
            done = await anyio.run_process(
                ["sh", "-ec", block.text],
                input=b"",
                stderr=subprocess.STDOUT,
                check=False,
                cwd=tmp_path,
                env=os.environ | {"PATH": f"{ffmpeg}:{os.environ['PATH']}"},
            )
        assert done.returncode == 0, done.stdout.decode()
        await wait_until(lambda: stream.active == 0, "the end of the session")
    print(f"{frames} frames and {pictures} pictures of 4 s were received")
    assert frames > 100
    assert pictures > 50


@pytest.mark.timeout(600)
def test_demo_and_voice_agent_run_in_a_copy(tmp_path: Path) -> None:
    """The README's first command and the voice agent's, in a folder without an environment."""
    copy = tmp_path / "copy"
    shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(*NOT_COPIED))
    # The interpreter of this environment, without the environment.
    base = Path(sys.base_prefix) / "bin"
    kept = [
        part for part in os.environ["PATH"].split(":") if part != str(Path(sys.executable).parent)
    ]
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PYTHON", "VIRTUAL_ENV", "NOX"))
    } | {"PATH": ":".join([str(base), *kept])}

    def run(block: Block) -> str:
        done = subprocess.run(
            ["sh", "-ec", block.text],
            cwd=copy,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=500,
            check=False,
        )
        assert done.returncode == 0, done.stdout
        return done.stdout

    printed = run(find_block("README.md", "nox -s demo"))
    for wanted in (
        r"connected in +\d+ ms",
        r"round-trip latency +\d+ ms",
        r"frames lost +\d+",
        r"correlation +0\.\d+",
    ):
        assert re.search(wanted, printed), printed
    assert (copy / "echo.wav").stat().st_size > 50_000
    printed = run(find_block("docs/guides/turn_taking.md", "voice_agent.py --headless"))
    assert 'agent   says "Goodbye!"' in printed
    assert "The call is over: HANDLER_CLOSED." in printed
