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

from tests.kit.backends import on_trio
from tests.kit.documentation import ROOT, Block, find_block
from tests.kit.waiting import wait_until

from .programs import is_free, open_program

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
    """The command publishes a film to the program of the page."""
    sources = ("testsrc=size=320x240:rate=25", "sine=frequency=440")
    make = [str(ffmpeg / "ffmpeg"), "-loglevel", "error"]
    for source in sources:
        make += ["-f", "lavfi", "-i", source]
    await anyio.run_process([*make, "-t", "4", "-pix_fmt", "yuv420p", str(tmp_path / "talk.mp4")])
    program = find_block("docs/guides/whip_and_whep.md", "require_token")
    (tmp_path / "receive.py").write_text(program.text)
    block = find_block("docs/guides/whip_and_whep.md", "ffmpeg -re")
    variables = os.environ | {"PATH": f"{ffmpeg}:{os.environ['PATH']}", "PYTHONUNBUFFERED": "1"}
    await wait_until(lambda: is_free(PORT), f"port {PORT}")
    printed: list[str] = []
    command = [sys.executable, "receive.py"]
    variables["PYTHONPATH"] = str(ROOT)
    async with open_program(command, tmp_path, variables, printed, 60):
        await wait_until(lambda: not is_free(PORT), "the server")
        done = await anyio.run_process(
            ["sh", "-ec", block.text],
            input=b"",
            stderr=subprocess.STDOUT,
            check=False,
            cwd=tmp_path,
            env=variables,
        )
        assert done.returncode == 0, done.stdout.decode()
        await wait_until(lambda: "received" in "".join(printed), "the end of the session")
    found = re.search(r"received ([\d.]+) s of sound and (\d+) pictures", "".join(printed))
    assert found is not None, printed
    print(found[0])
    assert float(found[1]) > 2
    assert int(found[2]) > 50


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
