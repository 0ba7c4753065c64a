"""Find what the documentation shows: fenced blocks, their markers, inline code, links, examples.

A fenced block is run as it is written, or an HTML comment on the line above it says why not:

    <!-- not run: needs an account of Twilio -->
    <!-- run by tests/interop/test_documentation.py::test_x: needs ffmpeg -->

The reason is mandatory. The place after ``run by`` is a script that contains every line of the
block, or a test that takes the block from here with :func:`find_block`.
"""

from __future__ import annotations

import ast
import os
import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    path.relative_to(ROOT).as_posix()
    for pattern in ("*.md", "docs/**/*.md", "examples/*.md")
    for path in ROOT.glob(pattern)
)
HISTORY = "CHANGELOG.md"
"""Its text names what no longer exists."""

FENCE = re.compile(r"[ >]*(?:(?:[-*+]|\d+[.)]) +)?(?P<fence>`{3,}|~{3,}) *(?P<info>[^`]*)")
COMMENT = re.compile(r"<!--(.*?)-->", re.DOTALL)
KEYWORD = re.compile(r"\s*(not run|run by)\b")
MARKER = re.compile(r"\s*(?:not run|run by (?P<place>\S+)):\s+(?P<reason>\S.*\S)\s*", re.DOTALL)
LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#{1,6} +(.+?) *#*$", re.MULTILINE)
LITERAL = re.compile(r"^(?P<indent> *)(?:.*\S)?::\n\n(?P<text>(?:(?P=indent) +\S.*\n|\n)+)", re.M)


def put_voice(folder: Path, recording: Path) -> str:
    """Return a PATH on which a stand-in for espeak-ng follows the programs that are installed."""
    program = folder / "bin" / "espeak-ng"
    program.parent.mkdir(exist_ok=True)
    program.write_text(f"#!/bin/sh\ncat > /dev/null\ncat '{recording}'\n")
    program.chmod(0o700)
    return f"{os.environ['PATH']}:{program.parent}"


class DocumentationError(Exception):
    """A page breaks a rule of the documentation."""


@dataclass(frozen=True)
class Marker:
    """Why a block is not run here, and the script or test that runs it instead, if there is one."""

    reason: str
    place: str | None = None


@dataclass(frozen=True)
class Block:
    """A fenced block; ``line`` is the number of its first line of text."""

    page: str
    line: int
    language: str
    text: str
    marker: Marker | None = None

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"

    @property
    def program(self) -> str:
        """Python code, with the lines of the block: that of a diff is the code after the change."""
        if self.language == "python":
            return self.text
        lines = self.text.splitlines()
        return "".join("\n" if line.startswith("-") else f"{line[1:]}\n" for line in lines)


@cache
def read(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


@cache
def all_blocks() -> tuple[Block, ...]:
    return tuple(block for page in PAGES for block in find_blocks(page, read(page)))


def blocks_of(page: str, language: str) -> list[Block]:
    """The blocks of a page in one language that carry no marker."""
    return [
        block
        for block in all_blocks()
        if (block.page, block.language, block.marker) == (page, language, None)
    ]


def programs_of(page: str) -> list[Block]:
    """The blocks of Python code of a page that carry no marker, in order; see `Block.program`."""
    found = [*blocks_of(page, "python"), *blocks_of(page, "diff")]
    return sorted(found, key=lambda block: block.line)


def find_block(page: str, contains: str) -> Block:
    """The only block of a page that contains a text."""
    (block,) = [block for block in all_blocks() if block.page == page and contains in block.text]
    return block


def find_blocks(page: str, source: str) -> list[Block]:
    """Return all fenced blocks of a page in order.

    Raises:
        DocumentationError: a fence is not closed, or a marker has no reason or no block.
    """
    lines = source.split("\n")
    blocks: list[Block] = []
    i = 0
    while i < len(lines):
        opening = FENCE.fullmatch(lines[i])
        if opening is None:
            i += 1
            continue
        fence = opening["fence"]
        closing = re.compile(rf"[ >]*{re.escape(fence[0])}{{{len(fence)},}} *")
        end = next((k for k in range(i + 1, len(lines)) if closing.fullmatch(lines[k])), None)
        if end is None:
            raise DocumentationError(f"{page}:{i + 1}: the fence is not closed")
        language = re.split(r"[\s,{}:]", opening["info"].strip(" {."))[0].lower()
        text = textwrap.dedent("\n".join(lines[i + 1 : end]) + "\n")
        marker = _marker_above(page, "\n".join(lines[:i]))
        blocks.append(Block(page, i + 2, language, text, marker))
        i = end + 1
    _check_markers(page, source, sum(block.marker is not None for block in blocks))
    return blocks


def _marker_above(page: str, above: str) -> Marker | None:
    comment = re.search(r"<!--((?:(?!-->).)*)-->\s*$", above, re.DOTALL)
    if comment is None or KEYWORD.match(comment[1]) is None:
        return None
    marker = MARKER.fullmatch(comment[1])
    if marker is None:
        raise DocumentationError(f"{page}: a marker needs a reason; got <!--{comment[1]}-->")
    return Marker(" ".join(marker["reason"].split()), marker["place"])


def _check_markers(page: str, source: str, used: int) -> None:
    markers = [text for text in COMMENT.findall(prose(source)) if KEYWORD.match(text)]
    if len(markers) != used:
        raise DocumentationError(f"{page}: {len(markers)} markers for {used} blocks: {markers}")


def prose(source: str) -> str:
    """A page without its fenced blocks, with the same line numbers."""
    kept: list[str] = []
    closing = ""
    for line in source.split("\n"):
        fence = FENCE.fullmatch(line)
        if closing:
            closing = "" if line.strip(" >").startswith(closing) else closing
            kept.append("")
        elif fence is not None:
            closing = fence["fence"]
            kept.append("")
        else:
            kept.append(line)
    return "\n".join(kept)


def inline_code(page: str) -> Iterator[str]:
    """Yield every code span of a page, on one line."""
    text = COMMENT.sub("", prose(read(page)))
    for _, span in re.findall(r"(?<!`)(`+)(?!`)(.+?)(?<!`)\1(?!`)", text, re.DOTALL):
        yield " ".join(span.split())


def links(page: str) -> list[str]:
    return LINK.findall(re.sub(r"`[^`]*`", "", prose(read(page))))


def anchors(page: str) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    titles = [re.sub(r"[`*]", "", title).lower() for title in HEADING.findall(prose(read(page)))]
    return {re.sub(r"[^\w\- ]", "", title).replace(" ", "-") for title in titles}


@dataclass(frozen=True)
class Example:
    """A literal block or doctest of a docstring."""

    module: str
    owner: str
    text: str

    def __str__(self) -> str:
        return f"{self.module}:{self.owner}" if self.owner else self.module


def docstring_examples(package: Path) -> Iterator[Example]:
    """Yield the literal blocks and doctests of all docstrings of a package."""
    for path in sorted(package.rglob("*.py")):
        module = path.relative_to(package.parent).with_suffix("").as_posix().replace("/", ".")
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if not isinstance(
                node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
            ):
                continue
            text = ast.get_docstring(node) or ""
            owner = "" if isinstance(node, ast.Module) else node.name
            found = [block["text"] for block in LITERAL.finditer(text + "\n")]
            found += ["\n".join(re.findall(r">>> .*", text))] if ">>> " in text else []
            for example in found:
                yield Example(module.removesuffix(".__init__"), owner, textwrap.dedent(example))
