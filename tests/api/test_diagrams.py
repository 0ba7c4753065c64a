"""The diagrams in the documents match the transition tables and the import contracts."""

from __future__ import annotations

import runpy
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"


def test_diagrams_match_the_transition_tables() -> None:
    script = runpy.run_path(str(DOCS / "diagrams" / "states.py"))
    assert (DOCS / "concepts" / "states.md").read_text(encoding="utf-8") == script["render"](), (
        "run `python docs/diagrams/states.py`"
    )


def test_layer_diagram_matches_the_import_contracts() -> None:
    render = runpy.run_path(str(DOCS / "diagrams" / "layers.py"))["render"]
    page = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert page == render(page, project), "run `python docs/diagrams/layers.py`"
