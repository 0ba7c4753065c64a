"""The reference documents every public name exactly once, and no other."""

from __future__ import annotations

import inspect
from collections import Counter

import pytest

from docs.site.names import DOCS, listed_names, public_names, resolve

PLACE = 'add a line such as "* `{}`" to the page of its subject in docs/reference/'


def test_every_public_name_has_an_entry() -> None:
    listed = {name for name, _ in listed_names()}
    missing = sorted(public_names().keys() - listed)
    assert missing == [], PLACE.format(missing[0])


def test_every_entry_exists_and_has_one_place() -> None:
    counts = Counter(name for name, _ in listed_names())
    assert [name for name, count in counts.items() if count > 1] == []
    assert counts.keys() - public_names().keys() == set()


def test_every_line_of_a_list_is_an_entry() -> None:
    """A list whose lines have another form would stay a list of names on the site."""
    for page in (DOCS / "reference").glob("*.md"):
        lines = [line for line in page.read_text().splitlines() if line.startswith("* `")]
        assert len(lines) == sum(where == page.name for _, where in listed_names()), page.name


@pytest.mark.parametrize("name", [name for name, _ in listed_names()])
def test_entry_has_a_text(name: str) -> None:
    value = resolve(name)
    if inspect.isclass(value) or inspect.isroutine(value):
        assert value.__doc__
