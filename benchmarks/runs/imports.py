"""The time, memory and modules of an import, in new processes."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass

from benchmarks.load.server import Server
from benchmarks.processes import Cores
from benchmarks.results import Row

_PROGRAM = """
import json, resource, sys, time
sys.path[:0] = sys.argv[2:]
wall, cpu = time.perf_counter(), time.process_time()
__import__(sys.argv[1])
wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
print(json.dumps({"wall": wall, "cpu": cpu, "memory": memory, "modules": len(sys.modules)}))
"""
_PACKAGES = {"ours": "fastrtc_anyio", "fastrtc": "fastrtc", "raw": "aiortc"}


@dataclass(frozen=True)
class Run:
    """The server whose package is imported."""

    server: Server
    cores: Cores


def run(spec: Run) -> list[Row]:
    """Import once to fill the caches, and again to measure."""
    kind, _, _, _, *tree = spec.server.arguments
    package = _PACKAGES[kind]
    command = [spec.server.python, "-c", _PROGRAM, package, *tree]
    os.sched_setaffinity(0, {spec.cores.server})
    values: dict[str, float] = {}
    for _ in range(2):
        done = subprocess.run(
            command, env=spec.server.environment, stdout=subprocess.PIPE, check=True
        )
        values = json.loads(done.stdout)
    return [Row("import", values)]
