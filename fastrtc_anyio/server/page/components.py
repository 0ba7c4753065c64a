"""What a person can set on the page, and what it shows: declared in Python, drawn by the page.

A component has a label, which people read, and a name, by which its value travels. The arguments
are called as those of Gradio's components of the same kind.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, NotRequired, TypedDict

from fastrtc_anyio._core.options import short_repr
from fastrtc_anyio.errors import SignalingError

__all__ = [
    "Chatbot",
    "Checkbox",
    "Choice",
    "Component",
    "ComponentBody",
    "InvalidInput",
    "OutputsHandler",
    "Slider",
    "Textbox",
    "check_components",
    "parse_inputs",
]

OutputsHandler = Callable[..., object]
"""``(*shown, *emitted) -> shown``, plain or async."""

MAX_TEXT = 10_000
"""Characters of a text, unless it says otherwise."""
_SLIDER_STEPS = 100
_RESERVED = "webrtc_id"


class InvalidInput(SignalingError):
    """The input that a client sent does not match the declared components."""

    status_hint = 422


class ComponentBody(TypedDict):
    """A component as the page reads it: JSON."""

    kind: str
    name: str
    label: str
    value: object
    minimum: NotRequired[float]
    maximum: NotRequired[float]
    step: NotRequired[float]
    placeholder: NotRequired[str]
    lines: NotRequired[int]
    max_length: NotRequired[int]
    choices: NotRequired[list[str]]


@dataclass(frozen=True)
class Component:
    """What all components share.

    Args:
        label: what the page writes beside it.
        name: the key of its value in what the page sends and is sent. By default the label in
            small letters with ``_`` between its words.

    Raises:
        TypeError: the label or the name is no string.
        ValueError: it is empty, or the name is ``webrtc_id``; a value does not fit.
    """

    kind: ClassVar[str] = ""

    label: str
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
        """Its value before anybody changed it."""
        raise NotImplementedError

    def parse(self, value: object) -> object:
        """The value as the handler gets it.

        Raises:
            ValueError: it is of another kind or out of range.
        """
        raise NotImplementedError

    def _unlike(self, wanted: str, got: object) -> ValueError:
        return ValueError(f"{self.name!r} must be {wanted}; got {short_repr(got)}")

    def describe(self) -> ComponentBody:
        """Return the component as the page reads it."""
        return {"kind": self.kind, "name": self.name, "label": self.label, "value": self.initial}


@dataclass(frozen=True)
class Slider(Component):
    """A number of a range. Whole numbers where ``minimum`` and ``step`` are whole, else floats.

    Args:
        minimum, maximum: the range, both ends included.
        value: the number at first; by default ``minimum``.
        step: what a key press adds. By default 1 in a range of whole numbers that is at least 10
            wide, else a hundredth of the range.
    """

    kind = "slider"

    minimum: float = 0
    maximum: float = 100
    value: float | None = None
    step: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.step is None:
            span = self.maximum - self.minimum
            whole = isinstance(span, int) and span >= 10
            object.__setattr__(self, "step", 1 if whole else span / _SLIDER_STEPS)
        if self.value is None:
            object.__setattr__(self, "value", self.minimum)
        for what in ("minimum", "maximum", "value", "step"):
            if not _is_number(number := getattr(self, what)):
                raise ValueError(f"{what} of {self.label!r} must be a number; got {number!r}")
        assert self.step is not None
        if not (self.minimum < self.maximum and self.step > 0):
            raise ValueError(
                f"{self.label!r} needs a minimum below its maximum and a step; got {self.minimum!r}"
                f" to {self.maximum!r} by {self.step!r}"
            )
        self.parse(self.value)

    @property
    def initial(self) -> float:
        return self.parse(self.value)

    def parse(self, value: object) -> float:
        if not _is_number(value):
            raise self._unlike("a number", value)
        assert isinstance(value, int | float)
        if not self.minimum <= value <= self.maximum:
            raise ValueError(
                f"{self.name!r} must be from {self.minimum!r} to {self.maximum!r}; "
                f"got {short_repr(value)}"
            )
        whole = isinstance(self.minimum, int) and isinstance(self.step, int)
        return round(value) if whole else float(value)

    def describe(self) -> ComponentBody:
        assert self.step is not None
        return {
            **super().describe(),
            "minimum": self.minimum,
            "maximum": self.maximum,
            "step": self.step,
        }


@dataclass(frozen=True)
class Textbox(Component):
    """Text. As an output it shows anything: numbers as they are, the rest as JSON.

    Args:
        value: the text at first.
        placeholder: what the empty field says.
        lines: its height.
        max_length: characters that may be entered.
    """

    kind = "textbox"

    value: str = ""
    placeholder: str = ""
    lines: int = 1
    max_length: int = MAX_TEXT

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.lines < 1:
            raise ValueError(f"lines of {self.label!r} must be 1 or more; got {self.lines!r}")
        self.parse(self.value)

    @property
    def initial(self) -> str:
        return self.value

    def parse(self, value: object) -> str:
        if not isinstance(value, str):
            raise self._unlike("a string", value)
        if len(value) > self.max_length:
            raise ValueError(
                f"{self.name!r} has {len(value)} characters; at most {self.max_length} are taken"
            )
        return value

    def describe(self) -> ComponentBody:
        return {
            **super().describe(),
            "placeholder": self.placeholder,
            "lines": self.lines,
            "max_length": self.max_length,
        }


@dataclass(frozen=True)
class Choice(Component):
    """One of several strings.

    Args:
        choices: what there is to choose from.
        value: the choice at first; by default the first.
    """

    kind = "choice"

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

    @property
    def initial(self) -> str:
        return self.parse(self.value)

    def parse(self, value: object) -> str:
        if value not in self.choices:
            wanted = ", ".join(map(repr, self.choices))
            raise self._unlike(f"one of {wanted}", value)
        return str(value)

    def describe(self) -> ComponentBody:
        return {**super().describe(), "choices": list(self.choices)}


@dataclass(frozen=True)
class Checkbox(Component):
    """Yes or no.

    Args:
        value: whether it is checked at first.
    """

    kind = "checkbox"

    value: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        self.parse(self.value)

    @property
    def initial(self) -> bool:
        return self.value

    def parse(self, value: object) -> bool:
        if not isinstance(value, bool):
            raise self._unlike("true or false", value)
        return value


@dataclass(frozen=True)
class Chatbot(Component):
    """A conversation: a list of ``{"role": "user" | "assistant" | ..., "content": text}``.

    Shown where it is an output. As an input as well, the handler gets the conversation so far with
    each reply, as FastRTC's voice chats do: ``additional_inputs=[chat], additional_outputs=[chat],
    additional_outputs_handler=lambda old, new: new``.

    Args:
        value: the conversation at first.
    """

    kind = "chatbot"

    value: Sequence[Mapping[str, object]] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "value", tuple(self.parse(list(self.value))))

    @property
    def initial(self) -> list[dict[str, object]]:
        return [dict(message) for message in self.value]

    def parse(self, value: object) -> list[dict[str, object]]:
        if not isinstance(value, list):
            raise self._unlike("a list of messages", value)
        for message in value:
            if not (isinstance(message, Mapping) and isinstance(message.get("role"), str)):
                raise self._unlike('messages {"role": ..., "content": ...}', message)
        return [dict(message) for message in value]


def check_components(given: Sequence[object] | None, what: str) -> list[Component]:
    """The components of a stream, checked.

    Raises:
        TypeError: one is something else, such as a component of Gradio.
        ValueError: two have the same name.
    """
    components: list[Component] = []
    for component in given or ():
        if not isinstance(component, Component):
            raise TypeError(
                f"{what} must hold fastrtc_anyio's Slider, Textbox, Choice, Checkbox or Chatbot; "
                f"got {component!r}"
            )
        components.append(component)
    names = [component.name for component in components]
    if twice := {name for name in names if names.count(name) > 1}:
        raise ValueError(f"{what} must have different names; got {sorted(twice)} more than once")
    return components


def parse_inputs(declared: Sequence[Component], body: Mapping[str, object]) -> list[object]:
    """The values of a client's input, in the order of their declaration.

    Args:
        declared: the components.
        body: values by name, and a ``webrtc_id``, which is left out.

    Raises:
        InvalidInput: a value is missing, is not declared, or does not fit.
    """
    names = [component.name for component in declared]
    given = [name for name in body if name != _RESERVED]
    if missing := [name for name in names if name not in body]:
        raise InvalidInput(f"the inputs are {_list(names)}; {_list(missing)} missing")
    if unknown := [name for name in given if name not in names]:
        raise InvalidInput(f"the inputs are {_list(names)}; got {_list(unknown)}")
    try:
        return [component.parse(body[component.name]) for component in declared]
    except ValueError as exc:
        raise InvalidInput(str(exc)) from None


def _is_number(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return isinstance(value, int) or math.isfinite(value)


def _list(names: Sequence[str]) -> str:
    return ", ".join(short_repr(name) for name in names)
