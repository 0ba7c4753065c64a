"""Write measurements into docs/performance.md: tables, and plots with matplotlib.

``python -m benchmarks.report benchmarks.json`` replaces everything below the page's marker.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from benchmarks.results import Measurement, format_markdown, pick, spread, table
from benchmarks.suites import SUITES

PAGE = Path(__file__).parents[1] / "docs" / "performance.md"
MARKER = "<!-- below: written by benchmarks/report.py -->\n"


@dataclass(frozen=True)
class Figure:
    """Bars of one value: a group for each condition, a bar for each server."""

    suite: str
    key: str
    title: str
    unit: str
    scale: float


FIGURES = (
    Figure("echo", "cpu_per_call", "CPU of an echo call", "% of a core", 100),
    Figure("echo", "p50", "Latency of an echo, p50", "ms", 1000),
    Figure("latency", "p50", "Latency of an echo on faulty lines, p50", "ms", 1000),
    Figure("recovery", "after", "Latency 10 s after a disturbance", "ms", 1000),
    Figure("capacity", "capacity", "Calls per core", "calls", 1),
    Figure("replies", "cpu_per_call", "CPU of a conversation", "% of a core", 100),
    Figure("video", "cpu", "CPU of a video call", "% of a core", 100),
    Figure("video", "p50", "Latency of a picture, p50", "ms", 1000),
    Figure("connections", "first_audio", "From the offer to the first audio", "ms", 1000),
)


def read(path: Path) -> tuple[dict[str, Any], list[Measurement]]:
    """Return the whole file, and its measurements. Exit with an explanation if that fails."""
    try:
        content: dict[str, Any] = json.loads(path.read_text())
        return content, [Measurement(**one) for one in content["measurements"]]
    except OSError as exc:
        sys.exit(f"{path} cannot be read: {exc.strerror}")
    except (ValueError, TypeError, KeyError):
        sys.exit(f"{path} must be a JSON file that python -m benchmarks has written")


def draw(figure: Figure, found: Sequence[Measurement], path: Path) -> None:
    """Draw medians as bars, with lines from the lowest to the highest value."""
    from matplotlib import figure as matplotlib_figure  # pyright: ignore[reportMissingImports]

    found = [one for one in found if figure.key in one.values]
    conditions = list(dict.fromkeys(one.condition for one in found))
    servers = list(dict.fromkeys(one.server for one in found))
    canvas = matplotlib_figure.Figure(figsize=(8, 3.2), layout="constrained")
    axes = canvas.subplots()
    present = {
        condition: {
            server: values
            for server in servers
            if (values := pick(found, condition, server, figure.key))
        }
        for condition in conditions
    }
    width = 0.8 / max(map(len, present.values()))
    for server in servers:
        places: list[float] = []
        bars: list[tuple[float, float, float]] = []
        for place, beside in enumerate(present.values()):
            if server in beside:
                one = spread([value * figure.scale for value in beside[server]])
                number = list(beside).index(server)
                places.append(place + (number - (len(beside) - 1) / 2) * width)
                bars.append((one.median, one.median - one.low, one.high - one.median))
        medians, below, above = zip(*bars, strict=True)
        axes.bar(places, medians, width, yerr=(below, above), label=server, capsize=2)
    axes.set_xticks(range(len(conditions)), [one.replace(" to ", "\nto ") for one in conditions])
    axes.tick_params(axis="x", labelsize=7)
    axes.set_title(figure.title, fontsize=10)
    axes.set_ylabel(figure.unit)
    axes.legend(fontsize=7)
    path.parent.mkdir(exist_ok=True)
    canvas.savefig(path, dpi=110, metadata={"Software": None})


def render(content: dict[str, Any], found: Sequence[Measurement], images: Path) -> str:
    """Return the generated part of the page, and draw its figures into a folder."""
    machine = content["machine"]
    lines = [
        f"Measured {content['time'][:10]} on {machine['cores']} cores of {machine['processor']} "
        f"with Python {machine['python']}.",
    ]
    for name, suite in SUITES.items():
        chosen = [one for one in found if one.suite == name]
        if not chosen:
            continue
        rounds = 1 + max(one.round for one in chosen)
        lines += ["", f"### {name}: {suite.help}", "", f"Rounds: {rounds}.", ""]
        lines.append(format_markdown(table(chosen, suite.columns)))
        for figure in FIGURES:
            if figure.suite == name and any(figure.key in one.values for one in chosen):
                path = images / f"performance_{name}_{figure.key}.png"
                draw(figure, chosen, path)
                lines += ["", f"![{figure.title}]({images.name}/{path.name})"]
    return "\n".join(lines) + "\n"


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.report", description=__doc__)
    parser.add_argument("file", type=Path, nargs="+", help="written by python -m benchmarks")
    options = parser.parse_args(arguments)
    if find_spec("matplotlib") is None:
        sys.exit(
            "matplotlib is not installed: pip install '.[bench]', or run .nox/bench/bin/python"
        )
    content: dict[str, Any] = {}
    found: list[Measurement] = []
    for path in options.file:  # a later file replaces the suites of an earlier one
        content, measured = read(path)
        suites = {one.suite for one in measured}
        found = [one for one in found if one.suite not in suites] + measured
    before, marker, _ = PAGE.read_text().partition(MARKER)
    PAGE.write_text(
        before + (marker or MARKER) + "\n" + render(content, found, PAGE.parent / "images")
    )


if __name__ == "__main__":
    main()
