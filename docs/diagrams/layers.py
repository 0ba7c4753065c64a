"""The layers of the package, from the import contracts in pyproject.toml."""

from __future__ import annotations

import re
import tomllib
from typing import Any

from .draw import ROOT, fence


def contracts() -> list[dict[str, Any]]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    found: list[dict[str, Any]] = project["tool"]["importlinter"]["contracts"]
    return found


def draw_layers() -> str:
    """Return the layers as a diagram."""
    (layers,) = (contract["layers"] for contract in contracts() if contract["type"] == "layers")
    lines = []
    for number, layer in enumerate(layers):
        arrow = f"L{number - 1} --> " if number else ""
        names = " · ".join(re.findall(r"\w+", layer))
        lines.append(f'{arrow}L{number}["{names}"]')
    return fence("flowchart TD", lines)


def list_rules() -> str:
    """Return the other contracts as a list."""
    names = [contract["name"] for contract in contracts() if contract["type"] != "layers"]
    return "\n".join(f"* {name}." for name in names)
