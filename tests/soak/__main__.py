"""Soak a server: ``python -m tests.soak [--minutes 60] [--backend asyncio trio] [--write]``.

One server has clients of every transport that come, talk and leave in every phase, and handlers
that fail in every method. A control call beside them must miss no frame. At checkpoints, everything
but this call must be gone. Then calls go over bad networks. The tables show what has happened, and
the exit code whether all promises were kept.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys

from . import churn, report
from .networks import Outcome

_NETWORKS = 30.0
"""Seconds for one call over each bad network, on one backend."""
_LEAST = 20.0
"""Seconds of clients on one backend, at least."""


def main() -> None:
    """Run the soak, and exit with 1 if a promise was broken."""
    given = _parse_arguments()
    results, outcomes = asyncio.run(_run(given))
    failures = [f"{result.backend}: {one}" for result in results for one in result.failures]
    failures += _check_networks(outcomes)
    if results:
        print(f"\n{report.summary(results)}\n{report.fault_table(results)}")
        print(report.memory_table(results))
    if outcomes:
        print(report.network_table(outcomes))
    if given.write and not failures:
        report.write(results, outcomes)
    print("\n".join(["failed:", *failures]) if failures else "passed")
    sys.exit(bool(failures))


def _parse_arguments() -> argparse.Namespace:
    backends = ["asyncio", "trio"]
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=60, help="time for all of it (60)")
    parser.add_argument("--backend", nargs="+", default=backends, choices=backends)
    parser.add_argument("--callers", type=int, default=6, help="clients at a time (6)")
    parser.add_argument("--seed", type=int, default=0, help="order of the clients (0)")
    parser.add_argument("--trials", type=int, help="calls over each network (1 in 20 minutes)")
    parser.add_argument("--only", choices=["clients", "networks"], help="leave out the rest")
    parser.add_argument("--write", action="store_true", help=f"write the tables of {report.PAGE}")
    given = parser.parse_args()
    if given.write and given.only:
        parser.error("--write needs both parts")
    if given.trials is None:
        given.trials = max(1, int(given.minutes // 20))
    return given


async def _run(given: argparse.Namespace) -> tuple[list[churn.Result], list[Outcome]]:
    results: list[churn.Result] = []
    outcomes: list[Outcome] = []
    seconds = 60 * given.minutes / len(given.backend)
    if given.only is None:
        seconds = max(seconds - _NETWORKS * given.trials, _LEAST)
    if given.only != "clients":
        for backend in given.backend:
            print(f"-- networks, {backend}", flush=True)
            outcomes += await _call_over_networks(backend, given.trials)
    if given.only != "networks":
        for backend in given.backend:
            print(f"-- clients, {backend}, {seconds:.0f} s", flush=True)
            results.append(await churn.run(backend, seconds, given.callers, given.seed))
    return results, outcomes


async def _call_over_networks(backend: str, trials: int) -> list[Outcome]:
    async with churn.start("networks", backend, str(trials)) as process:
        outcomes = []
        async for line in process.lines():
            outcomes.append(Outcome(**json.loads(line)))
            if not outcomes[-1].is_as_promised:
                print(f"not as promised: {outcomes[-1]}", flush=True)
        return outcomes


def _check_networks(outcomes: list[Outcome]) -> list[str]:
    """Return the faults that no call survived as promised."""
    names = {one.fault for one in outcomes}
    kept = {one.fault for one in outcomes if one.is_as_promised}
    return [
        f"network, {name}: {[one for one in outcomes if one.fault == name]}"
        for name in sorted(names - kept)
    ]


if __name__ == "__main__":
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    main()
