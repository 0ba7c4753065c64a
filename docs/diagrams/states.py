"""The state machines, from their transition tables."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import TypeVar

from fastrtc_anyio._signaling import session_state
from fastrtc_anyio.conversation import turn_table

from .draw import fence

State = TypeVar("State", bound=Enum)
Signal = TypeVar("Signal")


def draw_session() -> str:
    return draw_table(session_state.TRANSITIONS)


def draw_turn() -> str:
    return draw_table(turn_table.TRANSITIONS)


def draw_table(table: Mapping[State, Mapping[Signal, State]]) -> str:
    """Draw a table; its first state is the initial one."""
    states = list(table)
    lines = [f"[*] --> {states[0].name}"]
    for state in states:
        arrows: dict[str, list[str]] = {}
        for signal, target in table[state].items():
            arrows.setdefault(target.name, []).append(_name(signal))
        lines += [
            f"{state.name} --> {target}: {', '.join(names)}" for target, names in arrows.items()
        ]
    return fence("stateDiagram-v2", lines)


def _name(signal: object) -> str:
    return signal.__name__ if isinstance(signal, type) else str(getattr(signal, "name", signal))
