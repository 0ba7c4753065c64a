"""Threads of a process, and the ways between them. Their names are those of the code."""

from __future__ import annotations

from fastrtc_anyio._driver.listening import _thread as listening
from fastrtc_anyio._peers.portal import Portal

from .draw import fence


def draw_threads() -> str:
    portal = Portal()._name
    return fence(
        "flowchart TD",
        [
            f'subgraph receiving["{portal} (asyncio): receiving"]',
            'I["ICE, DTLS, SRTP"] --> J["reordering, decoder"]',
            "end",
            'subgraph host["your loop: trio or asyncio"]',
            'Q["audio_in"] --> S["session: one task tree"]',
            'S --> H["async handler"]',
            'H --> P["playout buffer"]',
            "end",
            'subgraph daemons["daemon threads"]',
            'W["plain handler:<br>threads of its session"]',
            f'L["{listening._name}:<br>voice detection of all calls"]',
            "end",
            f'subgraph sending["{portal}: sending"]',
            'O["encoder, a frame each 20 ms"] --> U["SRTP"]',
            "end",
            'C["client"] -->|UDP| I',
            "J -->|posted| Q",
            "S -->|call| W",
            "S -->|audio| L",
            "W --> P",
            "P -.->|lock| O",
            'U -->|UDP| D["client"]',
        ],
    )
