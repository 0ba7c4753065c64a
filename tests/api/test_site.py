"""Pages of the documentation become pages of the site: contents, links and diagrams."""

from __future__ import annotations

import pytest

from docs.site.mermaid import DiagramError, to_dot
from docs.site.pages import DOCS, LISTED, ROOT, read_page, stand_ins
from tests.kit.documentation import Block, all_blocks

DIAGRAMS = [block for block in all_blocks() if block.language == "mermaid"]


def test_every_page_is_listed_once() -> None:
    listed = [
        (index.parent / target).resolve()
        for index in DOCS.rglob("index.md")
        for target in LISTED.findall(index.read_text(encoding="utf-8"))
    ]
    pages = {*DOCS.rglob("*.md")} - {DOCS / "index.md"}
    assert sorted(listed) == sorted(pages), "add the page to the list of its folder's index.md"


def test_list_of_an_index_is_its_table_of_contents() -> None:
    text = "1. [An echo](echo.md): frames\n* [Video](../video.md#top)\n* [Limits](limits.md)\n"
    found = read_page(DOCS / "tutorial" / "index.md", text)
    assert "```{toctree}\n:hidden:\n\necho\nlimits\n```" in found


@pytest.mark.parametrize(
    "document", ["CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "examples/README.md"]
)
def test_document_outside_has_a_page(document: str) -> None:
    page = stand_ins()[ROOT / document]
    text = read_page(page, page.read_text(encoding="utf-8"))
    assert text.partition("\n")[0] == (ROOT / document).read_text().partition("\n")[0]


@pytest.mark.parametrize(
    ("link", "there"),
    [
        ("../../SECURITY.md#reports", "../project/security.md#reports"),
        ("../../README.md", "../index.md"),
        ("../../examples/README.md", "../project/examples.md"),
        ("../../examples/echo.py", "../../examples/echo.py"),
        ("limits.md#sizes", "limits.md#sizes"),
        ("#here", "#here"),
        ("https://example.com/a.md", "https://example.com/a.md"),
    ],
)
def test_links_lead_to_pages_of_the_site(link: str, there: str) -> None:
    page = DOCS / "guides" / "page.md"
    assert read_page(page, f"see [it]({link})") == f"see [it]({there})"
    assert read_page(page, f"```\n[it]({link})\n```\n") == f"```\n[it]({link})\n```\n"


@pytest.mark.parametrize("block", DIAGRAMS, ids=str)
def test_diagram_is_in_the_dialect(block: Block) -> None:
    assert to_dot(block.text).count("->") == sum(
        block.text.count(arrow) for arrow in ("-->", "-.->", "==>")
    )


def test_diagram_has_boxes_arrows_and_labels() -> None:
    dot = to_dot('flowchart LR\nsubgraph s["a loop"]\nA["one<br>two"] -.->|lock| B\nend\n')
    assert "rankdir=LR" in dot
    assert 'subgraph cluster_s { label="a loop"' in dot
    assert 'A [label="one\\ntwo"' in dot
    assert 'A -> B [label=" lock " style=dashed]' in dot


def test_unknown_line_of_a_diagram_is_an_error() -> None:
    with pytest.raises(DiagramError, match="A ~~~ B"):
        to_dot("flowchart TD\nA ~~~ B\n")
