"""Run suites, print their tables, and write all measurements to a file.

``python -m benchmarks echo --calls 10 20 --rounds 3``; docs/performance.md explains the suites.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.names import check_server
from benchmarks.processes import choose_cores
from benchmarks.results import Measurement, format_plain, table
from benchmarks.suites import SUITES, Options, measure

CALLS = (1, 5, 10, 20)
FULL_CALLS = (*CALLS, 40, 60)
_FINDS_FASTRTC = "import sys, importlib.util as u; sys.exit(u.find_spec('fastrtc') is None)"


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    listing = "; ".join(f"{name}: {suite.help}" for name, suite in SUITES.items())
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    add = parser.add_argument
    add("suites", nargs="*", metavar="SUITE", help=f"default: all. {listing}")
    add("--quick", action="store_true", help="one short round")
    add("--full", action="store_true", help="more servers, and 1 to 60 calls: about an hour")
    add("--rounds", type=count, help="rounds of interleaved runs; default 3")
    add("--seconds", type=duration, help="seconds of each measurement; default 5")
    add("--settle", type=duration, default=2.0, help="seconds before each measurement; default 2")
    add("--calls", type=count, nargs="+", help="numbers of calls; default 1 5 10 20")
    add("--cycles", type=count, help="calls of suites connections and memory; default 200")
    add(
        "--servers", type=server, nargs="+", default=[], help="such as ours-async-24-trio raw-plain"
    )
    add("--tree", type=source_tree, nargs="+", default=[], help="more source trees of this package")
    add("--fastrtc", default=sys.executable, help="interpreter that has FastRTC")
    add("--json", type=Path, default=Path("benchmarks.json"), help="file for the measurements")
    options = parser.parse_args(arguments)
    for suite in options.suites:
        if suite not in SUITES:
            parser.error(f"unknown suite {suite}; choose from {', '.join(SUITES)}")
    for suite in options.suites or SUITES:
        for name in options.servers:
            try:
                SUITES[suite].check(name)
            except ValueError as exc:
                parser.error(f"suite {suite} {exc}")
    if sys.platform != "linux":
        parser.error(f"needs Linux, for /proc and the choice of cores; this is {sys.platform}")
    return options


def count(text: str) -> int:
    if not (text.isdecimal() and int(text)):
        raise argparse.ArgumentTypeError(f"must be a positive whole number; got {text}")
    return int(text)


def duration(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < math.inf:
        raise argparse.ArgumentTypeError(f"must be a number of seconds; got {text}")
    return seconds


def server(text: str) -> str:
    try:
        check_server(text)
    except ValueError as exc:
        raise argparse.ArgumentTypeError(str(exc)) from None
    return text


def source_tree(text: str) -> Path:
    if not (Path(text) / "fastrtc_anyio").is_dir():
        raise argparse.ArgumentTypeError(f"{text} contains no folder fastrtc_anyio")
    return Path(text).resolve()


def check_fastrtc(python: str) -> None:
    """Exit with an explanation if FastRTC is not installed for an interpreter."""
    try:
        found = subprocess.run([python, "-c", _FINDS_FASTRTC], check=False).returncode == 0
    except OSError:
        found = False
    if not found:
        sys.exit(
            f"--fastrtc must be a Python interpreter with FastRTC installed; got {python}. "
            "`nox -s bench` installs one; without it, choose --servers of other kinds."
        )


def main(arguments: list[str] | None = None) -> None:
    chosen = parse(arguments)
    options = Options(
        servers=tuple(chosen.servers),
        calls=tuple(sorted(chosen.calls or (FULL_CALLS if chosen.full else CALLS))),
        seconds=chosen.seconds or (3 if chosen.quick else 5),
        settle=chosen.settle,
        cycles=chosen.cycles or (40 if chosen.quick else 200),
        cores=choose_cores(),
        full=chosen.full,
        fastrtc=chosen.fastrtc,
        trees=tuple(chosen.tree),
    )
    suites = chosen.suites or list(SUITES)
    cases = [case for name in suites for case in SUITES[name].cases(options)]
    if any(case.server.startswith("fastrtc-") for case in cases):
        check_fastrtc(options.fastrtc)
    if options.cores.shared:
        text = (
            "This process may use one core only; two are needed: the generator disturbs the servers"
        )
        print(text, file=sys.stderr)
    found: list[Measurement] = []
    for name in suites:
        measured = list(measure(name, options, chosen.rounds or (1 if chosen.quick else 3)))
        found += measured
        write(chosen.json, found)
        print_table(name, measured)


def print_table(name: str, measured: list[Measurement]) -> None:
    """Print the table of a suite, and mark the rows that the generator spoiled."""
    print(f"\n{name}: {SUITES[name].help}")
    if measured:
        print(format_plain(table(measured, SUITES[name].columns)))
    if not all(one.values.get("valid", True) for one in measured):
        print("(!) not comparable: the generator was too slow in a round")


def write(path: Path, found: list[Measurement]) -> None:
    """Write all measurements, with the machine that they are from."""
    machine: dict[str, Any] = {
        "cores": os.cpu_count(),
        "processor": processor(),
        "python": sys.version.split()[0],
        "load": os.getloadavg()[0],
    }
    content = {
        "time": time.strftime("%Y-%m-%d %H:%M:%S"),
        "machine": machine,
        "measurements": [asdict(one) for one in found],
    }
    path.write_text(json.dumps(content, indent=1) + "\n")


def processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else "unknown"


if __name__ == "__main__":
    main()
