"""The import graph has no cycles and no long chains. ``pyproject.toml`` has the layers."""

from __future__ import annotations

import sys
from graphlib import TopologicalSorter
from pathlib import Path

import grimp
import pytest

PACKAGE = "fastrtc_anyio"
THIRD_PARTY = {
    *("aioice", "aiortc", "anyio", "av", "cryptography", "h11", "httpx", "hypothesis"),
    *("ifaddr", "matplotlib", "numpy", "onnxruntime", "pytest", "starlette", "trio", "wsproto"),
    *(
        "aioice",
        "aiortc",
        "anyio",
        "av",
        "cryptography",
        "h11",
        "httpx",
        "hypothesis",
        "matplotlib",
    ),
    *("ifaddr", "numpy", "onnxruntime", "opentelemetry", "prometheus_client", "pytest", "ray"),
    *("starlette", "trio", "wsproto"),
}
"""Other packages imported by statement. Speech models are imported by name."""
LONGEST = 13
"""Maximum length of a chain of imports, with folders and top-level modules as links."""


@pytest.fixture(scope="module")
def imports() -> dict[str, set[str]]:
    """The imports within the package, including those in functions and under ``TYPE_CHECKING``."""
    graph = grimp.build_graph(PACKAGE, cache_dir=None)
    return {name: graph.find_modules_directly_imported_by(name) for name in sorted(graph.modules)}


def test_no_import_cycles(imports: dict[str, set[str]]) -> None:
    TopologicalSorter(imports).prepare()  # CycleError names the modules


def test_longest_chain_of_boxes(imports: dict[str, set[str]]) -> None:
    boxes: dict[str, set[str]] = {}
    for module, imported in imports.items():
        if module != PACKAGE:  # it re-exports from every box
            others = {box(name) for name in imported if name != PACKAGE}
            boxes.setdefault(box(module), set()).update(others - {box(module)})
    longest: dict[str, list[str]] = {}
    for name in TopologicalSorter(boxes).static_order():
        below = max((longest[other] for other in boxes.get(name, ())), key=len, default=[])
        longest[name] = [name, *below]
    assert len(max(longest.values(), key=len)) <= LONGEST, max(longest.values(), key=len)


def box(module: str) -> str:
    return module.split(".")[1]


def test_third_party_packages() -> None:
    modules = grimp.build_graph(PACKAGE, cache_dir=None, include_external_packages=True).modules
    assert (
        modules.difference(sys.stdlib_module_names)
        - {name for name in modules if name.split(".")[0] == PACKAGE}
        == THIRD_PARTY
    )


def test_no_module_has_a_catch_all_name() -> None:
    catch_all = {"utils.py", "util.py", "common.py", "helpers.py", "misc.py"}
    package = Path(__file__).parents[2] / PACKAGE
    found = [str(path.relative_to(package)) for path in package.rglob("*.py")]
    assert [path for path in found if Path(path).name in catch_all] == ["utils.py"]  # FastRTC's
