"""Tell the kinds of functions of the application apart."""

from __future__ import annotations

import inspect
from collections.abc import Callable


def is_coroutine_function(function: object) -> bool:
    """Return whether calling it creates a coroutine; also for methods, partials and callables."""
    return _is_kind(function, inspect.iscoroutinefunction)


def is_generator_function(function: object) -> bool:
    """Return whether calling it creates a generator, plain or async."""
    return _is_kind(function, inspect.isgeneratorfunction, inspect.isasyncgenfunction)


def _is_kind(function: object, *tests: Callable[[object], bool]) -> bool:
    # inspect looks through methods and partials, but not at the __call__ of an object.
    call = getattr(type(function), "__call__", None)  # noqa: B004
    return any(test(function) or test(call) for test in tests)
