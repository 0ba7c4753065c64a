"""Attributes that an object keeps on one of its parts."""

from __future__ import annotations

from typing import Any


def part_attribute(part: str) -> Any:
    """Return an attribute that reads and writes the same name on the object in attribute ``part``.

    Annotate it with the type of its value: protocols do not match the type of a descriptor.
    """
    return _PartAttribute(part)


class _PartAttribute:
    def __init__(self, part: str) -> None:
        self._part = part

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, instance: object, owner: type | None = None) -> object:
        return getattr(getattr(instance, self._part), self._name)

    def __set__(self, instance: object, value: object) -> None:
        setattr(getattr(instance, self._part), self._name, value)
