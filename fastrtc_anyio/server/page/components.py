"""Inputs and outputs of the page: declared in Python, drawn by the page.

A component has a label for people and a name for messages. Arguments are named as in Gradio.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field, fields
from functools import wraps
from typing import ClassVar, Literal, TypeVar, dataclass_transform

from fastrtc_anyio._core.options import check_choice, check_number, short_repr
from fastrtc_anyio.errors import SignalingError

__all__ = [
    "Chatbot",
    "Checkbox",
    "Choice",
    "Component",
    "Hidden",
    "InvalidInput",
    "OutputsHandler",
    "Slider",
    "Textbox",
    "check_names",
    "component",
    "parse_inputs",
]

OutputsHandler = Callable[..., object]
"""``(*shown, *emitted) -> shown``, plain or async."""

_SLIDER_STEPS = 100
_RESERVED = "webrtc_id"


class InvalidInput(SignalingError):
    """The input that a client sent does not match the declared components."""

    status_hint = 422


C = TypeVar("C", bound="Component")


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def component(cls: type[C]) -> type[C]:
    """Make a frozen dataclass that ignores unknown keywords with a warning.

    Declarations written for Gradio have keywords that style its page.
    """
    made = dataclass(frozen=True)(cls)
    known = {field.name for field in fields(made)}
    initialize: Callable[..., None] = made.__init__

    @wraps(initialize)
    def __init__(self: C, *args: object, **options: object) -> None:  # noqa: N807
        unknown = [name for name in options if name not in known]
        if unknown:
            warnings.warn(
                f"{type(self).__name__} ignores {', '.join(unknown)}; it has the keywords "
                f"{', '.join(sorted(known))}",
                stacklevel=2,
            )
        initialize(self, *args, **{name: options[name] for name in options if name in known})

    setattr(made, "__init__", __init__)  # noqa: B010 - type checkers refuse to assign a method
    return made


@component
class Component:
    """Base class of all components. Unknown keywords are ignored with a warning.

    Args:
        label: text beside the component; by default the name of the class.
        name: key of its value in messages. By default the label in lower case, its words joined by
            ``_``.

    Raises:
        TypeError: the label or the name is not a string.
        ValueError: the label is empty, the name is empty or ``webrtc_id``, or a value does not fit.
    """

    kind: ClassVar[str] = ""

    label: str = "Component"
    name: str = field(default="", kw_only=True)

    def __post_init__(self) -> None:
        for what, given in (("label", self.label), ("name", self.name)):
            if not isinstance(given, str):
                raise TypeError(f"{what} must be a string; got {given!r}")
        if not self.label.strip():
            raise ValueError(f"label must not be empty; got {self.label!r}")
        name = self.name or re.sub(r"\W+", "_", self.label.lower()).strip("_")
        if not name or name == _RESERVED:
            raise ValueError(f"{self.label!r} needs a name: give name=...; got {name!r}")
        object.__setattr__(self, "name", name)

    @property
    def initial(self) -> object:
        """The value before the first change."""
        return self.parse(vars(self)["value"])

    def parse(self, value: object) -> object:
        """Return a client's value as the handler receives it.

        Raises:
            TypeError, ValueError: the value has the wrong type or is out of range.
        """
        raise NotImplementedError

    def describe(self) -> dict[str, object]:
        """Return the component as the page reads it: JSON."""
        return {**vars(self), "kind": self.kind, "value": self.initial}

    def _unlike(self, wanted: str, got: object) -> ValueError:
        return ValueError(f"{self.name!r} must be {wanted}; got {short_repr(got)}")


@component
class Slider(Component):
    """A number within a range: an int if ``minimum`` and ``step`` are ints, otherwise a float.

    Args:
        minimum, maximum: the range, both ends included.
        value: the initial number; by default ``minimum``.
        step: change by one key press. By default 1 for ints in a range of at least 10, otherwise a
            hundredth of the range.
    """

    kind = "slider"

    label: str = "Slider"
    minimum: float = 0
    maximum: float = 100
    value: float | None = None
    step: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        for what in ("minimum", "maximum"):
            check_number(f"{what} of {self.label!r}", getattr(self, what))
        if self.step is None:
            span = self.maximum - self.minimum
            whole = isinstance(span, int) and span >= 10
            object.__setattr__(self, "step", 1 if whole else span / _SLIDER_STEPS)
        if self.value is None:
            object.__setattr__(self, "value", self.minimum)
        for what in ("value", "step"):
            check_number(f"{what} of {self.label!r}", getattr(self, what))
        assert self.step is not None
        if not (self.minimum < self.maximum and self.step > 0):
            raise ValueError(
                f"{self.label!r} needs a minimum below its maximum and a step; got {self.minimum!r}"
                f" to {self.maximum!r} by {self.step!r}"
            )
        self.parse(self.value)

    def parse(self, value: object) -> float:
        check_number(repr(self.name), value)
        assert isinstance(value, int | float)
        if not self.minimum <= value <= self.maximum:
            raise self._unlike(f"from {self.minimum!r} to {self.maximum!r}", value)
        whole = isinstance(self.minimum, int) and isinstance(self.step, int)
        return round(value) if whole else float(value)


@component
class Textbox(Component):
    """Text. As an output it also shows numbers, and other values as JSON.

    Args:
        value: the initial text.
        placeholder: text in the empty field.
        lines: height of the field, in lines.
        type: ``"password"`` for a field that shows dots in place of its characters.
        max_length: maximum characters of an input.
    """

    kind = "textbox"

    label: str = "Textbox"
    value: str = ""
    placeholder: str = ""
    lines: int = 1
    max_length: int = 10_000
    type: Literal["text", "password"] = "text"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice(f"type of {self.label!r}", self.type, ("text", "password"))
        if self.lines < 1:
            raise ValueError(f"lines of {self.label!r} must be 1 or more; got {self.lines!r}")
        self.parse(self.value)

    def parse(self, value: object) -> str:
        if not isinstance(value, str):
            raise self._unlike("a string", value)
        if len(value) > self.max_length:
            raise ValueError(
                f"{self.name!r} has {len(value)} characters; at most {self.max_length} are taken"
            )
        return value


@component
class Choice(Component):
    """One of several strings.

    Args:
        choices: the strings.
        value: the initial choice; by default the first.
    """

    kind = "choice"

    label: str = "Choice"
    choices: Sequence[str] = ()
    value: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        choices = () if isinstance(self.choices, str) else tuple(self.choices)
        if not choices or not all(isinstance(choice, str) for choice in choices):
            raise ValueError(
                f"choices of {self.label!r} must be a list of strings; got {self.choices!r}"
            )
        object.__setattr__(self, "choices", choices)
        if self.value is None:
            object.__setattr__(self, "value", choices[0])
        self.parse(self.value)

    def parse(self, value: object) -> str:
        if value not in self.choices:
            wanted = ", ".join(map(repr, self.choices))
            raise self._unlike(f"one of {wanted}", value)
        return str(value)

    def describe(self) -> dict[str, object]:
        return {**super().describe(), "choices": list(self.choices)}


@component
class Checkbox(Component):
    """True or False.

    Args:
        value: whether the box is checked initially.
    """

    kind = "checkbox"

    label: str = "Checkbox"
    value: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        self.parse(self.value)

    def parse(self, value: object) -> bool:
        if not isinstance(value, bool):
            raise self._unlike("true or false", value)
        return value


@component
class Chatbot(Component):
    """A conversation: a list of ``{"role": "user" | "assistant" | ..., "content": text}``.

    The page shows it as an output. If it is an input too, the handler receives the conversation so
    far for each reply, as in FastRTC's voice chats: ``additional_inputs=[chat],
    additional_outputs=[chat], additional_outputs_handler=lambda old, new: new``.

    Args:
        value: the initial conversation.
    """

    kind = "chatbot"

    label: str = "Chatbot"
    value: Sequence[Mapping[str, object]] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "value", tuple(self.parse(self.value)))

    def parse(self, value: object) -> list[dict[str, object]]:
        if not isinstance(value, list | tuple):
            raise self._unlike("a list of messages", value)
        for message in value:
            if not (isinstance(message, Mapping) and isinstance(message.get("role"), str)):
                raise self._unlike('messages {"role": ..., "content": ...}', message)
        return [dict(message) for message in value]


@component
class Hidden(Component):
    """A value that the page neither shows nor sends: Gradio's ``State``. Each session has its own.

    As an input, the handler receives the value; as an output, ``additional_outputs_handler``
    receives it and returns the next.

    Args:
        value: the initial value, copied for each session.
    """

    kind = "hidden"

    label: str = "Hidden"
    value: object = None

    def parse(self, value: object) -> object:
        return deepcopy(value)


def check_names(components: Sequence[Component], what: str) -> None:
    """Check the components of the option ``what``.

    Raises:
        ValueError: two components have the same name.
    """
    names = [component.name for component in components]
    if twice := {name for name in names if names.count(name) > 1}:
        raise ValueError(f"{what} must have different names; got {sorted(twice)} more than once")


def parse_inputs(
    declared: Sequence[Component],
    body: Mapping[str, object],
    hidden: Mapping[str, object] | None = None,
) -> list[object]:
    """Return the values of a client's input, in the order of their declaration.

    Args:
        declared: the components.
        body: the values by name, and a ``webrtc_id``, which is ignored.
        hidden: the session's values of :class:`Hidden` components by name. Clients send none.

    Raises:
        InvalidInput: a value is missing, undeclared or invalid.
    """
    held = hidden or {}
    names = [component.name for component in declared if not isinstance(component, Hidden)]
    if missing := [name for name in names if name not in body]:
        raise InvalidInput(f"the inputs are {_list(names)}; {_list(missing)} missing")
    if unknown := [name for name in body if name not in (*names, _RESERVED)]:
        raise InvalidInput(f"the inputs are {_list(names)}; got {_list(unknown)}")
    try:
        return [
            held.get(component.name)
            if isinstance(component, Hidden)
            else component.parse(body[component.name])
            for component in declared
        ]
    except (TypeError, ValueError) as exc:
        raise InvalidInput(str(exc)) from None


def _list(names: Sequence[str]) -> str:
    return ", ".join(short_repr(name) for name in names)
