"""When the clock of a test moves."""

from __future__ import annotations

from fastrtc_anyio.testing.virtual_time import THREAD_LIMIT

from .draw import fence


def draw_clock() -> str:
    return fence(
        "flowchart TD",
        [
            'R{"does any task run?"} -->|yes| W["it runs, the clock stands"]',
            'R -->|"no: all wait"| T{"does a thread work for one?"}',
            'T -->|no| J["the clock jumps to the next deadline"]',
            'T -->|yes| H["the clock stands<br>until the thread returns,<br>'
            f'{THREAD_LIMIT:g} s at most"]',
        ],
    )
