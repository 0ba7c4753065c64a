"""Mermaid diagrams of the pages become pictures, which need neither a network nor JavaScript.

graphviz-pure, a package with one program, places the boxes.
"""

from __future__ import annotations

import html
import re
import shutil
import subprocess
import sys
from pathlib import Path

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.transforms import SphinxTransform

from .mermaid import to_dot


def to_svg(text: str, title: str) -> str:
    """Draw a Mermaid diagram as an SVG element whose colours are those of the page."""
    program = shutil.which("graphviz-pure", path=str(Path(sys.executable).parent)) or shutil.which(
        "graphviz-pure"
    )
    if program is None:
        raise FileNotFoundError("graphviz-pure is not installed: pip install '.[docs]'")
    run = subprocess.run(
        [program, "-Tsvg"], input=to_dot(text), capture_output=True, text=True, check=True
    )
    svg = run.stdout[run.stdout.index("<svg") :]
    svg = re.sub(r"<title>.*?</title>\n|<!--.*?-->\n", "", svg, flags=re.DOTALL)
    svg = re.sub(r'(?: fill| stroke| font-family|xml:space)="[^"]*"', "", svg)
    label = html.escape(title, quote=True)
    return svg.replace("<svg", f'<svg class="diagram" role="img" aria-label="{label}"', 1)


class DrawDiagrams(SphinxTransform):
    """Replace the Mermaid blocks of a page with pictures."""

    default_priority = 500

    def apply(self, **kwargs: object) -> None:
        for block in list(self.document.findall(nodes.literal_block)):
            if block.get("language") != "mermaid":
                continue
            title = block.parent.next_node(nodes.title)
            svg = to_svg(block.astext(), title.astext() if title is not None else "Diagram")
            figure = f'<div class="diagram">{svg}</div>'
            block.replace_self(nodes.raw("", figure, format="html"))


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_transform(DrawDiagrams)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
