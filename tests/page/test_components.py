"""Components: their declaration, their description for the page, and checks of input values."""

from __future__ import annotations

import json
import math
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastrtc_anyio import Chatbot, Checkbox, Choice, Slider, Stream, Textbox
from fastrtc_anyio.server.page.components import (
    Component,
    InvalidInput,
    parse_inputs,
)

ALL = [
    Slider("Temperature", 0, 2, value=1),
    Textbox("Your name"),
    Choice("Voice", ["Ada", "Bo"]),
    Checkbox("Loud"),
    Chatbot("Conversation"),
]


def test_name_defaults_to_the_label_as_an_identifier() -> None:
    names = [component.name for component in ALL]
    assert names == ["temperature", "your_name", "voice", "loud", "conversation"]
    assert Slider("Größe (cm)").name == "größe_cm"
    assert Slider("Confidence", name="conf_threshold").name == "conf_threshold"


@pytest.mark.parametrize(
    ("component", "initial"),
    list(zip(ALL, [1.0, "", "Ada", False, []], strict=True)),
    ids=lambda value: getattr(value, "kind", ""),
)
def test_component_description_is_json(component: Component, initial: Any) -> None:
    described = component.describe()
    assert json.loads(json.dumps(described)) == described
    assert described["kind"] == type(component).__name__.lower()
    assert (described["name"], described["label"]) == (component.name, component.label)
    assert described["value"] == component.initial == initial


@pytest.mark.parametrize(
    ("slider", "step", "value", "kind"),
    [
        (Slider("A", 0, 10), 1, 3, int),
        (Slider("A", 0, 2), 0.02, 1.5, float),
        (Slider("A", 0.0, 100.0), 1.0, 3, float),
        (Slider("A", -5, 5, value=0, step=5), 5, 5.0, int),
    ],
)
def test_slider_of_integers_parses_to_int(
    slider: Slider, step: float, value: float, kind: type
) -> None:
    assert slider.describe()["step"] == step
    assert type(slider.parse(value)) is kind
    assert slider.parse(value) == value


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Slider(""), "label must not be empty"),
        (lambda: Slider("A", cast(Any, "0"), 1), "minimum of 'A' must be a number; got '0'"),
        (lambda: Slider(0, 1), "label must be a string; got 0"),  # type: ignore[arg-type]
        (lambda: Slider("!"), "'!' needs a name"),
        (lambda: Textbox("webrtc_id"), "'webrtc_id' needs a name"),
        (lambda: Slider("A", 2, 1), "a minimum below its maximum"),
        (lambda: Slider("A", 0, 1, value=2), "'a' must be from 0 to 1; got 2"),
        (lambda: Slider("A", 0, math.inf), "maximum of 'A' must be a number; got inf"),
        (lambda: Slider("A", 0, 1, step=-1), "a step"),
        (lambda: Textbox("A", lines=0), "lines of 'A' must be 1 or more"),
        (lambda: Textbox("A", value=3), "'a' must be a string; got 3"),  # type: ignore[arg-type]
        (lambda: Choice("A", []), "choices of 'A' must be a list of strings"),
        (lambda: Choice("A", "abc"), "choices of 'A' must be a list of strings"),
        (lambda: Choice("A", ["x"], value="y"), "'a' must be one of 'x'; got 'y'"),
        (lambda: Checkbox("A", value=1), "'a' must be true or false"),  # type: ignore[arg-type]
        (lambda: Chatbot("A", value=["hi"]), "'a' must be messages"),  # type: ignore[list-item]
    ],
)
def test_invalid_component_arguments_raise(make: Any, message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message.replace("(", r"\(")):
        make()


def test_inputs_are_parsed_in_order_of_declaration() -> None:
    body = {
        "webrtc_id": "me",
        "conversation": [{"role": "user", "content": "hi"}],
        "loud": True,
        "voice": "Bo",
        "your_name": "Kim",
        "temperature": 0.5,
    }
    wanted = [0.5, "Kim", "Bo", True, [{"role": "user", "content": "hi"}]]
    assert parse_inputs(ALL, body) == wanted


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({}, "the inputs are 'a', 'b'; 'a', 'b' missing"),
        ({"a": 1, "b": "x", "c": 2}, "the inputs are 'a', 'b'; got 'c'"),
        ({"a": "1", "b": "x"}, "'a' must be a number; got '1'"),
        ({"a": True, "b": "x"}, "'a' must be a number; got True"),
        ({"a": math.nan, "b": "x"}, "'a' must be a number; got nan"),
        ({"a": 1e9, "b": "x"}, "'a' must be from 0 to 100; got 1000000000.0"),
        ({"a": 1, "b": "xxxx"}, "'b' has 4 characters; at most 3 are taken"),
        ({"a": 1, "b": None}, "'b' must be a string; got None"),
    ],
)
def test_invalid_input_values_raise_invalid_input(body: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        parse_inputs([Slider("A"), Textbox("B", max_length=3)], body)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=5,
)


@given(st.fixed_dictionaries({component.name: JSON for component in ALL}))
def test_any_json_is_parsed_or_raises_invalid_input(body: dict[str, Any]) -> None:
    try:
        values = parse_inputs(ALL, body)
    except InvalidInput:
        return
    assert [component.parse(value) for component, value in zip(ALL, values, strict=True)] == values


@pytest.mark.parametrize("value", [10**400, -(10**400), float("nan"), float("inf")])
def test_number_beyond_floats_is_invalid_input(value: float) -> None:
    with pytest.raises(InvalidInput, match="'level' must be"):
        parse_inputs([Slider("Level")], {"level": value})


def test_duplicate_component_names_raise() -> None:
    with pytest.raises(ValueError, match=r"additional_inputs .* got \['a'\] more than once"):
        Stream(lambda frame: frame, additional_inputs=[Slider("A"), Textbox("a")])


def test_foreign_components_raise_type_error() -> None:
    with pytest.raises(TypeError, match="additional_outputs must hold fastrtc_anyio's Slider"):
        Stream(lambda frame: frame, additional_outputs=["a label"])


@pytest.mark.parametrize("inputs", [Slider("A"), "A slider", 5])
def test_one_component_without_a_list_raises_type_error(inputs: Any) -> None:
    with pytest.raises(TypeError, match="additional_inputs must be a list of components; got"):
        Stream(lambda frame: frame, additional_inputs=inputs)


def test_configuration_of_the_page_is_checked_early() -> None:
    with pytest.raises(TypeError, match=r"rtc_configuration must be a mapping.*; got list"):
        Stream(lambda frame: frame, rtc_configuration=cast(Any, [{"urls": "stun:example.com"}]))


def test_outputs_handler_without_outputs_raises() -> None:
    with pytest.raises(ValueError, match="additional_outputs_handler needs additional_outputs"):
        Stream(lambda frame: frame, additional_outputs_handler=lambda old, new: new)
