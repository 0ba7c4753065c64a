"""Draw the diagrams of all pages: ``python -m docs.diagrams.draw``. A test compares the pages.

A page holds a diagram between two comments::

    <!-- drawn by docs/diagrams/states.py: draw_session -->
    <!-- end -->

The first names a module beside this one and its function, which returns Markdown.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DRAWN = re.compile(
    r"(?P<begin><!-- drawn by docs/diagrams/(?P<module>\w+)\.py: (?P<function>\w+) -->\n)"
    r".*?(?P<end><!-- end -->)",
    re.DOTALL,
)


def pages() -> Iterator[tuple[Path, str]]:
    """Yield each page that holds diagrams, with its text."""
    for path in [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]:
        text = path.read_text(encoding="utf-8")
        if DRAWN.search(text):
            yield path, text


def render(text: str) -> str:
    """Return the text of a page with new diagrams."""
    return DRAWN.sub(lambda found: f"{found['begin']}{_draw(found)}\n{found['end']}", text)


def _draw(found: re.Match[str]) -> str:
    module = importlib.import_module(f"docs.diagrams.{found['module']}")
    markdown: str = getattr(module, found["function"])()
    return markdown


def fence(kind: str, lines: list[str]) -> str:
    """Return a Mermaid block."""
    return "\n".join(["```mermaid", kind, *(f"    {line}" for line in lines), "```"])


if __name__ == "__main__":
    for page, text in pages():
        page.write_text(render(text), encoding="utf-8")
