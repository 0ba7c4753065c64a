"""The diagrams in docs/states.md match the transition tables."""

from __future__ import annotations

import runpy
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs"


def test_diagrams_match_the_transition_tables() -> None:
    script = runpy.run_path(str(DOCS / "diagrams.py"))
    assert (DOCS / "states.md").read_text(encoding="utf-8") == script["render"](), (
        "run `python docs/diagrams.py`"
    )
