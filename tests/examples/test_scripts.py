"""The examples as programs: each serves until Ctrl-C, and then ends without a complaint."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from pathlib import Path

import anyio
import pytest
from anyio.streams.text import TextReceiveStream

from .loading import EXAMPLES, NAMES

RUN = Path(__file__).with_name("run.py")
LIMIT = 30

# This side of it is the same throughout.
pytestmark = pytest.mark.parametrize("anyio_backend", ["asyncio"])


def main_of(name: str) -> str:
    return (EXAMPLES / f"{name}.py").read_text().partition('if __name__ == "__main__":')[2].strip()


LAUNCHED = [name for name in NAMES if main_of(name) == "stream.launch()"]
OTHERS = [name for name in NAMES if name not in LAUNCHED and name != "virtual_time"]


@pytest.mark.parametrize("name", ["echo", *OTHERS])  # of those that are launched alike, one
async def test_it_serves_until_it_is_interrupted(name: str) -> None:
    command = [sys.executable, str(RUN), str(EXAMPLES / f"{name}.py")]
    printed = ""
    interrupted = False
    with anyio.fail_after(LIMIT):
        async with await anyio.open_process(command, stderr=subprocess.STDOUT) as process:
            assert process.stdout is not None
            async for text in TextReceiveStream(process.stdout):
                printed += text
                if not interrupted and re.search(r"http://127\.0\.0\.1:[1-9]\d*", printed):
                    interrupted = True
                    process.send_signal(signal.SIGINT)
    assert interrupted, printed
    assert "Traceback" not in printed
    # Uvicorn ends by the signal itself once it has cleaned up.
    wanted = (0, -signal.SIGINT) if name == "mount_fastapi" else (0,)
    assert process.returncode in wanted, printed


async def test_virtual_time_runs_its_test() -> None:
    done = await anyio.run_process([sys.executable, str(EXAMPLES / "virtual_time.py")])
    assert done.stdout.split() == [b"passed"]
