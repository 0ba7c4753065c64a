"""``UIArgs``: FastRTC's settings of the page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, TypedDict

from fastrtc_anyio._core.options import check_choice, check_type

__all__ = ["UIArgs", "check_ui_args"]


class UIArgs(TypedDict, total=False):
    """Settings of the page.

    ``icon``, ``icon_button_color``, ``pulse_color``, ``icon_radius``, ``variant`` and
    ``full_screen`` style Gradio's component. They are accepted and have no effect.
    """

    title: str
    """Title of the page; ``"fastrtc_anyio"`` by default."""
    subtitle: str
    """Text below the title."""
    hide_title: bool
    """Whether to show neither title nor subtitle."""
    send_input_on: Literal["submit", "change"]
    """When the page sends the values of its inputs during a call: after each change (the default),
    or when the user submits them, with a button or the Enter key."""
    icon: str
    icon_button_color: str
    pulse_color: str
    icon_radius: int
    variant: Literal["textbox", "wave"]
    full_screen: bool


def check_ui_args(given: Mapping[str, object] | None) -> dict[str, object]:
    """Check the settings that have an effect, and return a copy of all.

    Raises:
        TypeError: the settings are not a mapping, or a value has another type.
        ValueError: there is no such setting, or a value is not one of its choices.
    """
    check_type("ui_args", given, Mapping, optional=True)
    settings = dict(given or {})
    for name in settings:
        check_choice("a field of ui_args", name, UIArgs.__annotations__)
    for name, kind in (("title", str), ("subtitle", str), ("hide_title", bool)):
        check_type(f"ui_args[{name!r}]", settings.get(name), kind, optional=True)
    check_choice(
        "ui_args['send_input_on']", settings.get("send_input_on", "change"), ("submit", "change")
    )
    return settings
