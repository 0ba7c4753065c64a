"""The long form of fuzzing: ``python -m tests.fuzz [--seconds 60] [--backend trio] [TARGET ...]``.

Each target runs in a separate process, guided by coverage if atheris is installed and otherwise
with random inputs. A finding is a file in ``.fuzz/findings``; ``--replay FILE TARGET`` repeats it.
"""

from __future__ import annotations

import argparse
import os
import random
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from anyio import from_thread

FOLDER = Path(".fuzz")
_LENGTH = 96
"""Maximum bytes of an input: each decides something."""
_INSTRUMENTED = ["fastrtc_anyio", "aioice", "aiortc"]


def main() -> None:
    """Run the targets named on the command line, or all."""
    given = _parse_arguments()
    virtual, real = _load(instrumented=given.inside)
    names = [*virtual, *real]
    targets: list[str] = given.targets or names
    if unknown := set(targets) - set(names):
        sys.exit(f"no target {', '.join(unknown)}; there are {', '.join(names)}")
    if given.replay is None and not given.inside:
        sys.exit(_run_all(targets, given.seconds, given.backend))
    if targets[0] in virtual:
        opened = _open_virtual(virtual[targets[0]], given.backend)
    else:
        opened = _open_real(real[targets[0]], given.backend)
    with opened as feed:
        if given.replay is not None:
            feed(Path(given.replay).read_bytes())
            print("no finding")
        else:
            _fuzz(targets[0], feed, given.seconds)


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help="by default all")
    parser.add_argument("--seconds", type=int, default=60, help="time for each target (60)")
    parser.add_argument("--backend", default="asyncio", choices=["asyncio", "trio"])
    parser.add_argument("--replay", metavar="FILE", help="feed this input to one target")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


def _load(*, instrumented: bool) -> tuple[dict[str, Any], dict[str, Any]]:
    """Import the targets on virtual time, and those with connections.

    With ``instrumented``, the modules under test report their branches.
    """
    hook: Any = nullcontext()
    if instrumented and find_spec("atheris") is not None:
        hook = _atheris().instrument_imports(include=_INSTRUMENTED)
    with hook:
        from . import connections, packets, targets
    return dict(targets.TARGETS), {**connections.TARGETS, **packets.TARGETS}


def _atheris() -> Any:
    """Import atheris, which has no types and is not installed with the other tools."""
    return import_module("atheris")


def _run_all(targets: list[str], seconds: int, backend: str) -> int:
    """Run targets one after the other, and return how many had a finding."""
    failed = []
    for name in targets:
        print(f"-- {name}, {seconds} s on {backend}", flush=True)
        command = [sys.executable, "-m", "tests.fuzz", "--inside", name]
        command += ["--seconds", str(seconds), "--backend", backend]
        if subprocess.run(command, check=False).returncode:
            failed.append(name)
    if failed:
        print(f"findings in {', '.join(failed)}: see {FOLDER / 'findings'}")
    return len(failed)


def _fuzz(name: str, feed: Callable[[bytes], None], seconds: int) -> None:
    corpus, findings = FOLDER / "corpus" / name, FOLDER / "findings"
    corpus.mkdir(parents=True, exist_ok=True)
    findings.mkdir(parents=True, exist_ok=True)
    if find_spec("atheris") is None:
        print("atheris is not installed: inputs are random")
        _feed_random(name, feed, seconds, findings)
        return
    atheris = _atheris()
    options = [f"-max_total_time={seconds}", f"-max_len={_LENGTH}", "-len_control=0"]
    options += [f"-artifact_prefix={findings}/{name}-", "-rss_limit_mb=0", "-timeout=60"]
    atheris.Setup([sys.argv[0], *options, str(corpus)], feed)
    atheris.Fuzz()  # exits the process


def _feed_random(name: str, feed: Callable[[bytes], None], seconds: float, findings: Path) -> None:
    chance, count, end = random.Random(), 0, time.monotonic() + seconds
    while time.monotonic() < end:
        data = chance.randbytes(chance.randrange(_LENGTH))
        count += 1
        try:
            feed(data)
        except BaseException:
            (findings / f"{name}-{data.hex()[:16]}").write_bytes(data)
            traceback.print_exc()
            print(f"input: {data!r}")
            sys.exit(1)
    print(f"{count} inputs, no finding")


@contextmanager
def _open_real(open_target: Any, backend: str) -> Iterator[Callable[[bytes], None]]:
    """Yield a function that feeds an input on an event loop in another thread."""
    with (
        from_thread.start_blocking_portal(backend) as portal,
        portal.wrap_async_context_manager(open_target()) as feed,
    ):
        yield lambda data: portal.call(feed, data)


@contextmanager
def _open_virtual(feed: Any, backend: str) -> Iterator[Callable[[bytes], None]]:
    """Do the same on virtual time."""
    options: dict[str, Any]
    if backend == "trio":
        import trio.testing

        options = {"clock": trio.testing.MockClock(autojump_threshold=0)}
    else:
        from tests.kit.virtual_asyncio import VirtualLoop

        options = {"loop_factory": VirtualLoop}
    with from_thread.start_blocking_portal(backend, options) as portal:
        yield lambda data: portal.call(feed, data)


if __name__ == "__main__":
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    main()
