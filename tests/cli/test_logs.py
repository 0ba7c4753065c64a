"""The log of ``serve`` as a process, with an application that logs at level INFO."""

from __future__ import annotations

import json
import re
import signal
import subprocess
from pathlib import Path

import httpx
import pytest

from tests.kit.backends import on_asyncio
from tests.kit.calls import place_call

from .test_commands import BACKENDS, PROGRAM, command, environment

pytestmark = on_asyncio  # the backend of the tests, not of the programs

LOGGING = """
import logging
logging.basicConfig(level="INFO", format="%(asctime)s %(levelname)s %(name)s %(message)s")
"""
FLOOD = 30


def start_server(backend: str, folder: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command("serve", "served:stream", "--port", "0", "--json", "--backend", backend),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=folder,
        env=environment(),
    )


@pytest.mark.parametrize("backend", BACKENDS)
async def test_log_has_no_addresses_and_counts_refusals(backend: str, tmp_path: Path) -> None:
    (tmp_path / "served.py").write_text(LOGGING + PROGRAM)
    with start_server(backend, tmp_path) as process:
        try:
            assert process.stdout is not None
            url = json.loads(process.stdout.readline())["url"]
            async with place_call(url), httpx.AsyncClient() as http:
                for i in range(FLOOD):
                    headers = {"Origin": f"https://page{i}.example"}
                    reply = await http.get(f"{url}/webrtc/config?token=secret", headers=headers)
                    assert reply.status_code == 403
            process.send_signal(signal.SIGINT)
            _, log = process.communicate(timeout=20)
        finally:
            process.kill()
    refusals = re.findall("WARNING fastrtc_anyio a request was refused: pages of other", log)
    assert 10 <= len(refusals) <= 20
    counts = re.findall(r"\((\d+) similar records|(\d+) records were suppressed", log)
    assert len(refusals) + sum(int(a or b) for a, b in counts) == FLOOD
    assert re.search(r"127\.0\.0\.1|aioice|aiortc|token|secret|page\d|ERROR", log) is None
