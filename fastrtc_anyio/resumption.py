"""Continue a lost conversation in a new session: what the old one has saved, and where.

A session keeps a value with ``session.save()``. The answer to its client's offer has a token. After
a lost connection, the client sends the token with its next offer, and the new session has the value
as ``session.resumed_from``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from anyio import current_time
from anyio.lowlevel import checkpoint

from ._core.options import check_number

__all__ = ["MemoryStore", "Resumed", "SessionStore"]

_SWEEP_SECONDS = 1.0
"""Seconds between two searches for all expired values."""


@dataclass(frozen=True)
class Resumed:
    """The session that a new one continues: ``session.resumed_from``."""

    session_id: str
    """The id of the session that has saved the value."""
    value: object = field(repr=False)
    """The value that was saved last, as decoded from JSON."""


@runtime_checkable
class SessionStore(Protocol):
    """Keeps what sessions save, so that another session can take it, also in another process.

    Assign one to ``Stream.store``. Streams that share a store take each other's values. A key is a
    hash, which does not reveal the client's token.

    All methods may raise exceptions of the network, and are cancelled after a few seconds. What
    they were to do may or may not have happened then, but must not happen later.
    """

    async def save(self, key: str, value: bytes, lifetime: float) -> bool:
        """Store a value in place of the key's former one, unless the key was taken.

        A session that lives repeats this before ``lifetime`` has passed.

        Args:
            key: names the value: 64 hexadecimal digits.
            value: at most 140,000 bytes.
            lifetime: seconds after which the store forgets the key.

        Returns:
            False if the value was taken, and the store still knows that: nothing is stored.
        """
        ...

    async def take(self, key: str) -> bytes | None:
        """Return the value of a key, and remove it in the same step: only one caller gets it.

        The store remembers that the key was taken until it would have forgotten the value. For a
        key without a value it remembers nothing: clients send keys of their own invention.

        Returns:
            None if the key has no value.
        """
        ...

    async def delete(self, key: str) -> None:
        """Forget a key, if it is known."""


class _Entry:
    def __init__(self, value: bytes | None, expires: float) -> None:
        self.value = value
        """None once it was taken."""
        self.expires = expires

    @property
    def size(self) -> int:
        return len(self.value or b"")


class MemoryStore(SessionStore):
    """A store in the memory of one process, for streams of one event loop.

    Args:
        max_bytes: size of all values together. A further value replaces those that were saved
            longest ago.
    """

    def __init__(self, max_bytes: int = 67_108_864) -> None:
        check_number("max_bytes", max_bytes, integer=True, at_least=1)
        self._max_bytes = max_bytes
        self._bytes = 0
        self._entries: dict[str, _Entry] = {}
        """By their keys, the one that was saved longest ago first."""
        self._swept = -math.inf
        """When expired entries were looked for."""

    async def save(self, key: str, value: bytes, lifetime: float) -> bool:
        await checkpoint()
        known = self._find_entry(key)
        if known is not None and known.value is None:
            return False
        self._remove_entry(key)
        self._entries[key] = _Entry(value, current_time() + lifetime)
        self._bytes += len(value)
        while self._bytes > self._max_bytes:
            self._remove_entry(next(iter(self._entries)))
        return True

    async def take(self, key: str) -> bytes | None:
        await checkpoint()
        entry = self._find_entry(key)
        if entry is None:
            return None
        self._bytes -= entry.size
        value, entry.value = entry.value, None
        return value

    async def delete(self, key: str) -> None:
        await checkpoint()
        self._remove_entry(key)

    def _find_entry(self, key: str) -> _Entry | None:
        now = current_time()
        if now >= self._swept + _SWEEP_SECONDS:
            self._swept = now
            for one in [one for one, entry in self._entries.items() if entry.expires <= now]:
                self._remove_entry(one)
        entry = self._entries.get(key)
        return None if entry is None or entry.expires <= now else entry

    def _remove_entry(self, key: str) -> None:
        entry = self._entries.pop(key, None)
        if entry is not None:
            self._bytes -= entry.size
