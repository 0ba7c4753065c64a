"""Components with the names and attributes of Gradio's, which tests do not install."""

from __future__ import annotations

from typing import Any, ClassVar


class Component:
    """Keeps its keywords as attributes, as Gradio's components do."""

    __module__ = "gradio.components.base"
    defaults: ClassVar[dict[str, Any]] = {}

    def __init__(self, value: Any = None, *, label: str | None = None, **attributes: Any) -> None:
        self.value = value
        self.label = label
        for name, attribute in (self.defaults | attributes).items():
            setattr(self, name, attribute)


class Slider(Component):
    defaults: ClassVar = {"minimum": 0, "maximum": 100, "step": 1}

    def __init__(
        self, minimum: float = 0, maximum: float = 100, value: Any = None, **attributes: Any
    ) -> None:
        super().__init__(value, minimum=minimum, maximum=maximum, **attributes)


class Number(Component):
    defaults: ClassVar = {"minimum": None, "maximum": None, "step": 1, "precision": None}


class Textbox(Component):
    defaults: ClassVar = {"lines": 1, "placeholder": None, "max_length": None, "type": "text"}


class TextArea(Textbox):
    defaults: ClassVar = {**Textbox.defaults, "lines": 7}


class Dropdown(Component):
    defaults: ClassVar = {"multiselect": False, "allow_custom_value": False, "type": "value"}

    def __init__(self, choices: Any = (), *, value: Any = None, **attributes: Any) -> None:
        """Gradio keeps choices as pairs of a text and a value."""
        pairs = [choice if isinstance(choice, tuple) else (choice, choice) for choice in choices]
        super().__init__(value, choices=pairs, **attributes)


class Radio(Dropdown):
    defaults: ClassVar = {"type": "value"}


class Checkbox(Component): ...


class CheckboxGroup(Dropdown):
    defaults: ClassVar = {"type": "value"}


class Chatbot(Component):
    defaults: ClassVar = {"type": "messages"}


class State(Component): ...


class Image(Component): ...


class Audio(Component): ...


class JSON(Component): ...


class Markdown(Component): ...


class HTML(Component): ...
