"""Log records that may appear in a soak: those of the faults that it makes."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

_GUIDE = Path(__file__).parents[2] / "docs" / "guides" / "observability.md"
EXPECTED_ERRORS = {
    "handler.cleanup_failed",
    "handler.failed_late",
    "reply.failed",
    "request.failed",
    "session.failed",
    "session.shutdown_failed",
    "session.shutdown_timeout",
}
"""Events at level ERROR that failing handlers cause. Another one is a defect of the package."""


def documented_events() -> dict[str, set[str]]:
    """Levels of the events that the guide lists."""
    rows = re.findall(r"^\| `([a-z_]+\.[a-z_]+)` \| ([A-Z, ]+) \|", _GUIDE.read_text("utf-8"), re.M)
    return {event: set(levels.split(", ")) for event, levels in rows}


def check_records(counts: list[list[Any]], examples: dict[str, str]) -> list[str]:
    """Return what is wrong with the records of a server.

    Args:
        counts: event, level and number.
        examples: a record of each event.
    """
    documented = documented_events()
    failures = []
    for event, level, number in counts:
        if level not in documented.get(event, ()):
            failures.append(f"undocumented records: {number} of {event} at {level}")
        elif level == "ERROR" and event not in EXPECTED_ERRORS:
            failures.append(f"errors of the package: {number} of {event}")
        else:
            continue
        failures[-1] += f", such as\n{examples.get(event, '')}"
    return failures
