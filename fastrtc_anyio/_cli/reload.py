"""``serve --reload``: serve in a child process, and restart it when a source file changes."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import anyio
from anyio import CancelScope, create_task_group, move_on_after
from anyio.abc import Process

_POLL_S = 0.5
_STOP_S = 15.0
"""Seconds for the server to end its calls: more than the default limits of a session."""
_SKIPPED = {"__pycache__", "node_modules", "site-packages"}

Times = Mapping[str, int]
"""Modification times of source files, in nanoseconds."""


async def serve_reloading(arguments: Sequence[str], folders: Sequence[Path]) -> bool:
    """Run ``python -m fastrtc_anyio`` with ``arguments`` until Ctrl-C, and restart it whenever a
    Python file in ``folders`` changes.

    A server that has ended by itself, for instance because of a syntax error, is started again at
    the next change.
    """
    # SIGHUP, too: the server would outlive the terminal.
    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM, signal.SIGHUP) as signals:
        async with create_task_group() as tg:
            tg.start_soon(_serve_again, arguments, folders)
            async for _ in signals:
                tg.cancel_scope.cancel()
    return True


async def _serve_again(arguments: Sequence[str], folders: Sequence[Path]) -> None:
    command = [sys.executable, "-m", "fastrtc_anyio", *arguments]
    times = _read_times(folders)
    while True:
        # In a new session, so that a terminal's Ctrl-C does not reach it: this process ends
        # it, and a second signal would interrupt the end of its calls.
        process = await anyio.open_process(
            command, stdin=None, stdout=None, stderr=None, start_new_session=True
        )
        try:
            times = await _wait_for_change(process, times, folders)
        finally:
            with CancelScope(shield=True):
                await _stop(process)


async def _wait_for_change(process: Process, before: Times, folders: Sequence[Path]) -> Times:
    told = False
    while True:
        await anyio.sleep(_POLL_S)
        if process.returncode is not None and not told:
            told = True
            print("waiting for a change of a source file", file=sys.stderr)
        now = _read_times(folders)
        if changed := _find_change(before, now):
            print(f"{changed} has changed: restarting", file=sys.stderr)
            return now


async def _stop(process: Process) -> None:
    """End a server as Ctrl-C does: its clients learn that it is stopping."""
    if process.returncode is None:
        process.send_signal(signal.SIGINT)  # SIGTERM would drain
        with move_on_after(_STOP_S) as scope:
            await process.wait()
        if scope.cancelled_caught:
            process.kill()
    await process.wait()


def _find_change(before: Times, now: Times) -> str | None:
    """Return the first file that is new, modified or gone."""
    return next((os.path.relpath(path) for path, _ in sorted(before.items() ^ now.items())), None)


def _read_times(folders: Sequence[Path]) -> Times:
    times: dict[str, int] = {}
    for folder in folders:
        for entry in _find_sources(str(folder)):
            try:
                times[entry.path] = entry.stat().st_mtime_ns
            except OSError:
                continue  # an editor has replaced it
    return times


def _find_sources(folder: str) -> Iterator[os.DirEntry[str]]:
    """Yield the Python files of a folder, without hidden folders and environments."""
    try:
        with os.scandir(folder) as entries:
            found = list(entries)
    except OSError:
        return
    if any(entry.name == "pyvenv.cfg" for entry in found):
        return
    for entry in found:
        if entry.name.endswith(".py"):
            yield entry
        elif not (entry.name.startswith(".") or entry.name in _SKIPPED) and entry.is_dir(
            follow_symlinks=False
        ):
            yield from _find_sources(entry.path)
