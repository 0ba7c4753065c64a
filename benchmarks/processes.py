"""Cores, CPU time, memory and context switches of processes, from /proc. Linux only."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Cores:
    """Cores of a run. Both are the same on a machine with one core."""

    server: int
    generator: int

    @property
    def shared(self) -> bool:
        return self.server == self.generator


def choose_cores() -> Cores:
    """Choose the first two cores that this process may use."""
    cores = sorted(os.sched_getaffinity(0))
    return Cores(cores[0], cores[-1])


def process_tree(pid: int) -> list[int]:
    """Return a process and its descendants."""
    pids = [pid]
    for parent in pids:
        for task in Path(f"/proc/{parent}/task").glob("*/children"):
            pids += map(int, task.read_text().split())
    return pids


def cpu_seconds(pid: int) -> float:
    """Return the CPU time of a process tree, with its ended threads but not its ended children."""
    # The clock of another process's CPU time: MAKE_PROCESS_CPUCLOCK in the kernel's posix-timers.h.
    # /proc/PID/stat counts in steps of 10 ms, and /proc/PID/schedstat the main thread alone.
    return sum(time.clock_gettime((~one << 3) | 2) for one in process_tree(pid))


def context_switches(pid: int) -> int:
    """Return the context switches of the living threads of a process tree."""
    return sum(
        int(line.split()[1])
        for one in process_tree(pid)
        for task in Path(f"/proc/{one}/task").glob("*/status")
        for line in task.read_text().splitlines()
        if "ctxt_switches" in line
    )


def memory_bytes(pid: int) -> int:
    """Return the resident memory of a process tree."""
    pages = sum(int(Path(f"/proc/{one}/statm").read_text().split()[1]) for one in process_tree(pid))
    return pages * os.sysconf("SC_PAGE_SIZE")


def thread_count(pid: int) -> int:
    """Return the number of threads of a process tree."""
    return sum(len(os.listdir(f"/proc/{one}/task")) for one in process_tree(pid))


def descriptor_count(pid: int) -> int:
    """Return the number of open file descriptors of a process tree."""
    return sum(len(os.listdir(f"/proc/{one}/fd")) for one in process_tree(pid))
