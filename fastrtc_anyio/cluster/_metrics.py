"""Merge the metrics of several processes, in Prometheus' text format (version 0.0.4).

Values are copied as they are: they may be of any metric of the application.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

__all__ = ["UP", "Families", "MalformedMetrics", "label_metrics", "merge_metrics"]

UP = "fastrtc_process_up"
_DESCRIPTION = re.compile(r"# (?:HELP|TYPE) (?P<name>\S+)(?: .*)?")
_PAIR = r'\s*(?P<key>[a-zA-Z_]\w*)\s*=\s*(?P<value>"(?:[^"\\]|\\.)*")\s*'
_PAIRS = re.sub(r"\?P<\w+>", "?:", rf"(?:{_PAIR},)*(?:{_PAIR})?\s*")
_LABEL = re.compile(_PAIR, re.ASCII)
_SAMPLE = re.compile(
    rf"(?P<name>[a-zA-Z_:][\w:]*)(?:\s*{{(?P<labels>{_PAIRS})}}\s*|\s+)(?P<value>[^\s{{].*)",
    re.ASCII,
)
_SUFFIXES = ("_bucket", "_count", "_sum")
"""Of the samples of a histogram or a summary."""


class MalformedMetrics(ValueError):
    """A line of a text is neither a sample nor a comment."""


@dataclass
class Family:
    """A metric: its description, and samples that follow it."""

    description: list[str] = field(default_factory=list)
    samples: list[str] = field(default_factory=list)


Families: TypeAlias = dict[str, Family]
"""Metrics by their names."""


def label_metrics(text: str, process: str) -> Families:
    """Return the metrics of a process, by their names, with its name as the label ``process``.

    A label of this name that a sample has becomes ``exported_process``, as in Prometheus.

    Raises:
        MalformedMetrics: it is not in Prometheus' text format.
    """
    families: Families = {}
    current = ""
    for line in filter(None, map(str.strip, text.split("\n"))):
        if found := _DESCRIPTION.fullmatch(line):
            current = found["name"]
            families.setdefault(current, Family()).description.append(line)
        elif not line.startswith("#"):
            name, sample = _label(line, process)
            if current not in (name, *(name.removesuffix(end) for end in _SUFFIXES)):
                current = name
            families.setdefault(current, Family()).samples.append(sample)
    return families


def _label(line: str, process: str) -> tuple[str, str]:
    found = _SAMPLE.fullmatch(line)
    if found is None:
        raise MalformedMetrics(f"expected a sample of a metric; got {line[:100]!r}")
    labels = [
        ("exported_process" if pair["key"] == "process" else pair["key"], pair["value"])
        for pair in _LABEL.finditer(found["labels"] or "")
    ]
    labels.append(("process", f'"{process}"'))
    text = ",".join(f"{key}={value}" for key, value in labels)
    return found["name"], f"{found['name']}{{{text}}} {found['value']}"


def merge_metrics(processes: Mapping[str, Families | None]) -> str:
    """Return the metrics of all processes; None stands for one that has not answered."""
    merged: Families = {}
    for families in processes.values():
        for name, family in (families or {}).items():
            known = merged.setdefault(name, Family(family.description))
            known.samples.extend(family.samples)
    up = [f'{UP}{{process="{name}"}} {int(found is not None)}' for name, found in processes.items()]
    merged[UP] = Family(
        [f"# HELP {UP} Whether a process has answered this scrape.", f"# TYPE {UP} gauge"], up
    )
    return "".join(f"{line}\n" for line in _lines(merged))


def _lines(families: Families) -> Iterator[str]:
    for family in families.values():
        yield from family.description
        yield from family.samples
