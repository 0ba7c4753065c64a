"""Draw the state diagrams of docs/concepts/states.md from the transition tables.

Run ``python docs/diagrams/states.py`` after a change of a table; a test compares the file.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from typing import TypeVar

from fastrtc_anyio._signaling import session_state
from fastrtc_anyio.conversation import turn_table

State = TypeVar("State", bound=Enum)
Signal = TypeVar("Signal")

PAGE = Path(__file__).parents[1] / "concepts" / "states.md"

INTRODUCTION = """\
# State machines

Drawn by `docs/diagrams/states.py` from the transition tables in the code.
"""


def draw(table: Mapping[State, Mapping[Signal, State]]) -> str:
    """Draw a table as a Mermaid diagram; the first state is the initial one."""
    states = list(table)
    lines = ["stateDiagram-v2", f"    [*] --> {states[0].name}"]
    for state in states:
        arrows: dict[str, list[str]] = {}
        for signal, target in table[state].items():
            arrows.setdefault(target.name, []).append(_name(signal))
        lines += [
            f"    {state.name} --> {target}: {', '.join(names)}" for target, names in arrows.items()
        ]
    return "\n".join(["```mermaid", *lines, "```"])


def _name(signal: object) -> str:
    return signal.__name__ if isinstance(signal, type) else str(getattr(signal, "name", signal))


def render() -> str:
    """Return the contents of docs/concepts/states.md."""
    return f"""\
{INTRODUCTION}
## A session

`fastrtc_anyio/_signaling/session_state.py`: the life of a connection, and its events.

{draw(session_state.TRANSITIONS)}

## A turn

`fastrtc_anyio/conversation/turn_table.py`: whose turn it is, and the steps of the turn machine.

{draw(turn_table.TRANSITIONS)}
"""


if __name__ == "__main__":
    PAGE.write_text(render(), encoding="utf-8")
