"""Functions of a conversation: their kinds, and the arguments they take."""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass

from fastrtc_anyio._core.user_code import is_coroutine_function
from fastrtc_anyio.handlers.functions import positional_arguments

from .events import InterruptionJudge, TurnListener

__all__ = ["InputNeed", "ReplyCall", "check_functions", "fit_arguments", "input_need"]


class InputNeed(enum.Enum):
    """Whether a function takes the client's input."""

    NONE = "none"
    OPTIONAL = "optional"
    REQUIRED = "required"


@dataclass(frozen=True)
class ReplyCall:
    """A reply function, ready to be called once the client's input has arrived.

    ``arguments`` makes its arguments from the latest input. Call it once.
    """

    function: Callable[..., object]
    need: InputNeed
    arguments: Callable[[], tuple[object, ...]]


def check_functions(
    fn: Callable[..., object],
    startup_fn: Callable[..., object] | None,
    confirm_interruption: InterruptionJudge | None,
    on_event: TurnListener | None,
) -> None:
    """Raise `TypeError` for an argument that is not a function of the required kind."""
    functions: dict[str, object] = {"fn": fn, "startup_fn": startup_fn}
    others: dict[str, object] = {"confirm_interruption": confirm_interruption, "on_event": on_event}
    for name, function in {**functions, **others}.items():
        if not callable(function) and (name == "fn" or function is not None):
            raise TypeError(f"{name} must be a function; got {function!r}")
    for name, function in functions.items():
        if is_coroutine_function(function):
            raise TypeError(
                f"{name} must be a generator function, plain or async: one that yields; "
                f"{function!r} is a coroutine function"
            )
    if is_coroutine_function(on_event):
        raise TypeError(f"on_event must be a plain function; got {on_event!r}")


def input_need(function: Callable[..., object], own: int) -> InputNeed:
    """Find out whether a function takes more than ``own`` positional arguments."""
    required, most = positional_arguments(function)
    if most <= own:
        return InputNeed.NONE
    return InputNeed.REQUIRED if required > own else InputNeed.OPTIONAL


def fit_arguments(
    function: Callable[..., object], arguments: tuple[object, ...]
) -> tuple[object, ...]:
    """Drop arguments that the function does not take; add None for missing ones."""
    required, most = positional_arguments(function)
    return (arguments + (None,) * (required - len(arguments)))[:most]
