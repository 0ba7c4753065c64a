"""Each log record names an event, and the guide lists all events with their levels."""

from __future__ import annotations

import ast
import re

from tests.kit.documentation import read
from tests.kit.log_events import PACKAGE, log_calls

NAME = re.compile(r"[a-z]+\.[a-z_]+")
ROW = re.compile(r"^\| `([a-z]+\.[a-z_]+)` \| ([A-Z, ]+) \| (.+) \|$", re.MULTILINE)


def test_each_call_names_an_event() -> None:
    calls = list(log_calls())
    assert len(calls) > 60
    assert [call.place for call in calls if call.event is None] == []
    names = {call.event for call in calls if call.event is not None}
    assert [name for name in sorted(names) if NAME.fullmatch(name) is None] == []


def test_guide_lists_all_events() -> None:
    rows = ROW.findall(read("docs/guides/observability.md"))
    listed = {event: set(levels.split(", ")) for event, levels, _ in rows}
    assert len(listed) == len(rows), "an event is listed twice"
    assert list(listed) == sorted(listed)
    logged: dict[str, set[str]] = {}
    varying = set()
    for call in log_calls():
        assert call.event is not None
        logged.setdefault(call.event, set()).update(call.levels)
        if not call.is_fixed:
            varying.add(call.event)
    assert listed.keys() == logged.keys()
    for event, levels in listed.items():
        assert logged[event] <= levels, event
        assert event in varying or levels == logged[event], event


def test_all_modules_use_the_logger_with_events() -> None:
    """Another logger of the package would make records without an event."""
    found = []
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute) and node.attr == "getLogger":
                found.append(path.relative_to(PACKAGE).as_posix())
    assert set(found) == {
        "_core/log.py",
        "_core/records.py",
        "_peers/webrtc/tasks.py",
        "server/_library_logs.py",
    }
