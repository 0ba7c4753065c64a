"""The source distribution contains all that the documentation shows and needs."""

from __future__ import annotations

import posixpath
import re
import tarfile
from pathlib import Path

import pytest
from hatchling.builders.sdist import SdistBuilder

from tests.kit.documentation import PAGES, ROOT, prose, read

IMAGE = re.compile(r"!\[[^\]]*\]\(([^)\s]+)\)")


@pytest.fixture(scope="module")
def contents(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """Paths in the archive, relative to its folder."""
    folder = tmp_path_factory.mktemp("sdist")
    (archive,) = SdistBuilder(str(ROOT)).build(directory=str(folder), versions=["standard"])
    with tarfile.open(archive) as file:
        return {name.partition("/")[2] for name in file.getnames()}


def test_pages_and_their_images_are_included(contents: set[str]) -> None:
    images = {
        posixpath.normpath(Path(page).parent / target)
        for page in PAGES
        for target in IMAGE.findall(prose(read(page)))
    }
    assert "docs/images/page.png" in images
    assert {*PAGES, *images} - contents == set()


def test_site_can_be_built(contents: set[str]) -> None:
    files = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "docs").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert files - contents == set()
    assert {"noxfile.py", "pyproject.toml", "README.md", "LICENSE"} <= contents


def test_programs_of_the_documentation_are_included(contents: set[str]) -> None:
    assert "examples/echo.py" in contents
    assert "benchmarks/__main__.py" in contents
    assert not any("__pycache__" in name for name in contents)
