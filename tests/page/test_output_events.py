"""Server-sent events of a session's outputs, on virtual time."""

from __future__ import annotations

import anyio
import pytest

from fastrtc_anyio import AdditionalOutputs, Textbox
from fastrtc_anyio.outputs import OutputBoard
from fastrtc_anyio.server.forms import OutputEvents
from fastrtc_anyio.server.options import WebOptions


async def test_idle_output_events_send_a_comment_every_15_s() -> None:
    """The comments keep proxies from closing the connection; later outputs still arrive."""
    board = OutputBoard()
    events = OutputEvents(board.read(), WebOptions(additional_outputs=[Textbox("A")]))
    began = anyio.current_time()
    assert await anext(events) == ":\n\n"
    assert anyio.current_time() - began < 1
    for times in (1, 2, 3):
        assert await anext(events) == ":\n\n"
        assert round(anyio.current_time() - began) == 15 * times
    board.publish(AdditionalOutputs("x"))
    assert await anext(events) == 'event: output\ndata: {"a": "x"}\n\n'
    board.close()
    assert [event async for event in events] == ["event: end\ndata: null\n\n"]


class Unprintable:
    def __repr__(self) -> str:
        raise RuntimeError("no form")


async def test_output_that_cannot_be_printed_is_reported_and_others_follow(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Half an emoji and NaN are shown; a value that cannot even be printed is reported."""
    board = OutputBoard()
    events = OutputEvents(board.read(), WebOptions(additional_outputs=[Textbox("A")]))
    assert await anext(events) == ":\n\n"
    for value in ("ha \ud83d", float("nan"), Unprintable(), ["after", "\ud83d\ude00"]):
        board.publish(AdditionalOutputs(value))
    assert await anext(events) == 'event: output\ndata: {"a": "ha \ufffd"}\n\n'
    assert await anext(events) == 'event: output\ndata: {"a": "nan"}\n\n'
    assert (await anext(events)).startswith("event: problem\n")
    assert "RuntimeError: no form" in caplog.text
    assert await anext(events) == 'event: output\ndata: {"a": ["after", "\U0001f600"]}\n\n'
    board.close()
