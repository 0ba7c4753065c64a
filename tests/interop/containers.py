"""Build and run a Dockerfile without Docker, in a scratch folder.

The folder stands for the root of the container's file system, and a new virtual environment for the
Python of its image. Instructions are carried out in order. An unknown instruction is an
error.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

_UNTOUCHED = ("HOME", "TMPDIR", "LANG", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE")
"""Variables of this machine that a step keeps, besides those of pip and of HTTP proxies."""


class ContainerError(Exception):
    """The Dockerfile cannot be carried out here, or a step failed."""


@dataclass
class Container:
    """The result of a build.

    Attributes:
        root: folder that stands for ``/``.
        command, probe: the commands of ``CMD`` and ``HEALTHCHECK``.
        user: numeric user and group of ``USER``.
    """

    root: Path
    folder: Path = field(init=False)
    variables: dict[str, str] = field(init=False)
    command: list[str] = field(default_factory=list)
    probe: list[str] = field(default_factory=list)
    user: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        self.folder = self.root
        kept = {
            name: value
            for name, value in os.environ.items()
            if name in _UNTOUCHED or name.startswith("PIP_") or name.lower().endswith("_proxy")
        }
        self.variables = kept | {"PATH": f"{self.root / 'python' / 'bin'}:/usr/bin:/bin"}

    def place(self, path: str) -> Path:
        """The path here of one in the container."""
        return self.root / path.lstrip("/") if path.startswith("/") else self.folder / path

    def resolve(self, command: list[str]) -> list[str]:
        """Return a command with the full path of its program, found as the container finds it."""
        program = shutil.which(command[0], path=self.variables["PATH"])
        if program is None:
            raise ContainerError(f"{command[0]} is not installed in the container")
        return [program, *command[1:]]

    @property
    def identity(self) -> dict[str, int]:
        """Arguments that start a process as ``USER``.

        Only root can, and only if others may run this Python: one below ``/root`` is out of reach.
        """
        python = Path(sys.base_prefix).resolve()
        open_to_others = all(folder.stat().st_mode & 0o001 for folder in (python, *python.parents))
        if self.user is None or os.geteuid() != 0 or not open_to_others:
            return {}
        return {"user": self.user[0], "group": self.user[1]}


def build(dockerfile: str, context: Path, root: Path) -> Container:
    """Carry out the instructions of a Dockerfile with the files of ``context``.

    Raises:
        ContainerError: an instruction is unknown or unsuitable, or a command failed.
    """
    container = Container(root)
    for instruction, text in parse(dockerfile):
        step = _STEPS.get(instruction)
        if step is None:
            raise ContainerError(f"unknown instruction: {instruction}")
        step(container, text, context)
    return container


def parse(dockerfile: str) -> list[tuple[str, str]]:
    """Return the instructions with their arguments; comments are dropped, and lines joined."""
    lines = [line for line in dockerfile.splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    pairs = [line.split(maxsplit=1) for line in joined.splitlines() if line.strip()]
    return [(name.upper(), text) for name, text in pairs]


def _from(container: Container, text: str, _context: Path) -> None:
    if not text.startswith("python:"):
        raise ContainerError(f"an image with Python is needed; got {text}")
    python = container.root / "python"
    subprocess.run([sys.executable, "-m", "venv", str(python)], check=True)


def _env(container: Container, text: str, _context: Path) -> None:
    container.variables |= dict(pair.split("=", 1) for pair in shlex.split(text))


def _workdir(container: Container, text: str, _context: Path) -> None:
    container.folder = container.place(text)
    container.folder.mkdir(parents=True, exist_ok=True)


def _copy(container: Container, text: str, context: Path) -> None:
    *sources, target = shlex.split(text)
    place = container.place(target)
    if target.endswith(("/", ".")):
        place.mkdir(parents=True, exist_ok=True)
    for source in sources:
        shutil.copy(context / source, place)


def _run(container: Container, text: str, _context: Path) -> None:
    if re.search(r"(?:^|\s)/", text):
        raise ContainerError(f"the command must not name a path outside of its folder: {text}")
    done = subprocess.run(
        ["/bin/sh", "-c", text],
        cwd=container.folder,
        env=container.variables,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise ContainerError(f"{text}: status {done.returncode}\n{done.stdout}{done.stderr}")


def _user(container: Container, text: str, _context: Path) -> None:
    user, _, group = text.partition(":")
    container.user = int(user), int(group)


def _healthcheck(container: Container, text: str, _context: Path) -> None:
    container.probe = _read_list(text.partition("CMD ")[2])


def _cmd(container: Container, text: str, _context: Path) -> None:
    container.command = _read_list(text)


def _read_list(text: str) -> list[str]:
    """Read a command in the form that starts no shell, which would not pass on signals."""
    command = json.loads(text)
    if not isinstance(command, list):
        raise ContainerError(f"a command must be a list; got {text}")
    return [str(word) for word in command]


_STEPS = {
    "FROM": _from,
    "ENV": _env,
    "WORKDIR": _workdir,
    "COPY": _copy,
    "RUN": _run,
    "USER": _user,
    "HEALTHCHECK": _healthcheck,
    "CMD": _cmd,
}
