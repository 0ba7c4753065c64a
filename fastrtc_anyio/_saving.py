"""What a session saves, for the session that may continue it after a lost connection.

The newest value is written to the store by the task that saves it, or by a task of the service,
which also repeats it before it expires, and deletes it if the session ends as it should.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from functools import partial

import anyio
from anyio import current_time, fail_after
from anyio.lowlevel import checkpoint

from ._core.options import short_repr
from ._session_life import SessionLife
from ._signaling.messages import dump_json
from ._user_code import contain_exits
from .abc import Peer
from .errors import CloseReason, SaveFailed
from .limits import Limits
from .resumption import Resumed, SessionStore

__all__ = ["DEADLINE", "NOW", "SavedState", "SavingSession", "decode_record"]

DEADLINE = 2.0
"""Seconds for a request to the store."""
MAX_BYTES = 131_072
"""Size of a value as JSON."""
NOW: float = -math.inf
"""Due at once. A callback of another thread's call has no clock."""
_RETRY = 2.0
"""Seconds between two attempts to reach the store."""
_CALLED_AGAIN = "the client continues in another session"
_KEPT = {
    CloseReason.VANISHED,
    CloseReason.PEER_FAILED,
    CloseReason.CONNECT_TIMEOUT,
    CloseReason.REJECTED,
    CloseReason.CANCELLED,
}
"""Ends after which a client may continue in another session."""


def decode_record(record: bytes) -> Resumed:
    """Decode what the store has. Raises ValueError and the like if it is something else."""
    decoded = json.loads(record)
    return Resumed(str(decoded["session"]), decoded["value"])


def _encode_value(value: object) -> str:
    """Return a value as JSON.

    Raises:
        TypeError, ValueError: it has no such form, or is too large.
    """
    try:
        encoded = dump_json(value)
    except (TypeError, ValueError, RecursionError) as exc:
        kind = TypeError if isinstance(exc, TypeError) else ValueError
        raise kind(f"value must have a JSON form; got {short_repr(value)}: {exc}") from exc
    size = len(encoded.encode())
    if size > MAX_BYTES:
        raise ValueError(f"value must have at most {MAX_BYTES} bytes as JSON; got {size}")
    return encoded


class SavedState:
    """The newest value of a session, and its copy in the store.

    Args:
        store: has the copy.
        key: names it there.
        lifetime: seconds for which it stays after a lost connection, at least.
        on_due: called with this object when its service has to do something, or nothing more.
    """

    def __init__(
        self,
        store: SessionStore,
        key: str,
        lifetime: float,
        on_due: Callable[[SavedState], object],
    ) -> None:
        self.key: str = key
        self.due: float = math.inf
        """The time at which :meth:`settle` has something to do."""
        self.is_taken: bool = False
        """Whether another session has the value."""
        self.is_over: bool = False
        """Whether nothing is left to do, and nothing more is stored."""
        self.is_deleting: bool = False
        self._store = store
        self._lifetime = lifetime
        self._on_due = on_due
        self._record: bytes | None = None
        self._written: bytes | None = None
        self._is_last = False
        """Whether the session has ended, so that only a value not yet written is still written."""
        self._gives_up = math.inf
        self._lock = anyio.Lock()

    def note(self, record: bytes) -> None:
        """Let the service write a value soon."""
        if not (self.is_over or self.is_deleting):
            self._record = record
            self._set_due(NOW)

    async def save(self, record: bytes) -> None:
        """Write a value. If this fails, the service tries again.

        Raises:
            SaveFailed: it was not written.
        """
        if self.is_taken:
            raise SaveFailed(f"the value was not saved: {_CALLED_AGAIN}")
        self._record = record
        try:
            await self._write()
        finally:
            if not (self.is_over or self.is_deleting):
                is_written = self._written is self._record
                seconds = self._lifetime / 4 if is_written else _RETRY
                self._set_due(current_time() + seconds)

    async def settle(self) -> Exception | None:
        """Do what is due: write the value, write it again, or delete it.

        Returns:
            The reason why that was not possible.
        """
        try:
            if self.is_deleting:
                with fail_after(DEADLINE), contain_exits("the store"):
                    async with self._lock:
                        await self._store.delete(self.key)
                self._end()
            elif not (self.is_over or (self._is_last and self._written is self._record)):
                await self._write()
        except Exception as exc:  # as in _write()
            if self.is_over or current_time() > self._gives_up:
                self._end()
            else:
                self.due = current_time() + _RETRY
            return None if self.is_taken else exc
        if self.is_over or self.is_deleting or self._written is not self._record:
            return None  # something else has become due meanwhile
        if self._is_last:
            self._end()
        else:
            self.due = current_time() + self._lifetime / 4
        return None

    async def _write(self) -> None:
        try:
            with fail_after(DEADLINE), contain_exits("the store"):
                async with self._lock:
                    record = self._record
                    if record is None or self.is_deleting:
                        return  # the session has ended meanwhile
                    stored: object = await self._store.save(self.key, record, self._lifetime * 1.5)
        except Exception as exc:  # stores raise the exceptions of their network
            cause = "did not answer in time" if isinstance(exc, TimeoutError) else "failed"
            raise SaveFailed(f"the value was not saved: the store {cause}") from exc
        if not isinstance(stored, bool):
            text = f"the store's save() must return a bool; got {short_repr(stored)}"
            raise SaveFailed(f"the value was not saved: {text}")
        if not stored:
            self.is_taken = True
            self._end()
            raise SaveFailed(f"the value was not saved: {_CALLED_AGAIN}")
        self._written = record

    async def give_up(self) -> None:
        """Store nothing more, except for a value that waits for that: another session takes it."""
        if not self.is_over and self._record is not self._written:
            await self.settle()
        await checkpoint()
        if not self.is_deleting:  # the client or the handler has hung up meanwhile
            self._end()

    def end(self, *, keep: bool) -> None:
        """The session has ended: delete the value, or leave it in the store. Idempotent."""
        if self.is_over or self._is_last:
            return
        if self._record is None:
            self._end()
            return
        self._is_last, self.is_deleting = True, not keep
        self._gives_up = current_time() + self._lifetime * 1.5
        self._set_due(NOW)

    def _set_due(self, time: float) -> None:
        self.due = time
        self._on_due(self)

    def _end(self) -> None:
        self.is_over, self._record, self._written = True, None, None
        self._set_due(math.inf)


class SavingSession(SessionLife):
    """A session that can save something. ``saved`` is None if no client could ask for it."""

    def __init__(self, session_id: str, peer: Peer, limits: Limits) -> None:
        super().__init__(session_id, peer, limits)
        self.resumed_from: Resumed | None = None
        """What the session that this one continues has saved; None if it continues none."""
        self.saved: SavedState | None = None

    async def save(self, value: object) -> None:
        """Save a value for the session in which the client may continue after a lost connection.

        That session has it as :attr:`resumed_from`. Only the last value is kept, for at least
        ``Limits.resume`` after the loss of the connection or of this process. It is deleted when
        the client or the handler hangs up, and when the session ends by itself.

        The value is checked, and nothing is stored, for a client that cannot continue a session: on
        a telephone, over a WebSocket, WHIP or WHEP.

        Args:
            value: anything with a JSON form, of at most 131,072 bytes.

        Raises:
            TypeError, ValueError: ``value`` has no JSON form, or is too large.
            SaveFailed: the store did not answer within 2 s, or with an error. The session tries
                again until it has stored this value or a later one. Or the client has called again:
                the session ends.
            RuntimeError: called on another event loop than the session's, or from a thread.

        Cancellation:
            The value may be stored nevertheless.
        """
        record = self._encode(value)
        if not self._host.is_current_thread:
            raise RuntimeError(
                "save() must be awaited on the event loop of the session; save_nowait() may be "
                "called from any thread"
            )
        await checkpoint()
        saved = self.saved
        if saved is None or saved.is_deleting or (saved.is_over and not saved.is_taken):
            return
        try:
            await saved.save(record)
        finally:
            self.end_if_taken()

    def save_nowait(self, value: object) -> None:
        """Do the same as :meth:`save` in the background. Returns at once. Thread-safe.

        If the store does not answer, the log says so.

        Raises:
            TypeError, ValueError: ``value`` has no JSON form, or is too large.
        """
        record = self._encode(value)
        if self.saved is not None:
            self._host.call(partial(self.saved.note, record))

    def end_if_taken(self) -> None:
        """End the session if another one has taken what it saved."""
        if self.saved is not None and self.saved.is_taken:
            self.end_continued()

    def end_continued(self) -> None:
        """End the session: its client has called again."""
        self.close(CloseReason.HUNG_UP, _CALLED_AGAIN)

    def _encode(self, value: object) -> bytes:
        return f'{{"session":{json.dumps(self.id)},"value":{_encode_value(value)}}}'.encode()

    async def _close_peer(self) -> None:
        closed = self.closed
        # After the other reasons, the handler may still save something in its shutdown().
        if self.saved is not None and closed is not None and closed.reason not in _KEPT:
            self.saved.end(keep=False)
        await super()._close_peer()
