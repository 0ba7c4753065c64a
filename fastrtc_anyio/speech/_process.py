"""A model in a separate Python process, because it holds the GIL while it works.

Threads do not help with such a model: as long as it works, no other Python code of the process
runs, and all calls stand still.
"""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import weakref
from contextlib import suppress
from pathlib import Path
from typing import cast

from fastrtc_anyio._core.host import Lock

__all__ = ["ModelProcess"]


class ModelProcess:
    """Runs a program that answers requests one after another. Any thread may send one.

    The program starts again with the next request after it has ended unexpectedly, and once in each
    process that is forked from this one. It ends with this object or this process.

    Args:
        program: path of the program, a Python file; :mod:`._pocketsphinx_process` describes the
            protocol.
        arguments: what follows ``sys.path`` in the first request.

    Raises:
        RuntimeError: the program could not be started.
        Exception: the program answered the first request with it.
    """

    def __init__(self, program: Path, *arguments: object) -> None:
        self._program = program
        self._arguments = arguments
        self._lock = Lock()
        with self._lock:
            self._process = self._start()

    def request(self, *request: object) -> object:
        """Send a request and wait for the answer.

        Raises:
            RuntimeError: the program ended.
            Exception: the program answered with it.
        """
        with self._lock:
            if self._owner != os.getpid() or self._process.poll() is not None:
                self._process = self._start()
            return self._exchange(self._process, request)

    def _start(self) -> subprocess.Popen[bytes]:
        # -P: the program's folder has modules with the names of packages, such as pocketsphinx.
        command = [sys.executable, "-P", str(self._program)]
        try:
            process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        except OSError as exc:
            raise RuntimeError(f"could not start {' '.join(command)}: {exc}") from exc
        self._owner = os.getpid()
        try:
            self._exchange(process, (sys.path, *self._arguments))
        except BaseException:
            _end(process, self._owner)
            raise
        weakref.finalize(self, _end, process, self._owner)
        return process

    def _exchange(self, process: subprocess.Popen[bytes], request: tuple[object, ...]) -> object:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            pickle.dump(request, process.stdin)
            process.stdin.flush()
            succeeded, value = pickle.load(process.stdout)
        except (EOFError, OSError) as exc:
            _end(process, self._owner)
            raise RuntimeError(
                f"{self._program.name} ended unexpectedly with status {process.returncode}"
            ) from exc
        except BaseException:  # Ctrl-C: the next request would read its answer
            _end(process, self._owner)
            raise
        if succeeded:
            return value
        raise cast(Exception, value)


def _end(process: subprocess.Popen[bytes], owner: int) -> None:
    if owner != os.getpid():  # a fork must not end the process of its parent
        return
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None and not pipe.closed:
            with suppress(OSError):  # unsent data
                pipe.close()
