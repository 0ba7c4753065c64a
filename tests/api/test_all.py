"""Every public module declares its public names in ``__all__``."""

from __future__ import annotations

import ast
import importlib
from pathlib import Path

import pytest

import fastrtc_anyio

ROOT = Path(fastrtc_anyio.__file__).parents[1]
Function = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


def find_public_modules() -> dict[str, ast.Module]:
    """All modules without an underscore in their path, except packages with only a docstring."""
    found = {}
    for path in sorted((ROOT / "fastrtc_anyio").rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        name = ".".join(parts).removesuffix(".__init__")
        tree = ast.parse(path.read_text(encoding="utf-8"))
        if "._" not in name and len(tree.body) > 1:
            found[name] = tree
    return found


MODULES = find_public_modules()


@pytest.mark.parametrize("name", MODULES)
def test_all_is_sorted_resolves_and_is_complete(name: str) -> None:
    module = importlib.import_module(name)
    exported = list(module.__all__)
    assert exported == sorted(set(exported))
    assert [missing for missing in exported if not hasattr(module, missing)] == []
    defined = {node.name for node in MODULES[name].body if isinstance(node, Function)}
    assert {public for public in defined if not public.startswith("_")} - set(exported) == set()
