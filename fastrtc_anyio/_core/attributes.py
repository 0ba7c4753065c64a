"""Attributes that an object keeps on one of its parts."""

from __future__ import annotations

from typing import Generic, TypeVar

T = TypeVar("T")


class PartAttribute(Generic[T]):
    """An attribute that reads and writes the same name on the object in attribute ``part``."""

    def __init__(self, part: str) -> None:
        self._part = part

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, instance: object, owner: type | None = None) -> T:
        value: T = getattr(getattr(instance, self._part), self._name)
        return value

    def __set__(self, instance: object, value: T) -> None:
        setattr(getattr(instance, self._part), self._name, value)
