"""Draw the layers of the package into CONTRIBUTING.md, from the import contracts in pyproject.toml.

Run ``python docs/diagrams/layers.py`` after a change of a contract; a test compares the file.
"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "CONTRIBUTING.md"
BEGIN, END = "<!-- drawn by docs/diagrams/layers.py -->", "<!-- end -->"


def draw(project: str) -> str:
    """Return the layers as a Mermaid diagram, and the other contracts as a list.

    Args:
        project: the text of pyproject.toml.
    """
    contracts = tomllib.loads(project)["tool"]["importlinter"]["contracts"]
    (layers,) = (contract["layers"] for contract in contracts if contract["type"] == "layers")
    lines = ["```mermaid", "flowchart TD"]
    for number, layer in enumerate(layers):
        names = re.findall(r"\w+", layer)
        arrow = f"L{number - 1} --> " if number else ""
        lines.append(f'    {arrow}L{number}["{" · ".join(names)}"]')
    names = [contract["name"] for contract in contracts if contract["type"] != "layers"]
    return "\n".join([*lines, "```", "", *(f"* {name}." for name in names)])


def render(page: str, project: str) -> str:
    """Return the page with a new diagram between its markers."""
    before, _, rest = page.partition(f"{BEGIN}\n")
    _, end, after = rest.partition(END)
    if not end:
        raise ValueError(f"page must contain {BEGIN} and {END}")
    return f"{before}{BEGIN}\n{draw(project)}\n{end}{after}"


if __name__ == "__main__":
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    PAGE.write_text(render(PAGE.read_text(encoding="utf-8"), project), encoding="utf-8")
