"""SECURITY.md names tests and modules that exist."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from tests.kit.documentation import ROOT, read

TEXT = read("SECURITY.md")
TESTS = sorted(set(re.findall(r"`(tests/[^`]+)`", TEXT)))
ROWS = [
    [cell.strip() for cell in line.strip("|").split(" | ")]
    for line in TEXT.partition("## What is refused where")[2].partition("\n## ")[0].splitlines()
    if line.startswith("| ") and not line.startswith("| attack")
]


def functions_of(path: Path) -> set[str]:
    """Return the names of a file's tests, with and without their classes."""
    found = set()
    for node in ast.parse(path.read_text()).body:
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                found.add(node.name)
            case ast.ClassDef(name=name, body=body):
                functions = [getattr(one, "name", "") for one in body]
                found |= {f"{name}::{function}" for function in functions if function}
    return found


@pytest.mark.parametrize("name", TESTS)
def test_named_test_exists(name: str) -> None:
    path, _, function = name.partition("::")
    assert (ROOT / path).exists(), "no such file"
    if function:
        assert function.partition("[")[0] in functions_of(ROOT / path)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: str(row[0])[:40])
def test_row_names_module_and_test(row: list[str]) -> None:
    assert len(row) == 4, row
    assert "`tests/" in row[3], "each row names a test"
    modules = re.findall(r"`([\w/.]+)`", row[2])
    assert modules, "each row names a module"
    for module in modules:
        assert (ROOT / "fastrtc_anyio" / module).exists(), module


def test_a_table_is_read() -> None:
    assert len(ROWS) > 5
    assert len(TESTS) > 5
