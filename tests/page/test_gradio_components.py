"""Gradio's components become components of the page, by their class and attributes."""

from __future__ import annotations

import json
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastrtc_anyio import AdditionalOutputs, Chatbot, Choice, Slider, Stream, Textbox
from fastrtc_anyio.outputs import OutputBoard
from fastrtc_anyio.server.forms import OutputEvents
from fastrtc_anyio.server.options import WebOptions
from fastrtc_anyio.server.page.components import Component, Hidden, InvalidInput, parse_inputs
from tests.kit import gradio_shapes as gr


def adapt(*inputs: Any) -> list[Component]:
    return WebOptions(additional_inputs=inputs).additional_inputs


VOICES = gr.Dropdown(["Ada", ("Bo (low)", 7)], value="Ada", label="Voice", info="of the agent")


@pytest.mark.parametrize(
    ("component", "described", "sent", "received"),
    [
        (
            gr.Slider(0, 1, value=0.3, step=0.01),
            {"kind": "slider", "label": "Slider", "minimum": 0, "maximum": 1, "step": 0.01},
            0.5,
            0.5,
        ),
        (gr.Number(3, label="Count", precision=0), {"kind": "textbox", "value": "3"}, "12", 12),
        (gr.Number(label="Count"), {"kind": "textbox", "value": ""}, "", None),
        (gr.Textbox(None, label="Key", type="password"), {"type": "password"}, "x", "x"),
        (gr.TextArea("a", label="T"), {"kind": "textbox", "lines": 7, "value": "a"}, "b", "b"),
        (VOICES, {"kind": "choice", "choices": ["Ada", "Bo (low)"]}, "Bo (low)", 7),
        (gr.Radio(["a", "b"], label="R"), {"kind": "choice", "value": "a"}, "b", "b"),
        (gr.Radio(["a", "b"], label="R", type="index"), {"value": "a"}, "b", 1),
        (
            gr.Dropdown(["a"], value="b", label="D", allow_custom_value=True),
            {"choices": ["b", "a"], "value": "b"},
            "c",
            "c",
        ),
        (gr.Checkbox(True, label="C"), {"kind": "checkbox", "value": True}, False, False),
        (
            gr.Chatbot([{"role": "user", "content": "hi"}], label="Chat"),
            {"kind": "chatbot", "value": [{"role": "user", "content": "hi"}]},
            [],
            [],
        ),
    ],
)
def test_component_is_described_to_the_page_and_parses_its_values(
    component: Any, described: dict[str, Any], sent: Any, received: Any
) -> None:
    (adapted,) = adapt(component)
    shown = adapted.describe()
    assert json.loads(json.dumps(shown)) == shown
    assert shown | described == shown
    assert parse_inputs([adapted], {adapted.name: sent}) == [received]


def test_invalid_values_of_converted_components_raise_invalid_input() -> None:
    for component, value, message in (
        (gr.Number(label="Count"), "many", "'count' must be a number; got 'many'"),
        (gr.Number(label="Count", precision=0), "inf", "'count' must be a number"),
        (gr.Number(label="Count"), "nan", "'count' must be a number"),
        (gr.Number(label="Count"), "1e999", "'count' must be a number"),
        (VOICES, "Cy", r"'voice' must be one of 'Ada', 'Bo \(low\)'; got 'Cy'"),
    ):
        with pytest.raises(InvalidInput, match=message):
            parse_inputs(adapt(component), {adapt(component)[0].name: value})


JSON_VALUES = st.none() | st.booleans() | st.floats() | st.text() | st.lists(st.text())
ALL = [VOICES, gr.Number(label="N"), gr.Slider(label="S"), gr.Textbox(label="T")]


@given(st.lists(JSON_VALUES, min_size=len(ALL), max_size=len(ALL)))
def test_any_value_is_parsed_or_raises_invalid_input(values: list[Any]) -> None:
    adapted = adapt(*ALL)
    body = {component.name: value for component, value in zip(adapted, values, strict=True)}
    try:
        parsed = parse_inputs(adapted, body)
    except InvalidInput:
        return
    assert len(parsed) == len(ALL)


def test_components_of_other_classes_are_recognised_by_their_attributes() -> None:
    def field(value: object, **attributes: object) -> Any:
        return SimpleNamespace(label="Volume", value=value, **attributes)

    adapted = adapt(
        field(5, minimum=0, maximum=10),
        field("x", choices=["x", "y"]),
        field(True),
        field("loud"),
        field(11),
    )
    kinds = [component.kind for component in adapted]
    assert kinds == ["slider", "choice", "checkbox", "textbox", "textbox"]
    values = {component.name: component.describe()["value"] for component in adapted}
    assert parse_inputs(adapted, values) == [5, "x", True, "loud", 11]


@pytest.mark.parametrize(
    "component",
    [gr.HTML("<b>", label="X"), gr.HTML(1, label="X"), gr.CheckboxGroup(["a", "b"], label="X")],
)
def test_other_components_of_gradio_are_not_shown(component: Any) -> None:
    with pytest.warns(UserWarning, match="nothing like Gradio's (HTML|CheckboxGroup) 'X'"):
        (adapted,) = adapt(component)
    assert isinstance(adapted, Hidden)


def test_names_of_components_without_labels_differ() -> None:
    first, second, third = adapt(gr.Textbox(), gr.Textbox(), gr.Textbox(label="🎤"))
    assert [first.name, second.name, third.name] == ["textbox", "textbox_2", "field"]
    own, foreign = adapt(Textbox("Name"), gr.Textbox(label="Name"))
    assert (own.name, foreign.name) == ("name", "name_2")


def test_component_in_both_lists_becomes_one() -> None:
    chat, state = gr.Chatbot(), gr.State([])
    options = WebOptions(additional_inputs=[chat, state], additional_outputs=[chat, state])
    assert options.additional_inputs == options.additional_outputs


@pytest.mark.parametrize(
    "given",
    [gr.Image(None, label="Picture"), gr.CheckboxGroup(["a", "b"], value=["a"], label="Picture")],
)
def test_input_without_a_counterpart_keeps_its_value_and_warns(given: Any) -> None:
    with pytest.warns(UserWarning, match="nothing like Gradio's .* 'Picture'.* initial value"):
        stream = Stream(lambda frame, *_: frame, additional_inputs=[given, gr.Textbox()])
    hidden = stream._web.hidden_values(stream)
    assert parse_inputs(stream.additional_inputs, {"textbox": "a"}, hidden) == [given.value, "a"]
    with pytest.raises(InvalidInput, match="got 'picture'"):
        parse_inputs(stream.additional_inputs, {"textbox": "a", "picture": 1}, hidden)


def test_each_session_has_its_own_state() -> None:
    class Call: ...

    first, second = Call(), Call()
    options = WebOptions(additional_inputs=[gr.State([])])
    history = options.hidden_values(first)["state"]
    assert isinstance(history, list)
    history.append("hi")
    assert options.hidden_values(first)["state"] == ["hi"]
    assert options.hidden_values(second)["state"] == []


async def test_state_follows_the_outputs_handler_and_is_not_sent() -> None:
    state = gr.State([])
    options = WebOptions(
        additional_inputs=[state],
        additional_outputs=[gr.Chatbot(), state, gr.JSON(label="Raw")],
        additional_outputs_handler=lambda chat, state, raw, new: ([*chat, new], [*state, new], 1),
    )
    board = OutputBoard()
    hidden = options.hidden_values(board)
    events = OutputEvents(board.read(), options, hidden)
    assert await anext(events) == ":\n\n"
    message = {"role": "user", "content": gr.Audio((16_000, b""))}
    for times in (1, 2):
        board.publish(AdditionalOutputs(message))
        data = json.loads((await anext(events)).partition("data: ")[2])
        assert data == {"chatbot": [{"role": "user", "content": "[Audio]"}] * times, "raw": 1}
        assert parse_inputs(options.additional_inputs, {}, hidden) == [[message] * times]
    board.close()


async def test_messages_of_a_conversation_may_be_objects() -> None:
    @dataclass
    class ChatMessage:
        role: str
        content: str

    board = OutputBoard()
    events = OutputEvents(board.read(), WebOptions(additional_outputs=[gr.Chatbot()]))
    assert await anext(events) == ":\n\n"
    board.publish(AdditionalOutputs([ChatMessage("assistant", "hi"), {"role": "user"}]))
    data = json.loads((await anext(events)).partition("data: ")[2])
    assert data == {"chatbot": [{"role": "assistant", "content": "hi"}, {"role": "user"}]}
    board.close()


def test_unknown_keywords_are_ignored_with_one_warning() -> None:
    with pytest.warns(UserWarning, match="Slider ignores info, elem_id; it has") as warned:
        slider = Slider("Speed", 0, 2, info="times", elem_id="speed")  # type: ignore[call-arg]
    assert len(warned) == 1
    assert warned[0].filename == __file__
    assert slider == Slider("Speed", 0, 2)
    with pytest.warns(UserWarning, match="Chatbot ignores type"):
        assert Chatbot(type="messages") == Chatbot("Chatbot")  # type: ignore[call-arg]


def test_label_defaults_to_the_class() -> None:
    assert (Textbox().label, Textbox().name) == ("Textbox", "textbox")
    assert Choice(choices=["a"]).label == "Choice"
    assert isinstance(adapt(gr.State())[0], Hidden)
