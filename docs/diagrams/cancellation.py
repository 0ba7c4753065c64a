"""The task tree of a session, and the order in which it ends."""

from __future__ import annotations

from fastrtc_anyio.limits import Limits

from .draw import fence


def draw_tree() -> str:
    return fence(
        "flowchart TD",
        [
            'S["stream: task group"] --> A["supervisor of one session"]',
            'S --> B["supervisor of another"]',
            'A --> C["session: cancel scope"]',
            'C --> D["guard: closes the connection"]',
            'C --> E["watches: peer, time limit, idle"]',
            'C --> F["driver of the handler"]',
            'F --> G["start_up"]',
            'F --> H["receive, emit"]',
            'F --> I["messages"]',
            'F --> J["reply"]',
        ],
    )


def draw_end() -> str:
    limits = Limits()
    return fence(
        "flowchart TD",
        [
            'A["first CloseReason is kept"] --> B["scope is cancelled"]',
            f'B --> C["reason is sent, connection is closed<br>at most {limits.close:g} s"]',
            'B --> D["tasks unwind: finally blocks run"]',
            f'D --> E["shutdown, once<br>at most {limits.shutdown:g} s"]',
            'E --> F["threads are joined within the same time"]',
            'C --> G(["slot is free, session is CLOSED"])',
            "F --> G",
        ],
    )
