"""The code in docs runs, and docs and examples import public modules only."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

import pytest

from fastrtc_anyio import Stream
from tests.testing.test_plugin import Run

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
PAGES = [ROOT / "README.md", *sorted(DOCS.glob("*.md"))]


@pytest.mark.parametrize(("page", "tests"), [("testing.md", 8), ("talking.md", 2)])
def test_tests_on_a_page_pass(page: str, tests: int, tmp_path: Path) -> None:
    """All code of a page runs as one test module."""
    blocks = python_blocks(DOCS / page)
    wanted = re.findall(r"^ *(?:async )?def (test_\w+)", "\n".join(blocks), re.MULTILINE)
    assert len(wanted) == len(set(wanted)) >= tests
    code = "\n\n".join(blocks)
    # One minute of the ten-minute call.
    for long, short in (("range(60)", "range(6)"), ("600 *", "60 *"), ("(60, 10,", "(6, 10,")):
        code = code.replace(long, short)
    run = Run(tmp_path, code)
    passed = {re.sub(r".*::|\[.*", "", name) for name in run.outcomes}
    assert passed == set(wanted), run.output
    assert set(run.outcomes.values()) == {"PASSED"}, run.output


def test_streams_on_a_page_can_be_constructed() -> None:
    for block in python_blocks(DOCS / "page.md"):
        shown: dict[str, Any] = {}
        exec(block, shown)
        assert isinstance(shown["stream"], Stream)


def test_every_page_with_code_has_a_test() -> None:
    shown = {path.name for path in DOCS.glob("*.md") if python_blocks(path)}
    assert shown == {"testing.md", "talking.md", "page.md"}


def python_blocks(path: Path) -> list[str]:
    return re.findall(r"```python\n(.*?)```", path.read_text(encoding="utf-8"), re.DOTALL)


@pytest.mark.parametrize("path", [*EXAMPLES, *PAGES], ids=lambda path: path.name)
def test_docs_and_examples_import_public_modules_only(path: Path) -> None:
    blocks = [path.read_text()] if path.suffix == ".py" else python_blocks(path)
    imported = [name for block in blocks for name in imported_names(block)]
    assert [name for name in imported if "._" in name] == []


def imported_names(code: str) -> list[str]:
    """The imported names that begin with the package's, in full."""
    names = []
    for node in ast.walk(ast.parse(code)):
        match node:
            case ast.Import(names=aliases):
                names += [alias.name for alias in aliases]
            case ast.ImportFrom(module=module, names=aliases):
                names += [f"{module}.{alias.name}" for alias in aliases]
            case ast.Attribute(value=ast.Name(id="fastrtc_anyio"), attr=attribute):
                names.append(f"fastrtc_anyio.{attribute}")
    return [name for name in names if name.startswith("fastrtc_anyio")]
