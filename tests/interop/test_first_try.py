"""Do the programs of the documentation run on the first try, with what their text says to install?

Each program runs in an environment with nothing else: a new virtual environment, and the wheel of
this repository where the text names the package.
"""

from __future__ import annotations

import ast
import functools
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.examples.loading import EXAMPLES, NAMES
from tests.kit.backends import on_asyncio
from tests.kit.documentation import ROOT, Block, all_blocks
from tests.kit.waiting import wait_until

from .programs import call_program, is_free, open_program

pytestmark = [pytest.mark.interop, pytest.mark.timeout(400), on_asyncio]

INSTALL = re.compile(r"\bpip install ([^`\n]+)")
OWN = re.compile(r"(?:fastrtc-anyio|\.)(?=\[|$)")
ADDRESS = re.compile(r"http://127\.0\.0\.1:(\d+)\S*?(?=[\s)]|$)", re.MULTILINE)
PROGRAMS = [
    block
    for block in all_blocks()
    if block.language == "python"
    and block.page.startswith(("README", "docs/tutorial/", "docs/guides/language_model"))
    and ".launch(" in block.text
]
ARGUMENTS = {
    "llm_agent": ("--demo", "--headless"),
    "realtime_api": ("--demo", "--headless"),
    "stop_words": ("--headless",),
    "turn_benchmark": ("--conversations", "1"),
    "virtual_time": (),
    "voice_agent": ("--headless",),
}
"""Arguments with which an example ends by itself."""
LIBRARIES = [name for name in NAMES if name.startswith("fake_")]
"""Servers that other examples start."""
DEPLOYED = ["ray_calls"]
"""Programs for a cluster: tests/ray deploys them."""
LONG = 200
"""Seconds for a program that ends by itself."""
PORTS = (7860, 8000)
"""Default ports of this package, and of uvicorn and Hypercorn."""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir"]
    subprocess.run([*build, str(folder), str(ROOT)], check=True, timeout=200)
    return next(folder.glob("*.whl"))


@functools.cache
def make_environment(folder: Path, requirements: tuple[str, ...]) -> Path:
    """Make a virtual environment with some packages, and return the folder of its programs."""
    path = folder / f"environment{len(list(folder.iterdir()))}"
    subprocess.run([sys.executable, "-m", "venv", str(path)], check=True, timeout=100)
    install = [str(path / "bin" / "python"), "-m", "pip", "install", "--quiet", "--no-compile"]
    subprocess.run([*install, *requirements], check=True, timeout=250)
    return path / "bin"


def find_requirements(text: str, wheel: Path) -> tuple[str, ...]:
    """The packages that a text tells the reader to install, this one as a wheel."""
    lines = INSTALL.findall(text)
    assert lines, f"says nothing about what to install: {text}"
    given = [word for line in lines for word in shlex.split(line)]
    return tuple(sorted({OWN.sub(str(wheel), word, count=1) for word in given}))


def make_variables(programs: Path) -> dict[str, str]:
    """Environment variables of a program, which finds its own packages only."""
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PYTHON", "VIRTUAL_ENV", "NOX"))
    } | {"PATH": f"{programs}:{os.environ['PATH']}"}


async def run_and_call(command: list[str], programs: Path, folder: Path, text: str) -> None:
    """Run a server as its text says, and call it at the address that it prints."""
    for port in PORTS:
        await wait_until(functools.partial(is_free, port), f"port {port}", seconds=60)
    printed: list[str] = []
    async with open_program(command, folder, make_variables(programs), printed, LONG) as process:
        await wait_until(
            lambda: ADDRESS.search("".join(printed)) or process.returncode is not None,
            "the server",
            seconds=60,
        )
        found = ADDRESS.search("".join(printed))
        assert found is not None, "".join(printed)
        path = "/voice" if '"/voice"' in text else ""
        silent = "/input_hook" in text or "Slider(" in text
        await call_program(f"http://127.0.0.1:{found[1]}{path}", text, silent=silent)


@pytest.mark.parametrize("block", PROGRAMS, ids=str)
async def test_program_of_page(block: Block, wheel: Path, tmp_path: Path) -> None:
    above = "\n".join((ROOT / block.page).read_text().split("\n")[: block.line])
    requirements = find_requirements(above, wheel)
    programs = make_environment(wheel.parent, requirements)
    (tmp_path / "program.py").write_text(block.text, encoding="utf-8")
    await run_and_call(["python", "program.py"], programs, tmp_path, block.text)


@pytest.mark.parametrize("name", [name for name in NAMES if name not in (*LIBRARIES, *DEPLOYED)])
async def test_example(name: str, wheel: Path) -> None:
    """An example in a copy of the examples' folder, as its docstring says."""
    text = (EXAMPLES / f"{name}.py").read_text()
    requirements = find_requirements(ast.get_docstring(ast.parse(text)) or "", wheel)
    programs = make_environment(wheel.parent, requirements)
    command = ["python", str(EXAMPLES / f"{name}.py"), *ARGUMENTS.get(name, ())]
    if name not in ARGUMENTS:
        await run_and_call(command, programs, EXAMPLES, text)
        return
    printed: list[str] = []
    variables = make_variables(programs)
    async with open_program(command, EXAMPLES, variables, printed, LONG) as process:
        await process.wait()
