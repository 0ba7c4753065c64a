"""The way of a frame between the transport's thread and the handler, without network and codec."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass

from benchmarks.load.server import Server
from benchmarks.processes import Cores
from benchmarks.results import Row

MODULE = ("-m", "benchmarks.servers", "bridge")


@dataclass(frozen=True)
class Run:
    """Sessions in one process.

    Attributes:
        calls: number of sessions.
        seconds: duration of the measurement.
    """

    server: Server
    cores: Cores
    calls: int
    seconds: float


def run(spec: Run) -> list[Row]:
    """Return one row."""
    os.sched_setaffinity(0, {spec.cores.server})
    _, _, _, backend, *tree = spec.server.arguments
    frames = str(round(spec.seconds * 50))
    done = subprocess.run(
        [spec.server.python, *MODULE, str(spec.calls), frames, backend, *tree],
        env=spec.server.environment,
        stdout=subprocess.PIPE,
        check=True,
    )
    return [Row(f"{spec.calls} calls", json.loads(done.stdout))]
