"""What the pages in docs show is so: all the code of a page, in one file, under pytest."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from fastrtc_anyio import Stream
from tests.testing.test_plugin import Run

DOCS = Path(__file__).parents[2] / "docs"


@pytest.mark.parametrize(("page", "tests"), [("testing.md", 8), ("talking.md", 2)])
def test_the_code_runs(page: str, tests: int, tmp_path: Path) -> None:
    text = (DOCS / page).read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    wanted = re.findall(r"^ *(?:async )?def (test_\w+)", "\n".join(blocks), re.MULTILINE)
    assert len(wanted) == len(set(wanted)) >= tests
    run = Run(tmp_path, "\n\n".join(blocks))
    passed = {re.sub(r".*::|\[.*", "", name) for name in run.outcomes}
    assert passed == set(wanted), run.output
    assert set(run.outcomes.values()) == {"PASSED"}, run.output


def test_the_streams_shown_can_be_made() -> None:
    text = (DOCS / "page.md").read_text(encoding="utf-8")
    for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
        shown: dict[str, Any] = {}
        exec(block, shown)
        assert isinstance(shown["stream"], Stream)


def test_every_page_with_code_is_run() -> None:
    shown = {path.name for path in DOCS.glob("*.md") if "```python" in path.read_text()}
    assert shown == {"testing.md", "talking.md", "page.md"}
