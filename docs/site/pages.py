"""Pages as GitHub shows them become pages of the site, without directives in their text.

* The list of links of an ``index.md`` is its table of contents, too.
* A page in ``project/`` stands for a document outside ``docs/``, and links lead to that page.
* Links to other files of the checkout offer them for download.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # the tests read pages without Sphinx
    from sphinx.application import Sphinx

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
STAND_IN = re.compile(r"This page is \[((?:\w+/)?\w+\.md)\]\(\.\./\.\./\1\)\.")
FENCED = re.compile(r"^ *(`{3,}|~{3,}).*?^ *\1`*~* *$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"(\]\()([^)\s#]+)((?:#[^)\s]*)?\))")
LISTED = re.compile(r"^(?:\*|\d+\.) \[[^\]]*\]\(([^)#]+\.md)\)", re.MULTILINE)


def stand_ins() -> dict[Path, Path]:
    """Documents outside ``docs/`` and the pages that stand for them."""
    found = {ROOT / "README.md": DOCS / "index.md"}
    for page in (DOCS / "project").glob("*.md"):
        name = STAND_IN.search(page.read_text(encoding="utf-8"))
        if name is not None:
            found[ROOT / name[1]] = page
    return found


def read_page(page: Path, text: str) -> str:
    """Return the Markdown that the site builds from a page's text."""
    source = page
    for document, stand_in in stand_ins().items():
        if stand_in == page and document != ROOT / "README.md":
            source, text = document, document.read_text(encoding="utf-8")
    text = outside_fences(text, lambda prose: LINK.sub(lambda m: _relink(m, source, page), prose))
    if page.name == "index.md":
        text += toctree(text)
    return text


def toctree(text: str) -> str:
    """Return a hidden table of contents with the pages that a list of the text links to."""
    listed = "\n".join(name.removesuffix(".md") for name in LISTED.findall(text))
    return f"\n```{{toctree}}\n:hidden:\n\n{listed}\n```\n" if listed else ""


def outside_fences(text: str, change: Callable[[str], str]) -> str:
    """Apply a function to the text between fenced blocks."""
    parts, end = [], 0
    for block in FENCED.finditer(text):
        parts += [change(text[end : block.start()]), block[0]]
        end = block.end()
    return "".join([*parts, change(text[end:])])


def _relink(link: re.Match[str], source: Path, page: Path) -> str:
    if re.match(r"\w+:", link[2]):
        return link[0]
    target = (source.parent / link[2]).resolve()
    target = stand_ins().get(target, target)
    return f"{link[1]}{os.path.relpath(target, page.parent)}{link[3]}"


def _read(app: Sphinx, docname: str, source: list[str]) -> None:
    source[0] = read_page(Path(app.env.doc2path(docname)), source[0])


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("source-read", _read)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
