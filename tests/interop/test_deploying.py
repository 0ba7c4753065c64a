"""The Dockerfile, the unit and the probes of the deployment guide."""

from __future__ import annotations

import inspect
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncGenerator, Generator, Mapping
from configparser import RawConfigParser
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import httpx
import pytest
from anyio.abc import Process

from fastrtc_anyio import Stream
from tests.kit.backends import anyio_backend as anyio_backend
from tests.kit.backends import on_asyncio
from tests.kit.calls import place_call
from tests.kit.documentation import ROOT, blocks_of, find_block
from tests.kit.measure import check_echo
from tests.kit.waiting import wait_until
from tests.kit.websockets import open_client, wait_for_echo

from .containers import Container, ContainerError, build, parse
from .programs import LIMIT, find_port, is_free

pytestmark = pytest.mark.interop

PAGE = "docs/guides/deploying.md"
PORT = "7860"
DRAIN = 25
"""Default of ``Stream(drain_timeout=...)``, which the program of the page does not change."""


@pytest.fixture(scope="module")
def container() -> Generator[Container, None, None]:
    """The image of the page's Dockerfile, built once."""
    root = Path(tempfile.mkdtemp())  # pytest's own folders are closed to other users
    root.chmod(0o755)
    try:
        context = root / "context"
        context.mkdir()
        wheel = build_wheel(context)
        requirements = find_block("docs/guides/deploying.md", "fastrtc-anyio[server]\n").text
        changed = requirements.replace(
            "fastrtc-anyio[server]", f"fastrtc-anyio[server] @ {wheel.as_uri()}"
        )
        (context / "requirements.txt").write_text(changed)
        program = blocks_of(PAGE, "python")[0].text
        (context / "app.py").write_text(program)
        yield build(find_block("docs/guides/deploying.md", "FROM python").text, context, root)
    finally:
        shutil.rmtree(root)


def build_wheel(folder: Path) -> Path:
    """Build the wheel that the index would have."""
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir"]
    subprocess.run([*command, str(folder), str(ROOT)], check=True)
    (wheel,) = folder.glob("*.whl")
    return wheel


@asynccontextmanager
async def run_container(
    container: Container, command: list[str], variables: Mapping[str, str], port: str
) -> AsyncGenerator[tuple[Process, str], None]:
    """Start a server's command, and yield the process and the URL of the stream."""
    words = [port if word == PORT else word for word in command]
    async with await anyio.open_process(
        container.resolve(words),
        cwd=container.folder,
        env=dict(variables),
        stdout=None,
        stderr=None,
        **container.identity,  # type: ignore[arg-type]
    ) as process:
        try:
            await wait_until(
                lambda: process.returncode is not None or not is_free(int(port)),
                "the server",
                seconds=LIMIT,
            )
            assert process.returncode is None
            yield process, f"http://127.0.0.1:{port}/voice"
        finally:
            if process.returncode is None:
                process.kill()


async def status(url: str) -> int:
    async with httpx.AsyncClient() as http:
        return (await http.get(url)).status_code


async def call_over_websocket(url: str) -> None:
    async with open_client(url) as client:
        await wait_for_echo(client)


async def check_drain(process: Process, url: str) -> None:
    """SIGTERM refuses new calls, keeps the one that runs, and ends the server after it."""
    ready = f"{url}/health/ready"
    async with place_call(url) as client:
        await check_echo(client)
        process.send_signal(signal.SIGTERM)
        with anyio.fail_after(LIMIT):
            while await status(ready) != 503:
                await anyio.sleep(0.05)
        await check_echo(client)
        assert await status(f"{url}/health/live") == 200
        assert process.returncode is None
    with anyio.fail_after(LIMIT):
        await process.wait()
    # uvicorn ends by the signal again, which supervisors count as success.
    assert process.returncode in (0, -signal.SIGTERM)


@on_asyncio  # the backend of the tests, not of the servers
@pytest.mark.timeout(240)
async def test_container_is_probed_called_and_stopped(container: Container) -> None:
    port = str(find_port())
    command, variables = container.command, container.variables
    async with run_container(container, command, variables, port) as (process, url):
        probe = [word.replace(PORT, port) for word in container.resolve(container.probe)]
        with anyio.fail_after(LIMIT):
            await anyio.run_process(probe, env=container.variables)
        manifest = find_block("docs/guides/deploying.md", "livenessProbe:").text
        probed = re.findall(r"path: /voice(\S+), port: (\d+)", manifest)
        assert [place for place, _ in probed] == ["/health/live", "/health/live", "/health/ready"]
        assert {number for _, number in probed} == {PORT}
        for place, _ in probed:
            assert await status(url + place) == 200
        await call_over_websocket(url)
        await check_drain(process, url)


@on_asyncio  # the backend of the tests, not of the servers
@pytest.mark.timeout(240)
async def test_unit_starts_a_server_that_drains(container: Container) -> None:
    unit = RawConfigParser(interpolation=None)
    unit.optionxform = str  # type: ignore[assignment, method-assign]
    unit.read_string(find_block("docs/guides/deploying.md", "[Service]").text)
    service = unit["Service"]
    program, *arguments = shlex.split(service["ExecStart"])
    assert Path(program).parent == Path(service["WorkingDirectory"], "venv/bin")
    variables = dict(pair.split("=", 1) for pair in service["Environment"].split())
    port = str(find_port())
    command = [Path(program).name, *arguments]
    async with run_container(container, command, container.variables | variables, port) as (
        process,
        url,
    ):
        await check_drain(process, url)


def test_supervisors_wait_longer_than_a_drain() -> None:
    assert inspect.signature(Stream).parameters["drain_timeout"].default == DRAIN
    times = {
        "docker run": r"--stop-timeout (\d+)",
        "livenessProbe:": r"terminationGracePeriodSeconds: (\d+)",
        "[Service]": r"TimeoutStopSec=(\d+)",
    }
    end = 10  # Limits.close and Limits.shutdown
    for shown, pattern in times.items():
        (seconds,) = re.findall(pattern, find_block(PAGE, shown).text)
        assert int(seconds) >= DRAIN + end, shown


def test_lines_of_a_dockerfile_are_joined_and_comments_dropped() -> None:
    text = "# syntax\nFROM python:3\n\nRUN a && \\\n    b\n"
    assert parse(text) == [("FROM", "python:3"), ("RUN", "a && b")]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("FROM debian", "an image with Python"),
        ("VOLUME data", "unknown instruction"),
        ("RUN ls /etc", "outside of its folder"),
        ("RUN exit 3", "status 3"),
        ('CMD "uvicorn app:app"', "must be a list"),
    ],
)
def test_dockerfile_that_cannot_be_carried_out_is_an_error(
    line: str, message: str, tmp_path: Path
) -> None:
    with pytest.raises(ContainerError, match=message):
        build(line, tmp_path, tmp_path)
