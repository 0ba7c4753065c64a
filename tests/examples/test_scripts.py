"""The examples as programs: each serves until Ctrl-C, then ends without an error."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import anyio
import httpx
import pytest
from anyio.streams.text import TextReceiveStream

from .loading import EXAMPLES, NAMES, NEEDS_ESPEAK, NEEDS_RAY, WITHOUT_STREAM

RUN = Path(__file__).with_name("run.py")
PLUGIN = "fastrtc_anyio.testing.pytest_plugin"
LIMIT = 30

# The backend of the tests, not of the programs.
pytestmark = pytest.mark.parametrize("anyio_backend", ["asyncio"])


def main_of(name: str) -> str:
    return (EXAMPLES / f"{name}.py").read_text().partition('if __name__ == "__main__":')[2].strip()


LAUNCHED = [name for name in NAMES if main_of(name) == "stream.launch()"]
OTHERS = sorted(
    {*NAMES}.difference(LAUNCHED, WITHOUT_STREAM, NEEDS_ESPEAK, NEEDS_RAY, ["virtual_time"])
)


@pytest.mark.parametrize("name", ["echo", *OTHERS])  # echo stands for all that call launch()
async def test_serves_until_interrupted(name: str) -> None:
    await check_serving(name)


async def check_serving(name: str) -> None:
    command = [sys.executable, str(RUN), str(EXAMPLES / f"{name}.py")]
    printed = ""
    answered = False
    with anyio.fail_after(LIMIT):
        async with await anyio.open_process(command, stderr=subprocess.STDOUT) as process:
            assert process.stdout is not None
            async for text in TextReceiveStream(process.stdout):
                printed += text
                url = re.search(r"http://127\.0\.0\.1:[1-9]\d*(?=\D)", printed)
                if url is not None and not answered:
                    async with httpx.AsyncClient() as http:
                        answered = (await http.get(url[0])).status_code in (200, 404)
                    process.send_signal(signal.SIGINT)
    assert answered, printed
    assert "Traceback" not in printed, printed
    # Uvicorn raises the signal again after its clean-up.
    wanted = (0, -signal.SIGINT) if name == "mount_fastapi" else (0,)
    assert process.returncode in wanted, printed


async def test_realtime_api_calls_its_fake_service() -> None:
    command = [sys.executable, str(EXAMPLES / "realtime_api.py"), "--demo", "--headless"]
    with anyio.fail_after(LIMIT):
        done = await anyio.run_process(command, stderr=subprocess.STDOUT, check=False)
    assert done.returncode == 0, done.stdout
    printed = done.stdout.decode()
    assert re.findall(r"^(\w+): ", printed, re.MULTILINE) == ["user", "assistant"] * 2, printed


async def test_virtual_time_runs_its_test_as_script_and_under_pytest(tmp_path: Path) -> None:
    example = EXAMPLES / "virtual_time.py"
    script = await anyio.run_process([sys.executable, str(example)], check=False)
    assert re.fullmatch(rb"passed, \d+ s later\n", script.stdout), script.stderr
    # Under pytest, in a folder without this repository's pytest settings.
    copy = tmp_path / example.name
    copy.write_text(example.read_text())
    installed = any(entry.value == PLUGIN for entry in entry_points(group="pytest11"))
    done = await anyio.run_process(
        [
            *(sys.executable, "-m", "pytest", str(copy), "-W", "error", "-p", "no:cacheprovider"),
            *(() if installed else ("-p", PLUGIN)),
        ],
        env=os.environ | {"PYTHONPATH": str(EXAMPLES.parent)},
        cwd=tmp_path,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert b" 1 passed in " in done.stdout
