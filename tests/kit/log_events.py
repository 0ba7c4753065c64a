"""Events of the package's log records, as its source code names them."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from fastrtc_anyio import SessionState

PACKAGE = Path(__file__).parents[2] / "fastrtc_anyio"
LEVELS = {
    "debug": "DEBUG",
    "info": "INFO",
    "warning": "WARNING",
    "error": "ERROR",
    "exception": "ERROR",
}
HELPERS = {"log_error": {"DEBUG"}, "log_failure": {"DEBUG", "ERROR"}}
"""Functions that log a record, and the levels that they add to those of their arguments."""


@dataclass(frozen=True)
class LogCall:
    """A call that logs a record.

    Attributes:
        place: file and line.
        event: its event; None unless that is a constant.
        levels: the levels that the call names.
        is_fixed: whether ``levels`` is complete.
    """

    place: str
    event: str | None
    levels: frozenset[str]
    is_fixed: bool


def log_calls() -> Iterator[LogCall]:
    """Yield all calls of the package that log a record."""
    for path in sorted(PACKAGE.rglob("*.py")):
        # These define the functions.
        if path.name in ("log.py", "log_text.py", "records.py") and path.parent.name[0] == "_":
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and (found := _read(node)) is not None:
                place = f"{path.relative_to(PACKAGE.parent)}:{node.lineno}"
                yield LogCall(place, _event(node), *found)


@cache
def event_names() -> set[str]:
    """Events of log records, and those that only a description of a session contains."""
    states = {f"session.{state.value}" for state in SessionState}
    return states | {call.event for call in log_calls() if call.event is not None}


def _read(call: ast.Call) -> tuple[frozenset[str], bool] | None:
    if isinstance(call.func, ast.Name) and call.func.id in HELPERS:
        levels = {_level(arg) for arg in call.args} - {None}
        is_fixed = call.func.id == "log_failure" or bool(levels)
        return frozenset(HELPERS[call.func.id] | {level for level in levels if level}), is_fixed
    for part in (call.func, *call.args):  # context.run(logger.error, ...)
        if not isinstance(part, ast.Attribute) or not isinstance(part.value, ast.Name):
            continue
        if part.value.id == "logger" and part.attr in {*LEVELS, "log"}:
            level = LEVELS.get(part.attr)
            return frozenset({level} if level else ()), level is not None
    return None


def _level(node: ast.expr) -> str | None:
    is_level = isinstance(node, ast.Attribute) and node.attr in LEVELS.values()
    return node.attr if is_level and isinstance(node, ast.Attribute) else None


def _event(call: ast.Call) -> str | None:
    for keyword in call.keywords:
        if keyword.arg == "event" and isinstance(keyword.value, ast.Constant):
            return str(keyword.value.value)
    return None
