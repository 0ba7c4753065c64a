"""Exceptions without the variables of the functions that raised them."""

from __future__ import annotations

import weakref

from fastrtc_anyio._core.stacks import forget_frames


class Kept:
    """An object that a function has as a variable."""


def raise_error(kept: list[weakref.ref[Kept]]) -> None:
    one, other = Kept(), Kept()
    kept += [weakref.ref(one), weakref.ref(other)]
    try:
        raise KeyError("first")
    except KeyError as first:
        cause = ValueError("cause")
        cause.__context__ = cause  # no infinite search
        error = ExceptionGroup("several", [OSError("part"), first])
        raise error from cause


def test_frames_are_forgotten() -> None:
    kept: list[weakref.ref[Kept]] = []
    error: BaseException | None = None
    try:
        raise_error(kept)
    except ExceptionGroup as exc:
        error = exc
    assert error is not None
    assert all(one() is not None for one in kept)
    forget_frames(error)
    assert error.__traceback__ is None
    assert all(one() is None for one in kept)
    assert isinstance(error, ExceptionGroup)
    assert [str(one) for one in error.exceptions] == ["part", "'first'"]
    assert error.exceptions[1].__traceback__ is None
