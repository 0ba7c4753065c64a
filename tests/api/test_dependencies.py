"""Each package that the code imports is declared, where it is needed and with a lower bound."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

NEEDS_EXTRA = {
    "_cli/": "demo",
    "cluster/": "server",
    "cluster/_ray_directory.py": "ray",
    "cluster/_replica.py": "ray",
    "cluster/_serve_internals.py": "ray",
    "cluster/ray.py": "ray",
    "observability/_collector.py": "metrics",
    "observability/metrics.py": "metrics",
    "observability/tracing.py": "otel",
    "server/": "server",
    "speech/cartesia.py": "cartesia",
    "speech/_pocketsphinx_process.py": "stt",
    "speech/silero.py": "vad",
    "testing/": "test",
    "turn_servers.py": "turn",
}
"""Parts of the package that an extra is for. All others need the dependencies alone."""
USER_INSTALLS = {"huggingface_hub", "kokoro_onnx", "moonshine_onnx"}
"""Packages of models, which no extra installs: an error of the model names them."""
OTHER_CODE = ("tests", "examples", "benchmarks", "docs")
OTHER_EXTRAS = {
    "benchmarks": "bench",
    "docs": "docs",
    "examples/ray_calls.py": "ray",
    "tests/fuzz": "fuzz",
    "tests/ray": "ray",
}
"""Extras of this code besides that of the tests."""
OTHER_ENVIRONMENTS = {"benchmarks/servers/fastrtc_server.py", "tests/interop"}
"""Code whose requirements ``nox -s interop`` and ``nox -s bench`` install."""
OWN = {"benchmarks", "fastrtc_anyio", "tests", "docs"}

NAMES = packages_distributions()


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def declared(*extras: str) -> dict[str, str]:
    """Return the requirements of the package and of extras by distribution."""
    lines = list(PROJECT["dependencies"])
    names = list(extras)
    for name in names:
        for line in PROJECT["optional-dependencies"][name]:
            own = re.match(r"fastrtc-anyio\[(.*)\]$", line)
            if own:
                names += own[1].split(",")
            else:
                lines.append(line)
    return {normal(re.split(r"[^\w.-]", line)[0]): line for line in lines}


def imports(path: Path) -> set[str]:
    """Return the third-party modules that a file imports at run time, by name too."""
    found: set[str] = set()
    skipped: set[ast.AST] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            skipped |= {inner for line in node.body for inner in ast.walk(line)}
        if node in skipped:
            continue
        match node:
            case ast.Import(names=names):
                found |= {alias.name for alias in names}
            case ast.ImportFrom(module=str(module), level=0):
                found.add(module)
            case ast.Call(func=ast.Name(id="import_module"), args=[ast.Constant(str(name))]):
                found.add(name)
    tops = {name.partition(".")[0] for name in found}
    is_example = path.parent.name == "examples"
    beside = {sibling.stem for sibling in path.parent.glob("*.py") if is_example}
    return tops - set(sys.stdlib_module_names) - OWN - beside


def files(folder: str) -> Iterator[tuple[str, Path]]:
    for path in sorted((ROOT / folder).rglob("*.py")):
        yield path.relative_to(ROOT / folder).as_posix(), path


def missing(path: Path, *extras: str) -> set[str]:
    known = declared(*extras)
    return {
        name
        for name in imports(path)
        if not {normal(one) for one in NAMES.get(name, [name])} & known.keys()
    }


def test_imports_of_the_package_are_declared() -> None:
    undeclared = {}
    for name, path in files("fastrtc_anyio"):
        extras = [extra for part, extra in NEEDS_EXTRA.items() if name.startswith(part)]
        if absent := missing(path, *extras) - USER_INSTALLS:
            undeclared[name] = sorted(absent)
    assert undeclared == {}, "declare them in pyproject.toml"


def other_extras(path: str) -> list[str]:
    return [extra for part, extra in OTHER_EXTRAS.items() if f"{path}/".startswith(f"{part}/")]


@pytest.mark.parametrize("folder", OTHER_CODE)
def test_imports_of_tests_and_examples_are_in_the_test_extra(folder: str) -> None:
    undeclared = {
        name: sorted(absent)
        for name, path in files(folder)
        if not any(f"{folder}/{name}".startswith(part) for part in OTHER_ENVIRONMENTS)
        and (absent := missing(path, "test", *other_extras(f"{folder}/{name}")))
    }
    assert undeclared == {}


def test_dependencies_are_imported() -> None:
    imported = {name for _, path in files("fastrtc_anyio") for name in imports(path)}
    distributions = {normal(one) for name in imported for one in NAMES.get(name, [name])}
    assert declared().keys() - distributions == set(), "remove what no module imports"
    assert declared("server").keys() - distributions == set()


def test_dependencies_have_lower_bounds() -> None:
    for line in declared(*PROJECT["optional-dependencies"]).values():
        assert re.search(r"[>=]=\d", line), f"{line} has no lower bound"


def test_import_that_is_not_declared_is_found(tmp_path: Path) -> None:
    path = tmp_path / "module.py"
    path.write_text(
        "import os, anyio.abc, other.part\n"
        "from typing import TYPE_CHECKING\n"
        "if TYPE_CHECKING:\n    import for_types\n"
        "def load():\n    import late\n    return import_module('by_name')\n"
        "from . import sibling\n"
    )
    assert missing(path) == {"other", "late", "by_name"}
