"""How a stranger's value is shown in an error, whatever it is."""

from __future__ import annotations

from reprlib import Repr

__all__ = ["short_repr"]

_REPR = Repr()
_REPR.maxstring = _REPR.maxother = 60
_REPR.maxlevel = 2
_LENGTH = 80


def short_repr(value: object) -> str:
    """A value of decoded JSON, short, at any depth and of any size."""
    text = _REPR.repr(value)
    return text if len(text) <= _LENGTH else f"{text[: _LENGTH - 3]}..."
