"""Public names, and the pages of the reference that list them."""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import ModuleType

import fastrtc_anyio

EXTRA = (
    "fastrtc_anyio.cluster.ray",
    "fastrtc_anyio.testing.pytest_plugin",
    "fastrtc_anyio.testing.strategies",
)
"""Public modules of a folder that exports the names of others."""
DOCS = Path(__file__).resolve().parents[1]
ENTRY = re.compile(r"^\* `(fastrtc_anyio(?:\.\w+)+)`$", re.MULTILINE)


@cache
def public_modules() -> dict[str, ModuleType]:
    """The package, the modules beside it, and those of folders that export nothing themselves."""
    found = {"fastrtc_anyio": fastrtc_anyio}
    folders = [fastrtc_anyio]
    for folder in folders:
        for entry in pkgutil.iter_modules(folder.__path__):
            if entry.name.startswith("_"):
                continue
            module = importlib.import_module(f"{folder.__name__}.{entry.name}")
            found[module.__name__] = module
            if not hasattr(module, "__all__"):
                folders.append(module)
    found |= {name: importlib.import_module(name) for name in EXTRA}
    return {name: module for name, module in found.items() if hasattr(module, "__all__")}


@cache
def public_names() -> dict[str, object]:
    """Each public name once, from the module nearest to the package's root."""
    found: dict[str, object] = {}
    seen: set[tuple[str, int]] = set()
    for module in sorted(public_modules(), key=lambda name: name.count(".")):
        for name in public_modules()[module].__all__:
            value = getattr(public_modules()[module], name)
            if (name, id(value)) not in seen:
                seen.add((name, id(value)))
                found[f"{module}.{name}"] = value
    return found


def listed_names() -> Iterator[tuple[str, str]]:
    """Yield each name that a page lists, with the page."""
    for page in sorted((DOCS / "reference").glob("*.md")):
        for name in ENTRY.findall(page.read_text(encoding="utf-8")):
            yield name, page.name


def resolve(name: str) -> object:
    module, _, attribute = name.rpartition(".")
    return getattr(importlib.import_module(module), attribute)
