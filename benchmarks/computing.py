"""Measure what code that computes does to the calls of the same process.

``python -m benchmarks.computing [--seconds 4] [--calls 5]`` serves an echo in one process, calls it
from another, and has the server compute: in Python on threads, as plain handlers and ``run_sync``
do, in numpy, which releases Python's global lock (GIL), and on the event loop. ``--write`` updates
docs/concepts/threads.md. Needs a machine with two idle cores.

"Late" is how much later a packet is sent than its time, and "echo later by" the additional delay of
the sound, compared with the time before. A frame is missed if it is more than 100 ms late, silent,
or does not arrive.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import sys
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import anyio
import httpx
import numpy as np
from anyio.streams.buffered import BufferedByteReceiveStream

from fastrtc_anyio import Limits, RequestLimits, run_sync
from fastrtc_anyio._media.decode import create_decoder
from tests.kit.aiortc_client import AiortcClient, client_loop
from tests.kit.calls import make_stream, serve
from tests.soak.control import on_packets
from tests.soak.ladder import FRAME, RATE, Ladder, Listener, make_payloads

PAGE = Path(__file__).parents[1] / "docs" / "concepts" / "threads.md"
BEGIN, END = "<!-- written by python -m benchmarks.computing --write -->\n", "<!-- end -->"
LATE = 0.1
SILENCE = 500
"""Peak below which a frame is not an echo of the tones."""
SETTLING = 2.5
_REST = 0.5
_MATRIX = 256


@dataclass(frozen=True)
class Work:
    """What a server computes.

    Attributes:
        kind: "python" or "numpy" on threads; "loop" on the event loop.
        threads: number of threads.
        hold: seconds for which the event loop is held, in each half second.
        interval: `sys.setswitchinterval`, seconds.
        seconds: duration.
    """

    kind: str
    threads: int = 0
    hold: float = 0.0
    interval: float = 0.005
    seconds: float = 0.0

    @property
    def name(self) -> str:
        if self.kind == "nothing":
            return self.kind
        if self.kind == "loop":
            return f"event loop, {1000 * self.hold:.0f} ms at a time"
        threads = f"{self.threads} thread{'s' * (self.threads > 1)}"
        interval = f", switch interval {1000 * self.interval:g} ms"
        return f"{self.kind.title()}, {threads}{interval * (self.interval < 0.005)}"


WORK = [
    Work("nothing"),
    *[Work("python", threads) for threads in (1, 2, 4)],
    *[Work("python", threads, interval=0.001) for threads in (1, 2, 4)],
    *[Work("numpy", threads) for threads in (1, 2, 4)],
    *[Work("loop", hold=hold) for hold in (0.02, 0.05, 0.1, 0.2)],
]


def burn(end: float) -> None:
    while time.perf_counter() < end:
        sum(range(1000))


def multiply(end: float) -> None:
    matrix = np.ones((_MATRIX, _MATRIX))
    while time.perf_counter() < end:
        np.matmul(matrix, matrix)


async def compute(work: Work) -> None:
    """Do some work in this process."""
    end = time.perf_counter() + work.seconds
    if work.kind in ("python", "numpy"):
        sys.setswitchinterval(work.interval)
        function = burn if work.kind == "python" else multiply
        async with anyio.create_task_group() as tasks:
            for _ in range(work.threads):
                tasks.start_soon(run_sync, function, end)
        sys.setswitchinterval(0.005)
    if work.kind == "nothing":
        await anyio.sleep(work.seconds)
    while work.kind == "loop" and time.perf_counter() < end:
        burn(time.perf_counter() + work.hold)
        await anyio.sleep(_REST - work.hold)


async def run_server() -> None:
    """Serve an echo, and compute what a line of the standard input says."""
    stream = make_stream(
        limits=Limits(block=None),
        request_limits=RequestLimits(client_requests=10_000, client_sessions=1000),
        verbose=False,
    )
    async with serve(stream) as url:
        print(url, flush=True)
        async for line in anyio.wrap_file(sys.stdin):
            await compute(Work(**json.loads(line)))
            print("done", flush=True)


class Ear:
    """Counts what one call hears."""

    def __init__(self, ladder: Ladder) -> None:
        self._decoder = create_decoder("opus", RATE, 1)
        self._listener = Listener(ladder)
        self._heard: list[
            tuple[float, float, bool]
        ] = []  # arrival, place, and whether it is silent

    def hear(self, packet: Any) -> None:
        now = time.monotonic()
        samples = self._decoder.decode(packet.payload)[0]
        self._listener.hear(samples, now)
        silent = int(np.abs(samples.astype(np.int32)).max()) < SILENCE
        self._heard.append((now, now - packet.timestamp / RATE, silent))

    def count(self, since: float, until: float) -> Heard:
        """Return what was heard in a time, compared with what was heard before."""
        usual = float(np.median([place for at, place, _ in self._heard if at < since][-25:]))
        heard = [one for one in self._heard if since <= one[0] < until]
        late = [place - usual for _, place, _ in heard]
        arrivals = [since, *[at for at, _, _ in heard], until]
        before = np.median([delay for at, delay in self._listener.delays if at < since][-10:])
        delays = [delay for at, delay in self._listener.delays if since <= at < until]
        expected = round((until - since) / FRAME)
        lost = max(expected - len(heard), 0)
        missed = lost + sum(place - usual > LATE or silent for _, place, silent in heard)
        return Heard(
            late or [math.inf],
            max(later - one for one, later in pairwise(arrivals)),
            [delay - float(before) for delay in delays],
            missed / expected,
        )


@dataclass
class Heard:
    """What one call has heard in some time; seconds."""

    late: list[float]
    gap: float
    delays: list[float]
    missed: float


def run_client(url: str, calls: int) -> None:
    """Call a server, and print what was heard between two lines of the standard input."""
    payloads = make_payloads()
    ears: list[Ear] = []
    with client_loop() as loop:
        for number in range(calls):
            ladder: Any = Ladder(payloads)
            client = AiortcClient(loop, ladder)
            body = {"sdp": client.run(client.make_offer, None, False), "type": "offer"}
            body["webrtc_id"] = f"call {number} {time.time()}"
            answer = httpx.post(f"{url}/webrtc/offer", json=body, timeout=20)
            client.run(client.accept, answer.raise_for_status().json()["sdp"])
            assert client.connected.wait(20)
            ears.append(Ear(ladder))
            on_packets(client, ears[-1].hear)
        time.sleep(SETTLING)
        print("connected", flush=True)
        sys.stdin.readline()
        since = time.monotonic()
        sys.stdin.readline()
        found = [one.count(since, time.monotonic()) for one in ears]
        delays = [value for one in found for value in one.delays] or [math.inf]
        shown = {
            "late": float(np.percentile([value for one in found for value in one.late], 99)),
            "gap": max(one.gap for one in found),
            "delay": float(np.median(delays)),
            "missed": float(np.mean([one.missed for one in found])),
        }
        print(json.dumps(shown), flush=True)


@asynccontextmanager
async def open_process(*arguments: object) -> AsyncGenerator[Callable[..., Any], None]:
    """Start a part of this in a process, and exchange lines with it."""
    command = [sys.executable, "-m", "benchmarks.computing", *map(str, arguments)]
    async with await anyio.open_process(command, stderr=None) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        lines = BufferedByteReceiveStream(process.stdout)

        async def ask(line: str, answers: int = 1) -> str:
            if line:
                await process.stdin.send(f"{line}\n".encode())  # type: ignore[union-attr]
            return "" if not answers else (await lines.receive_until(b"\n", 10_000)).decode()

        yield ask
        process.terminate()


async def measure(seconds: float, calls: int) -> str:
    """Return the table."""
    text = (
        "| computes | late, p99 | longest gap | echo later by | missed |\n" + "| --- " * 5 + "|\n"
    )
    for work in WORK:
        # In new calls: playout remembers how late audio has been.
        async with open_process("--serve") as server:
            url = (await server("")).strip()
            async with open_process("--call", url, calls) as client:
                await client("")
                await client("begin", 0)
                await server(json.dumps(asdict(replace(work, seconds=seconds))))
                one = json.loads(await client("end"))
        times = [f"{1000 * max(one[key], 0):.0f} ms" for key in ("late", "gap", "delay")]
        row = f"| {work.name} | {' | '.join(times)} | {one['missed']:.1%} |\n"
        print(row, end="", file=sys.stderr, flush=True)
        text += row
    return text


def write(table: str) -> None:
    """Replace the table of the page."""
    before, _, rest = PAGE.read_text("utf-8").partition(BEGIN)
    _, end, after = rest.partition(END)
    assert end, f"{PAGE} has no place for the table"
    PAGE.write_text(f"{before}{BEGIN}{table}{end}{after}", "utf-8")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--serve"]:
        anyio.run(run_server, backend="trio")
    elif sys.argv[1:2] == ["--call"]:
        run_client(sys.argv[2], int(sys.argv[3]))
    else:
        parser = argparse.ArgumentParser(description=__doc__)
        parser.add_argument("--seconds", type=float, default=4)
        parser.add_argument("--calls", type=int, default=5)
        parser.add_argument("--write", action="store_true", help="update the page")
        options = parser.parse_args()
        result = asyncio.run(measure(options.seconds, options.calls))
        print(result)
        if options.write:
            write(result)
