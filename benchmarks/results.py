"""Measurements, their medians, and the tables of them."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

REFERENCES = ("fastrtc-async-24", "fastrtc-silero-24", "fastrtc-video-48")
"""Servers to which ratios refer, if one of them was measured; otherwise the first one."""


@dataclass(frozen=True)
class Row:
    """Result of a run for one condition. Times are in seconds, CPU in cores, sizes in bytes."""

    condition: str
    """Such as "10 calls"."""
    values: dict[str, float]


@dataclass(frozen=True)
class Measurement:
    """The values of one run under one condition."""

    suite: str
    condition: str
    server: str
    round: int
    values: dict[str, float]


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
        title: title, with the unit.
        key: name of the value.
        scale: factor from the value to the unit.
        digits: number of decimals.
        ratio: whether a column with the ratio to the reference follows.
    """

    title: str
    key: str
    scale: float = 1.0
    digits: int = 0
    ratio: bool = False


@dataclass(frozen=True)
class Spread:
    """Median, minimum and maximum of a value over the rounds."""

    median: float
    low: float
    high: float


def spread(values: Sequence[float]) -> Spread:
    return Spread(statistics.median(values), min(values), max(values))


def pick(found: Sequence[Measurement], condition: str, server: str, key: str) -> list[float]:
    """Return the values of a cell, one for each valid round."""
    return [
        one.values[key]
        for one in found
        if (one.condition, one.server) == (condition, server) and key in one.values
    ]


def table(found: Sequence[Measurement], columns: Sequence[Column]) -> list[list[str]]:
    """Return the lines of a suite's table, with a title line."""
    conditions = list(dict.fromkeys(one.condition for one in found))
    servers = list(dict.fromkeys(one.server for one in found))
    titles = ["", "server"]
    for column in columns:
        titles += [column.title, "ratio"] if column.ratio else [column.title]
    lines = [titles]
    for condition in conditions:
        measured = [name for name in servers if pick(found, condition, name, columns[0].key)]
        reference = next((name for name in (*REFERENCES, *measured) if name in measured), "")
        for server in servers:
            cells = [condition, server]
            for column in columns:
                values = pick(found, condition, server, column.key)
                cells.append(_cell(values, column))
                if column.ratio:
                    base = pick(found, condition, reference, column.key)
                    cells.append(_ratio(values, base))
            if not all(pick(found, condition, server, "valid")):
                cells[1] += " (!)"
            if any(pick(found, condition, server, column.key) for column in columns):
                lines.append(cells)
    return lines


def _cell(values: list[float], column: Column) -> str:
    if not values:
        return ""
    scaled = spread([value * column.scale for value in values])
    text = f"{scaled.median:.{column.digits}f}"
    if len(values) == 1:
        return text
    return f"{text} [{scaled.low:.{column.digits}f}-{scaled.high:.{column.digits}f}]"


def _ratio(values: list[float], base: list[float]) -> str:
    """Return the ratio of the medians. Rounds of one run are comparable with each other alone."""
    if not values or not base or not statistics.median(base):
        return ""
    return f"{statistics.median(values) / statistics.median(base):.2f}"


def format_plain(lines: Sequence[Sequence[str]]) -> str:
    """Align a table for a terminal."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def format_markdown(lines: Sequence[Sequence[str]]) -> str:
    """Format a table for Markdown."""
    head, *body = lines
    rows = [head, ["---"] * len(head), *body]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)
