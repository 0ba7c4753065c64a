"""Calls of reply functions: which of the client's inputs a function takes."""

from __future__ import annotations

import enum
import inspect
from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["InputNeed", "ReplyCall", "fit_arguments", "input_need"]


class InputNeed(enum.Enum):
    """Whether a function takes the client's input."""

    NONE = "none"
    OPTIONAL = "optional"
    REQUIRED = "required"


@dataclass(frozen=True)
class ReplyCall:
    """A reply function, ready to be called once the client's input has arrived.

    Attributes:
        function: the function.
        need: whether it takes the client's input.
        arguments: makes the arguments from the latest input. Call it once.
    """

    function: Callable[..., object]
    need: InputNeed
    arguments: Callable[[], tuple[object, ...]]


def input_need(function: Callable[..., object], own: int) -> InputNeed:
    """Find out whether a function takes more than ``own`` positional arguments."""
    if _maximum(function) <= own:
        return InputNeed.NONE
    return InputNeed.REQUIRED if _minimum(function) > own else InputNeed.OPTIONAL


def fit_arguments(
    function: Callable[..., object], arguments: tuple[object, ...]
) -> tuple[object, ...]:
    """Drop arguments that the function does not take; add None for missing ones."""
    missing = _minimum(function) - len(arguments)
    return (arguments + (None,) * missing)[: _maximum(function)]


def _positional(function: Callable[..., object]) -> list[inspect.Parameter]:
    return [
        parameter
        for parameter in inspect.signature(function).parameters.values()
        if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD)
    ]


def _maximum(function: Callable[..., object]) -> int:
    kinds = {parameter.kind for parameter in inspect.signature(function).parameters.values()}
    unlimited = inspect.Parameter.VAR_POSITIONAL in kinds
    return 1000 if unlimited else len(_positional(function))


def _minimum(function: Callable[..., object]) -> int:
    return sum(parameter.default is parameter.empty for parameter in _positional(function))
