"""Soak a server: ``python -m tests.soak [--minutes 60] [--backend asyncio trio] [--write]``.

One server has clients of every transport that come, talk and leave in every phase, and handlers
that fail in every method. A control call beside them must miss no frame. At checkpoints, everything
but this call must be gone. Then calls go over bad networks. The tables show what has happened, and
the exit code whether all promises were kept.

Parts of it may run at different times: ``--results FILE`` keeps the results of one, and ``--join
FILE ... --write`` writes the page with those of several.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from . import churn, report, results
from .networks import Outcome, Promised
from .results import Soaked
from .video import SHORT, VideoOutcome

_NETWORKS = 30.0
"""Seconds for one call over each bad network, on one backend."""
_LEAST = 20.0
"""Seconds of clients on one backend, at least."""
_ALL_VIDEO = 20
"""Minutes of a run that has video over all networks, at least."""
Kept = TypeVar("Kept", bound=Promised)


def main() -> None:
    """Run the soak, and exit with 1 if a promise was broken."""
    given = _parse_arguments()
    soaked = results.load(given.join) if given.join else asyncio.run(_run(given))
    if given.results:
        soaked.save(given.results)
    print(*filter(None, report.tables(soaked)), sep="\n")
    if soaked.clients:
        print(report.memory_table(soaked.clients))
    failures = soaked.failures()
    if given.write and not failures:
        report.write(soaked)
    print("\n".join(["failed:", *failures]) if failures else "passed")
    sys.exit(bool(failures))


def _parse_arguments() -> argparse.Namespace:
    backends = ["asyncio", "trio"]
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    add = parser.add_argument
    add("--minutes", type=float, default=60, help="time for all of it (60)")
    add("--backend", nargs="+", default=backends, choices=backends)
    add("--callers", type=int, default=6, help="clients at a time (6)")
    add("--seed", type=int, default=0, help="order of the clients (0)")
    add("--trials", type=int, help="calls over each network (1 in 20 minutes)")
    add("--only", choices=["clients", "networks"], help="leave out the rest")
    add("--results", type=Path, metavar="FILE", help="write the results to a file")
    add("--join", type=Path, nargs="+", metavar="FILE", help="run nothing: read results")
    add("--write", action="store_true", help=f"write the tables with results to {report.PAGE}")
    given = parser.parse_args()
    if given.trials is None:
        given.trials = max(1, int(given.minutes // 20))
    return given


async def _run(given: argparse.Namespace) -> Soaked:
    soaked = Soaked()
    seconds = 60 * given.minutes / len(given.backend)
    if given.only is None:
        seconds = max(seconds - _NETWORKS * given.trials, _LEAST)
    if given.only != "clients":
        video: Sequence[str] = () if given.minutes >= _ALL_VIDEO else SHORT
        for backend in given.backend:
            print(f"-- networks, {backend}", flush=True)
            audio, pictures = await asyncio.gather(
                _call("networks", backend, given.trials, (), lambda one: Outcome(**one)),
                _call("video", backend, given.trials, video, VideoOutcome.load),
            )
            soaked.audio += audio
            soaked.video += pictures
    if given.only != "networks":
        for backend in given.backend:
            print(f"-- clients, {backend}, {seconds:.0f} s", flush=True)
            soaked.clients.append(await churn.run(backend, seconds, given.callers, given.seed))
    return soaked


async def _call(
    module: str,
    backend: str,
    trials: int,
    faults: Sequence[str],
    load: Callable[[dict[str, Any]], Kept],
) -> list[Kept]:
    """Call over bad networks."""
    async with churn.start(module, backend, str(trials), *faults) as process:
        outcomes = []
        async for line in process.lines():
            outcomes.append(load(json.loads(line)))
            if not outcomes[-1].is_as_promised:
                print(f"not as promised: {outcomes[-1]}", flush=True)
        return outcomes


if __name__ == "__main__":
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    main()
