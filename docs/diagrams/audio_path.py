"""The way of audio through the server, with the longest times that it can wait."""

from __future__ import annotations

from fastrtc_anyio._media.frames import FRAME_MS
from fastrtc_anyio._media.reorder import HOLD_SECONDS
from fastrtc_anyio._peers.streams.audio import BufferOptions
from fastrtc_anyio._peers.streams.paced import CLIENT_LEAD
from fastrtc_anyio._peers.streams.phone import PHONE_LEAD
from fastrtc_anyio._peers.webrtc.ticks import PERIOD, SEND_AFTER

from .draw import fence


def draw_input() -> str:
    """Draw the way from the client to the handler."""
    tick, hold = _ms(PERIOD), _ms(HOLD_SECONDS)
    return fence(
        "flowchart LR",
        [
            f'N["network"] --> T["socket<br>0 to {tick} until the tick"]',
            f'T --> R["reordering<br>0 to {hold}, only if<br>packets overtake"]',
            'R --> D["decoder<br>no wait"]',
            f'D --> Q["queue<br>at most {BufferOptions().input_s:g} s"]',
            'Q --> H["receive"]',
        ],
    )


def draw_output() -> str:
    """Draw the way from the handler to the client."""
    ahead, live = BufferOptions().output_s, BufferOptions.choose(True, None, 1.0).output_s
    return fence(
        "flowchart LR",
        [
            f'H["emit"] --> P["playout buffer<br>at most {ahead:g} s<br>live: {live:g} s"]',
            f'P --> E["encoder<br>one frame: {FRAME_MS} ms"]',
            f'E -->|WebRTC| T["tick of the sockets<br>{_ms(SEND_AFTER)} after reading"]',
            f'P -->|WebSocket| W["{_ms(CLIENT_LEAD)} ahead<br>of the client"]',
            f'P -->|telephone| C["{PHONE_LEAD:g} s ahead<br>of the carrier"]',
        ],
    )


def _ms(seconds: float) -> str:
    return f"{1000 * seconds:g} ms"
