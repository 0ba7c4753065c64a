"""A flag that tasks can wait for, set from any thread."""

from __future__ import annotations

from anyio import EndOfStream, create_memory_object_stream
from anyio.lowlevel import checkpoint
from anyio.streams.memory import MemoryObjectSendStream

from .host import Host, Lock

__all__ = ["Gate"]


class Gate:
    """Like an event, but it can be closed again, and any thread may open it.

    Every waiting task holds one end of a memory channel of its own; opening the gate closes the
    other ends. A gate that is never waited for holds nothing, so it may be made where no event
    loop runs.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._is_set = False
        self._waiting: list[tuple[Host, MemoryObjectSendStream[None]]] = []

    def is_set(self) -> bool:
        """Whether the gate is open."""
        return self._is_set

    def set(self) -> None:
        """Open the gate: all who wait go on. Any thread may call this."""
        with self._lock:
            self._is_set = True
            waiting, self._waiting = self._waiting, []
        for host, end in waiting:
            host.post(end.close)

    def clear(self) -> None:
        """Close the gate: who comes from now on waits."""
        self._is_set = False

    async def wait(self) -> None:
        """Wait until the gate is open.

        Cancellation:
            Leaves the gate as it is.
        """
        await checkpoint()
        send, receive = create_memory_object_stream[None](0)
        with send, receive:
            entry = (Host(), send)
            with self._lock:
                if self._is_set:
                    return
                self._waiting.append(entry)
            try:
                await receive.receive()
            except EndOfStream:
                pass
            finally:
                self._leave(entry)

    def _leave(self, entry: tuple[Host, MemoryObjectSendStream[None]]) -> None:
        with self._lock:
            if entry in self._waiting:
                self._waiting.remove(entry)
