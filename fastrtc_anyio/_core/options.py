"""Check options, and describe values in error messages."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from reprlib import Repr
from typing import Protocol


class _ShortRepr(Repr):
    """A ``Repr`` that shows the type of a numpy array, not its values."""

    def repr_ndarray(self, array: _Array, level: int) -> str:
        return f"{array.dtype} array of shape {array.shape}"


class _Array(Protocol):
    @property
    def dtype(self) -> object: ...

    @property
    def shape(self) -> tuple[int, ...]: ...


_HTTP_URL = re.compile(r"https?://([\w.-]+|\[[0-9A-Fa-f:.]+\])(:(?P<port>[0-9]{1,5}))?(/[^\s?#]*)?")
_REPR = _ShortRepr()
_REPR.maxstring = _REPR.maxother = 60
_REPR.maxlevel = 2
_LENGTH = 80


def check_number(
    name: str,
    value: object,
    *,
    above: float | None = None,
    at_least: float | None = None,
    at_most: float | None = None,
    integer: bool = False,
    finite: bool = True,
    unit: str = "",
    optional: bool = False,
) -> None:
    """Check that an option is a number within a range, or None with ``optional``.

    ``above`` is exclusive.

    Raises:
        TypeError: ``value`` is not a number, or not an int with ``integer``; a bool is neither.
        ValueError: ``value`` is out of range, NaN, infinite with ``finite``, or too large for a
            float without ``integer``.
    """
    if optional and value is None:
        return

    def explain() -> str:
        bounds = {"above": above, "at least": at_least, "at most": at_most}
        suffix = f" {unit}" if unit else ""
        limits = " and ".join(
            f"{word} {bound:g}{suffix}" for word, bound in bounds.items() if bound is not None
        )
        wanted = f"{'an int' if integer else 'a number'} {limits}".strip()
        wanted += ", or None" if optional else ""
        return f"{name} must be {wanted}; got {short_repr(value)}"

    if isinstance(value, bool) or not isinstance(value, int if integer else (int, float)):
        raise TypeError(explain())
    try:
        number = 0.0 if integer else float(value)
    except OverflowError:  # an int of more than 308 digits
        number = math.nan
    special = math.isnan(number) or (finite and math.isinf(number))
    if (
        special
        or (above is not None and not value > above)
        or (at_least is not None and value < at_least)
        or (at_most is not None and value > at_most)
    ):
        raise ValueError(explain())


def check_choice(name: str, value: object, choices: Iterable[object]) -> None:
    """Check that an option is one of a few values.

    Raises:
        ValueError: ``value`` is not among ``choices``.
    """
    known = list(choices)
    if not any(value is choice or value == choice for choice in known):
        listed = ", ".join(repr(choice) for choice in known)
        raise ValueError(f"{name} must be one of {listed}; got {short_repr(value)}")


def check_type(name: str, value: object, kind: type, *, optional: bool = False) -> None:
    """Check that an option is an instance of a class, or None with ``optional``.

    Raises:
        TypeError: ``value`` is something else.
    """
    if not isinstance(value, kind) and not (optional and value is None):
        ending = " or None" if optional else ""
        article = "an" if kind.__name__[0] in "AEIOaeio" else "a"
        got = short_repr(value)
        raise TypeError(f"{name} must be {article} {kind.__name__}{ending}; got {got}")


def is_http_url(value: object) -> bool:
    """Whether a value is an http or https URL of a host, a port and a path, and nothing else."""
    found = _HTTP_URL.fullmatch(value) if isinstance(value, str) else None
    return found is not None and int(found["port"] or 0) < 65_536


def short_repr(value: object) -> str:
    """Return a ``repr`` of at most 80 characters for values of any size and depth."""
    try:
        text = _REPR.repr(value)
    except Exception:  # of a value's own __repr__, or an int of more than 4300 digits
        text = f"<{type(value).__qualname__}>"
    return text if len(text) <= _LENGTH else f"{text[: _LENGTH - 3]}..."
