"""The diagrams in the documents match the code that they show, and the site can draw them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from docs.diagrams.draw import DRAWN, ROOT, pages, render
from tests.kit.documentation import all_blocks

PAGES = dict(pages())


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_diagrams_match_the_code(page: Path) -> None:
    assert PAGES[page] == render(PAGES[page]), "run `python -m docs.diagrams.draw`"


def test_every_diagram_is_drawn() -> None:
    drawn = "".join(found[0] for text in PAGES.values() for found in DRAWN.finditer(text))
    shown = [block for block in all_blocks() if block.language == "mermaid"]
    assert shown
    assert [block for block in shown if block.text not in drawn] == []


def test_every_function_is_used() -> None:
    used = {found["function"] for text in PAGES.values() for found in DRAWN.finditer(text)}
    scripts = (ROOT / "docs/diagrams").glob("*.py")
    defined = {
        name
        for script in scripts
        for name in re.findall(r"^def ((?:draw|list)_\w+)\(\)", script.read_text(), re.MULTILINE)
    }
    assert defined == used
