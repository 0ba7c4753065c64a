"""Every message that the troubleshooting guide quotes occurs in the package or in Python."""

from __future__ import annotations

import ast
import errno
import os
import re
from collections.abc import Iterator
from functools import cache

import pytest

from tests.kit.documentation import ROOT, read

PAGE = "docs/guides/troubleshooting.md"
CODE = re.compile(r"<|[\w.]+\(|(await|except|python|pip|apt|ip|ss|ssh|ulimit|proxy_\w+|POST) ")
PLACEHOLDER = re.compile(r"%[-+ #0]*[\d.]*[a-zA-Z]|\$\{[^{}]*\}|`")


def messages() -> Iterator[str]:
    """The code spans in the page that are sentences, and neither code nor commands."""
    for span in re.findall(r"`([^`\n]+)`", read(PAGE)):
        if " " in span and CODE.match(span) is None:
            yield span


@cache
def package_texts() -> str:
    """All strings of the package; ``...`` stands for each value in them."""
    texts = []
    for path in sorted((ROOT / "fastrtc_anyio").rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        docstrings = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        for node in ast.walk(tree):
            if isinstance(node, ast.JoinedStr):
                texts.append("".join(map(_text_of, node.values)))
            elif isinstance(node, ast.Constant) and id(node) not in docstrings:
                texts.append(_text_of(node))
    texts += [path.read_text() for path in sorted((ROOT / "fastrtc_anyio").rglob("*.js"))]
    return PLACEHOLDER.sub("...", "\n".join(texts).replace("%%", "\0")).replace("\0", "%")


def _text_of(node: ast.expr) -> str:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    return "..."


def python_messages() -> set[str]:
    """Messages of Python and the operating system."""
    found = {os.strerror(errno.EADDRINUSE)}
    try:
        __import__("a_module_that_is_not_installed")
    except ImportError as error:
        for module in ("gradio", "starlette"):
            found.add(str(error).replace("a_module_that_is_not_installed", module))
    return found


@pytest.mark.parametrize("message", dict.fromkeys(messages()))
def test_quoted_message_occurs(message: str) -> None:
    assert message in package_texts() or message in python_messages()


def test_messages_are_found() -> None:
    assert len(set(messages())) > 30
