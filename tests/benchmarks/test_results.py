"""Tables show medians, spreads and ratios, and mark what is not comparable."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from benchmarks.results import Column, Measurement, format_markdown, format_plain, table

COLUMNS = (Column("CPU %", "cpu", 100, 1, ratio=True), Column("late %", "late", 100))


def measurements() -> list[Measurement]:
    found = [
        Measurement("echo", "10 calls", server, number, {"cpu": cpu, "valid": server != "raw"})
        for server, values in {"ours": (0.2, 0.1, 0.3), "fastrtc-async-24": (0.5, 0.4, 0.9)}.items()
        for number, cpu in enumerate(values)
    ]
    return [*found, Measurement("echo", "10 calls", "raw", 0, {"cpu": 0.8, "valid": False})]


def test_table_has_medians_spreads_ratios_and_marks() -> None:
    assert table(measurements(), COLUMNS) == [
        ["", "server", "CPU %", "ratio", "late %"],
        ["10 calls", "ours", "20.0 [10.0-30.0]", "0.40", ""],
        ["10 calls", "fastrtc-async-24", "50.0 [40.0-90.0]", "1.00", ""],
        ["10 calls", "raw (!)", "80.0", "1.60", ""],
    ]


@pytest.mark.parametrize("format_table", [format_plain, format_markdown])
def test_formats_keep_all_cells(format_table: Callable[[list[list[str]]], str]) -> None:
    text = format_table(table(measurements(), COLUMNS))
    assert all(cell in text for cell in ("20.0 [10.0-30.0]", "raw (!)", "1.60"))
