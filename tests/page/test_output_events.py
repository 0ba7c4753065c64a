"""What a page reads of a handler's outputs, on virtual time."""

from __future__ import annotations

import anyio

from fastrtc_anyio import AdditionalOutputs, Textbox
from fastrtc_anyio.outputs import OutputBoard
from fastrtc_anyio.server.options import WebOptions
from fastrtc_anyio.server.page.forms import OutputEvents


async def test_a_silent_handler_is_no_silent_connection() -> None:
    """A comment every 15 s keeps proxies from ending it, and nothing that comes later is lost."""
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
