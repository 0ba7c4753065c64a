"""The tree of exceptions, from the classes."""

from __future__ import annotations

from collections.abc import Iterator

from fastrtc_anyio import errors

from .draw import fence


def draw_errors() -> str:
    return fence("flowchart LR", list(_arrows(errors.FastRTCError, errors.FastRTCError)))


def _arrows(parent: type[Exception], base: type[Exception]) -> Iterator[str]:
    """Draw the subclasses of a class below ``parent``: the class, or the one that it stands for."""
    for cls in base.__subclasses__():
        if cls.__module__ != errors.__name__ or cls.__bases__[0] is not base:
            continue
        if cls.__name__.startswith("_"):
            yield from _arrows(parent, cls)
            continue
        status = getattr(cls, "status_hint", None)
        text = f"{cls.__name__}<br>{status}" if isinstance(status, int) else cls.__name__
        yield f'{parent.__name__} --> {cls.__name__}["{text}"]'
        yield from _arrows(cls, cls)
