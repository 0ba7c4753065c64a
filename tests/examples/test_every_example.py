"""Properties of every example."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from fastrtc_anyio import Stream

from .loading import EXAMPLES, NAMES, NEEDS_RAY, WITHOUT_STREAM, load

TESTS = "".join(path.read_text() for path in Path(__file__).parent.glob("test_*.py"))
RAY_TESTS = (Path(__file__).parents[1] / "ray/test_serving.py").read_text()
PROGRAMS = [name for name in NAMES if name not in NEEDS_RAY]


@pytest.mark.parametrize("name", PROGRAMS)
def test_has_a_test(name: str) -> None:
    assert f'load("{name}")' in TESTS


@pytest.mark.parametrize("name", NEEDS_RAY)
def test_has_a_test_with_ray(name: str) -> None:
    assert f'"examples/{name}.yaml"' in RAY_TESTS


def test_list_of_examples_is_complete() -> None:
    listed = re.findall(r"^\* \[(\w+\.py)\]\(\1\): ", (EXAMPLES / "README.md").read_text(), re.M)
    assert sorted(listed) == [f"{name}.py" for name in NAMES]


@pytest.mark.parametrize("name", NAMES)
def test_list_of_examples_names_those_with_a_recorded_caller(name: str) -> None:
    (line,) = re.findall(rf"^\* \[{name}\.py\].*$", (EXAMPLES / "README.md").read_text(), re.M)
    code = (EXAMPLES / f"{name}.py").read_text()
    assert ("`--headless`" in line) == ('add_argument("--headless"' in code)


@pytest.mark.parametrize("name", PROGRAMS)
def test_has_docstring_and_main(name: str) -> None:
    text = (EXAMPLES / f"{name}.py").read_text()
    assert text.startswith('"""')
    assert 'if __name__ == "__main__":' in text


@pytest.mark.parametrize("name", [name for name in PROGRAMS if name not in WITHOUT_STREAM])
def test_has_a_stream(name: str) -> None:
    assert isinstance(load(name).stream, Stream)


@pytest.mark.parametrize("name", NAMES)
def test_does_not_import_asyncio(name: str) -> None:
    """Every example runs on both backends."""
    assert "import asyncio" not in (EXAMPLES / f"{name}.py").read_text()
