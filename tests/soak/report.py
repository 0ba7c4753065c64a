"""Tables of what a soak has shown, for the terminal and ``docs/reliability.md``."""

from __future__ import annotations

import re
import statistics
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from .churn import MiB, Result
from .networks import DEAD, FAULTS, Outcome
from .results import Soaked
from .video import FAULTS as VIDEO_FAULTS
from .video import VideoOutcome

PAGE = Path(__file__).parents[2] / "docs" / "reliability.md"
_BEGIN, _END = "<!-- written by python -m tests.soak --write -->\n", "<!-- end -->"


One = TypeVar("One")


@dataclass(frozen=True)
class Row:
    """A fault of clients or handlers.

    Attributes:
        fault: its description.
        pattern: regular expression of the labels of visits and of handlers.
        promise: heading of the promise.
        test: a test of it on virtual time, or for a single call.
    """

    fault: str
    pattern: str
    promise: str
    test: str


_SCOPE = "A session is one cancel scope"
_ERRORS = "Errors surface"
_HOSTILE = "Hostile clients harm only themselves"
ROWS = [
    Row("client offers, but never connects", r".*/offer/never", _SCOPE, "webrtc/test_leaks.py"),
    Row("client leaves while it connects", r".*/connecting/.*", _SCOPE, "webrtc/test_leaks.py"),
    Row(
        "client leaves during `start_up`",
        r".*/start_up/(client|vanish|rubbish)",
        _SCOPE,
        "session/test_session.py",
    ),
    Row("client hangs up", r".*/talk/client", _SCOPE, "webrtc/test_calls.py"),
    Row("client vanishes", r".*/talk/vanish", _SCOPE, "webrtc/test_liveness.py"),
    Row("client sends rubbish", r".*/(offer|talk)/rubbish", _HOSTILE, "server/test_rubbish.py"),
    Row("handler hangs up", r".*/talk/handler", _SCOPE, "session/test_hang_up.py"),
    Row("operator ends the session", r".*/(talk|start_up)/server", _SCOPE, "webrtc/test_calls.py"),
    Row("code raises", r".* raises", _ERRORS, "session/test_strange_errors.py"),
    Row("code raises `SystemExit`", r".* exits", _ERRORS, "server/test_exits.py"),
    Row("code never returns", r".* hangs", _SCOPE, "session/test_stubborn.py"),
    Row("code swallows its cancellation", r".* swallows", _SCOPE, "session/test_stubborn.py"),
    Row("code computes for 20 ms", r".* spins", _SCOPE, "server/test_watchdog.py"),
    Row("code returns rubbish", r".* rubbish", _ERRORS, "session/test_user_functions.py"),
    Row("code blocks the event loop", r".* blocks", _ERRORS, "server/test_watchdog.py"),
]


def _count(row: Row, results: Iterable[Result]) -> tuple[int, Counter[str]]:
    """Return the trials of a fault, and the reasons for which their sessions ended."""
    trials, reasons = 0, Counter[str]()
    for result in results:
        # "websocket/talk/rubbish" is a visit, "async emit rubbish" the fault of a handler.
        for label, number in {**result.visits, **result.last["trials"]}.items():
            trials += number * bool(re.fullmatch(row.pattern, label))
        for label, reason, number in result.last["reasons"]:
            reasons[reason] += number * bool(re.fullmatch(row.pattern, label))
    return trials, +reasons


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def fault_table(results: list[Result]) -> str:
    """The faults of clients and handlers."""
    rows = []
    for row in ROWS:
        trials, reasons = _count(row, results)
        ends = ", ".join(f"`{reason}` {number}" for reason, number in reasons.most_common())
        anchor = row.promise.lower().replace(" ", "-")
        promise = f"[{row.promise}](#{anchor})"
        rows.append([row.fault, f"{trials:,}", ends or "-", promise, f"`tests/{row.test}`"])
    return _table(["fault", "trials", "sessions ended", "promise", "test"], rows)


def _mean(outcomes: Sequence[One], read: Callable[[One], float | None]) -> float | None:
    values = [value for one in outcomes if (value := read(one)) is not None]
    return statistics.fmean(values) if values else None


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f} %"


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f} s"


def _ms(value: float | None) -> str:
    return "-" if value is None else f"{max(round(1000 * value), 0)} ms"


def network_table(outcomes: list[Outcome]) -> str:
    """The faults of networks."""
    rows = []
    for fault in FAULTS:
        found = [one for one in outcomes if one.fault == fault.name]
        if not found:
            continue
        rows.append(
            [
                fault.name,
                str(len(found)),
                _percent(_mean(found, lambda one: one.recovered)),
                _percent(_mean(found, lambda one: one.concealed)),
                _percent(_mean(found, lambda one: one.silent)),
                _ms(_mean(found, lambda one: one.delay)),
                _ms(_mean(found, lambda one: one.delay_most)),
                _ms(_mean(found, lambda one: one.delay_after)),
                _describe_end(found),
            ]
        )
    head = ["network", "trials", "recovered", "concealed", "silent"]
    return _table([*head, "delay", "delay, p95", "afterwards", "call"], rows)


def video_table(outcomes: list[VideoOutcome]) -> str:
    """The same for video."""
    rows = []
    for fault in VIDEO_FAULTS:
        found = [one for one in outcomes if one.fault == fault.name]
        if not found:
            continue
        row = [fault.name, str(len(found))]
        if fault.name == DEAD:
            row += ["-"] * 6
        else:
            row += [
                f"{statistics.fmean(one.server.fps for one in found):.1f}",
                _seconds(_mean(found, lambda one: one.server.freeze)),
                _seconds(_mean(found, lambda one: one.server.whole_after)),
                _ms(_mean(found, lambda one: one.server.delay_after)),
                _seconds(_mean(found, lambda one: one.client.freeze)),
                _seconds(_mean(found, lambda one: one.client.whole_after)),
            ]
        rows.append([*row, _describe_end(found)])
    head = ["network", "trials", "pictures/s", "freeze", "whole after", "delay afterwards"]
    return _table([*head, "echo: freeze", "echo: whole after", "call"], rows)


def _describe_end(found: Sequence[Outcome] | Sequence[VideoOutcome]) -> str:
    """Describe how calls over one network ended."""
    good = [one for one in found if one.is_as_promised]
    ended = _mean(good, lambda one: one.ended_after)
    result = "recovers" if ended is None else f"`vanished` after {ended:.1f} s"
    return result if len(good) == len(found) else f"{result} in {len(good)} of {len(found)}"


def summary(results: list[Result]) -> str:
    """Summary: the number of clients, and the frames that the control calls missed."""
    minutes = sum(result.checkpoints[-1].at for result in results) / 60
    heard = [result.checkpoints[-1].control for result in results]
    frames = sum(one["frames"] for one in heard)
    missed = sum(one["lost"] + one["silent"] + one["late"] for one in heard)
    visits = sum(sum(result.visits.values()) for result in results)
    backends = " and ".join(sorted({result.backend for result in results}))
    return (
        f"{visits:,} clients in {minutes:.1f} minutes on {backends}.\n"
        f"The control calls missed {missed:,} of {frames:,} frames.\n"
    )


def memory_table(results: list[Result]) -> str:
    """Memory of the servers at each checkpoint."""
    rows = []
    for result in results:
        for one in result.checkpoints:
            rows.append(
                [
                    result.backend,
                    f"{one.at / 60:.1f} min",
                    f"{one.sessions:,}",
                    f"{one.count['resident'] / MiB:.1f} MiB",
                    f"{one.count['malloc'] / MiB:.2f} MiB",
                    f"{one.count['blocks']:,}",
                ]
            )
    return _table(["backend", "after", "clients", "resident", "malloc", "Python blocks"], rows)


def tables(soaked: Soaked) -> list[str]:
    """Return the tables of the page, each empty if there are no results for it."""
    clients, audio, video = soaked.clients, soaked.audio, soaked.video
    return [
        f"{summary(clients)}\n{fault_table(clients)}" if clients else "",
        network_table(audio) if audio else "",
        video_table(video) if video else "",
    ]


def write(soaked: Soaked) -> None:
    """Replace the tables of the page for which there are results."""
    parts = PAGE.read_text("utf-8").split(_BEGIN)
    new = tables(soaked)
    assert len(parts) == len(new) + 1, f"{PAGE} has {len(parts) - 1} places for tables"
    for i, table in enumerate(new, 1):
        old, end, rest = parts[i].partition(_END)
        assert end, f"{PAGE} has no end of a table"
        parts[i] = (f"\n{table}\n" if table else old) + end + rest
    PAGE.write_text(_BEGIN.join(parts), "utf-8")
