"""A flag that tasks wait for and any thread sets."""

from __future__ import annotations

from anyio import EndOfStream, create_memory_object_stream
from anyio.lowlevel import checkpoint
from anyio.streams.memory import MemoryObjectSendStream

from .host import Host, Lock


class Gate:
    """Event that can be cleared, and that any thread may set.

    Each waiting task owns one end of a memory channel, and setting the gate closes the other ends.
    A gate without waiting tasks needs no event loop, so any code may create one.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._is_set = False
        self._waiting: list[tuple[Host, MemoryObjectSendStream[None]]] = []

    def is_set(self) -> bool:
        """Whether the gate is set."""
        return self._is_set

    def set(self) -> None:
        """Set the gate and wake all waiting tasks. Any thread may call this."""
        with self._lock:
            self._is_set = True
            waiting, self._waiting = self._waiting, []
        for host, end in waiting:
            host.post(end.close)

    def clear(self) -> None:
        """Clear the gate. Later calls of `wait` block."""
        self._is_set = False

    async def wait(self) -> None:
        """Wait until the gate is set.

        Cancellation:
            Does not change the gate.
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
                with self._lock:
                    if entry in self._waiting:
                        self._waiting.remove(entry)
