"""Gradio's components as components of the page, recognised by their class and attributes.

Gradio itself is never imported: programs written for FastRTC bring it.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import field
from typing import Protocol, cast

from fastrtc_anyio._core.options import short_repr

from .components import (
    Chatbot,
    Checkbox,
    Component,
    Hidden,
    Slider,
    Textbox,
    check_names,
    component,
)

__all__ = ["adapt_components"]

_MAX_TEXT = 100_000


class _Foreign(Protocol):
    """A component of Gradio. The numbers and choices exist where the class has them."""

    label: str | None
    value: object
    minimum: float
    maximum: float
    choices: Sequence[object] | None


def adapt_components(
    inputs: Sequence[object] | None, outputs: Sequence[object] | None
) -> tuple[list[Component], list[Component]]:
    """Check ``additional_inputs`` and ``additional_outputs``, and convert Gradio's components.

    A component that is both an input and an output stays one. Kinds that the page does not have
    become :class:`Hidden` components, with a warning.

    Raises:
        TypeError: an argument is not a list, or an entry is not a component.
        ValueError: two components of fastrtc_anyio have the same name.
    """
    both = (("additional_inputs", inputs), ("additional_outputs", outputs))
    for what, given in both:
        _check_list(what, given)
    adapted: dict[int, Component] = {}
    taken = {
        entry.name for entry in (*(inputs or ()), *(outputs or ())) if isinstance(entry, Component)
    }
    lists = []
    for what, given in both:
        components = []
        for entry in given or ():
            if not isinstance(entry, Component) and id(entry) not in adapted:
                adapted[id(entry)] = _adapt(entry, what, taken)
            components.append(entry if isinstance(entry, Component) else adapted[id(entry)])
        check_names(components, what)
        lists.append(components)
    return lists[0], lists[1]


def _check_list(what: str, given: object) -> None:
    if not isinstance(given, Sequence | None) or isinstance(given, str):
        raise TypeError(f"{what} must be a list of components; got {short_repr(given)}")


def _adapt(given: object, what: str, taken: set[str]) -> Component:
    """Convert one component; its name differs from those already taken."""
    kinds = [cls.__name__ for cls in type(given).__mro__]
    if not hasattr(given, "label") or not hasattr(given, "value"):
        raise TypeError(
            f"{what} must hold fastrtc_anyio's Slider, Textbox, Choice, Checkbox or Chatbot, or "
            f"components of Gradio; got {short_repr(given)}"
        )
    entry = cast("_Foreign", given)
    makers = _CONTROLS if what == "additional_inputs" else _CONTROLS | _DISPLAYS
    make = next((makers[kind] for kind in kinds if kind in makers), None) or _guess(entry)
    label = str(entry.label or kinds[0])
    converted = make(entry, label, _choose_name(label, taken))
    if isinstance(converted, Hidden) and "State" not in kinds:
        effect = (
            "the handler receives its initial value"
            if what == "additional_inputs"
            else "its values are not shown"
        )
        warnings.warn(
            f"the page has nothing like Gradio's {kinds[0]} {label!r} of {what}: {effect}",
            stacklevel=5,  # Stream(...) in the application
        )
    return converted


def _choose_name(label: str, taken: set[str]) -> str:
    try:
        name = first = Hidden(label).name
    except ValueError:  # such as a label without letters
        name = first = "field"
    number = 2
    while name in taken:
        name, number = f"{first}_{number}", number + 1
    taken.add(name)
    return name


Maker = Callable[[_Foreign, str, str], Component]


def _guess(entry: _Foreign) -> Maker:
    """Return what makes a component of a class with another name, by its attributes.

    Texts and numbers of Gradio's other classes are not for the user: HTML, or the path of a file.
    """
    if getattr(entry, "minimum", None) is not None and getattr(entry, "maximum", None) is not None:
        return _make_slider
    if getattr(entry, "choices", None):
        return _make_choice
    if isinstance(entry.value, bool):
        return _make_checkbox
    if any(cls.__module__.startswith("gradio.") for cls in type(entry).__mro__):
        return _make_hidden
    if isinstance(entry.value, int | float):
        return _make_number
    return _make_textbox if isinstance(entry.value, str) else _make_hidden


def _make_hidden(entry: _Foreign, label: str, name: str) -> Component:
    return Hidden(label, name=name, value=entry.value)


def _make_slider(entry: _Foreign, label: str, name: str) -> Component:
    low, high = entry.minimum, entry.maximum
    value = entry.value if isinstance(entry.value, int | float) else low
    step = getattr(entry, "step", None) or None
    return Slider(label, low, high, value=min(max(value, low), high), step=step, name=name)


def _make_checkbox(entry: _Foreign, label: str, name: str) -> Component:
    return Checkbox(label, bool(entry.value), name=name)


def _make_textbox(entry: _Foreign, label: str, name: str) -> Component:
    secret = getattr(entry, "type", "text") == "password"
    return Textbox(
        label,
        "" if entry.value is None else str(entry.value),
        placeholder=str(getattr(entry, "placeholder", None) or ""),
        lines=max(1, getattr(entry, "lines", None) or 1),
        max_length=getattr(entry, "max_length", None) or _MAX_TEXT,
        type="password" if secret else "text",
        name=name,
    )


def _make_chatbot(entry: _Foreign, label: str, name: str) -> Component:
    messages = entry.value if isinstance(entry.value, list | tuple) else ()
    known = [message for message in messages if isinstance(message, Mapping) and "role" in message]
    return Chatbot(label, known, name=name)


def _make_number(entry: _Foreign, label: str, name: str) -> Component:
    number = entry.value if isinstance(entry.value, int | float) else None
    text = "" if number is None else f"{number:g}"
    whole = getattr(entry, "precision", None) == 0
    return _Number(label, text, whole=whole, name=name)


def _make_choice(entry: _Foreign, label: str, name: str) -> Component:
    pairs = [
        (str(choice[0]), choice[1]) if isinstance(choice, tuple | list) else (str(choice), choice)
        for choice in entry.choices or ()
    ]
    if not pairs or getattr(entry, "multiselect", False):
        return _make_hidden(entry, label, name)
    values = dict(pairs)
    shown = next((text for text, value in pairs if value == entry.value), None)
    if shown is None and entry.value is not None:  # a value of the user's own, or not yet offered
        shown = str(entry.value)
        values = {shown: entry.value} | values
    if getattr(entry, "type", "value") == "index":
        values = {text: index for index, (text, _) in enumerate(pairs)}
    custom = bool(getattr(entry, "allow_custom_value", False))
    return _Choice(label, shown, values, custom, name=name)


def _make_display(entry: _Foreign, label: str, name: str) -> Component:
    return _Display(label, value=entry.value, name=name)


@component
class _Number(Component):
    """A number in a field for text; None if it is empty."""

    kind = "textbox"

    value: str = ""
    whole: bool = False

    @property
    def initial(self) -> object:
        return self.value

    def parse(self, value: object) -> float | None:
        text = str(value).strip()
        if not text:
            return None
        try:
            number = float(text[:_MAX_TEXT])
            if not math.isfinite(number):
                raise ValueError
            return round(number) if self.whole else number
        except (ValueError, OverflowError):
            raise self._unlike("a number", value) from None

    def describe(self) -> dict[str, object]:
        control = {"lines": 1, "placeholder": "", "max_length": 100, "type": "text"}
        return _without(super().describe(), "whole") | control


@component
class _Choice(Component):
    """A choice between texts that stand for values."""

    kind = "choice"

    value: str | None = None
    values: Mapping[str, object] = field(default_factory=dict)
    custom: bool = False

    @property
    def initial(self) -> object:
        return next(iter(self.values)) if self.value is None else self.value

    def parse(self, value: object) -> object:
        if isinstance(value, str) and value in self.values:
            return self.values[value]
        if isinstance(value, str) and self.custom:
            return value[:_MAX_TEXT]
        raise self._unlike(f"one of {', '.join(map(repr, self.values))}", value)

    def describe(self) -> dict[str, object]:
        described = _without(super().describe(), "values", "custom")
        return described | {"choices": list(self.values)}


def _without(described: Mapping[str, object], *names: str) -> dict[str, object]:
    return {name: described[name] for name in described if name not in names}


@component
class _Display(Component):
    """An output that shows text, or any value as JSON."""

    kind = "textbox"

    value: object = None

    def parse(self, value: object) -> object:
        return deepcopy(value)


_CONTROLS: dict[str, Maker] = {
    "Chatbot": _make_chatbot,
    "Checkbox": _make_checkbox,
    "CheckboxGroup": _make_hidden,
    "Code": _make_textbox,
    "Dropdown": _make_choice,
    "Number": _make_number,
    "Radio": _make_choice,
    "Slider": _make_slider,
    "State": _make_hidden,
    "Textbox": _make_textbox,
}
_DISPLAYS: dict[str, Maker] = dict.fromkeys(("JSON", "Label", "Markdown"), _make_display)
