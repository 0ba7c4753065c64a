"""The tables of the guide to observability list every metric and every span of the code."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from fastrtc_anyio.abc import DiscardStatistics
from fastrtc_anyio.observability import Metrics, tracing
from tests.kit.documentation import ROOT, read
from tests.kit.observing import metric_families, refusal_reasons

PAGE = "docs/guides/observability.md"
NAME = re.compile(r"`([\w.]+)`")


def rows(header: str) -> Iterator[list[str]]:
    """Yield the cells of each row of the table whose first column has this header."""
    table = read(PAGE).split(f"| {header} |", 1)[1].split("\n\n", 1)[0]
    for line in table.splitlines()[2:]:
        yield [cell.strip() for cell in line.strip("|").split("|")]


def test_table_lists_every_metric_with_its_type_and_labels() -> None:
    listed = {
        name.strip("`"): (kind, sorted(NAME.findall(labels)))
        for name, kind, labels, _ in rows("metric")
    }
    assert listed == metric_families()


def test_table_lists_every_span_with_its_attributes_and_events() -> None:
    tree = ast.parse((ROOT / tracing.__file__).read_text(encoding="utf-8"))
    docstrings = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    written = {
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and id(node) not in docstrings
        and node.value.startswith("fastrtc.")
    }
    listed = set()
    for name, _, _, attributes, events in rows("span"):
        listed |= {name.strip("`"), *NAME.findall(attributes), *NAME.findall(events)}
        span = name.strip("`")
        assert all(one.startswith(f"{span}.") for one in NAME.findall(attributes))
    assert listed - {"exception"} == written


def test_reasons_in_the_text_are_those_of_errors() -> None:
    (text,) = re.findall(r"Its `reason` is .*?stands for", read(PAGE), re.DOTALL)
    quoted = set(NAME.findall(text)) - {"reason", "error"}
    assert len(quoted) == 6
    assert quoted <= refusal_reasons()


def test_kinds_of_items_are_documented_by_their_class() -> None:
    metrics = Metrics()
    (family,) = [f for f in metrics.registry.collect() if f.name == "fastrtc_items_discarded"]
    assert {one.labels["kind"] for one in family.samples} == set(vars(DiscardStatistics()))
