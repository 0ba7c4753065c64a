"""Ids of sessions: ``key`` in a single process, ``owner.key`` in a cluster.

The owner is the process that has the session. Requests about the session are forwarded to it.
"""

from __future__ import annotations

import re

__all__ = ["OWNER_CHARACTERS", "check_owner", "make_session_id", "owner_of", "shorten"]

OWNER_CHARACTERS = 64
_OWNER = re.compile(rf"[A-Za-z0-9_-]{{1,{OWNER_CHARACTERS}}}")
_ID = re.compile(rf"({_OWNER.pattern})\.[A-Za-z0-9_-]+")
_SHOWN = 8
"""Characters of a key that logs show: not enough to reach the session."""


def check_owner(name: object) -> str:
    """Return the name of an owner.

    Raises:
        TypeError, ValueError: it is not a name.
    """
    if not isinstance(name, str):
        raise TypeError(f"the name of a process must be a str; got {type(name).__name__}")
    if not _OWNER.fullmatch(name):
        raise ValueError(
            f"the name of a process must have 1 to {OWNER_CHARACTERS} letters, digits, "
            f'"-" or "_"; got {name!r}'
        )
    return name


def make_session_id(owner: str | None, key: str) -> str:
    """Return the id of a session. ``owner`` is None in a single process."""
    return key if owner is None else f"{owner}.{key}"


def owner_of(session_id: str) -> str | None:
    """Return the owner that an id names; None if it names none.

    Clients choose some ids: whether the owner exists is for the directory to say.
    """
    found = _ID.fullmatch(session_id)
    return found and found[1]


def shorten(session_id: str) -> str:
    """Return the part of an id that logs may show: the owner, and the beginning of the key."""
    owner, dot, key = session_id.rpartition(".")
    return f"{owner}{dot}{key[:_SHOWN]}"
