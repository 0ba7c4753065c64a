"""CONTRIBUTING.md shows the layers that import-linter checks."""

from __future__ import annotations

import runpy
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_layer_diagram_is_up_to_date() -> None:
    render = runpy.run_path(str(ROOT / "docs" / "layers.py"))["render"]
    page = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert render(page, project) == page, "run python docs/layers.py"
