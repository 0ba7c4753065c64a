"""A connected socket with one writer."""

from __future__ import annotations

import socket
from contextlib import suppress

import anyio
from anyio import move_on_after, wait_readable, wait_writable
from anyio.lowlevel import checkpoint

__all__ = ["ClientSocket"]

_READ = 16_384
"""Bytes of one read. Parsing this number of bytes in small frames takes less than 50 ms."""
_STALL = 30.0
"""Seconds after which a client that reads nothing counts as gone."""
_FLUSH = 2.0
"""Seconds for the rest of the output to leave at the end."""
_LINGER = 2.0
"""Seconds to discard input at the end: closing earlier would reset the connection, and a client
that still sends would lose the response."""


class ClientSocket:
    """A connected socket.

    Any task may write. The bytes leave in order, and a cancelled writer truncates nothing:
    :meth:`run` sends what the socket did not take at once.
    """

    def __init__(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        self._socket = connection
        self._output = bytearray()
        self._pending = anyio.Event()
        self._written = anyio.Event()
        self._broken = anyio.Event()
        self._reading = anyio.Lock()

    @property
    def is_broken(self) -> bool:
        """Whether the connection cannot be used any more."""
        return self._broken.is_set()

    async def wait_broken(self) -> None:
        """Wait until the connection cannot be used any more."""
        await self._broken.wait()

    async def receive(self) -> bytes:
        """Wait for bytes; return none at the end of the connection."""
        await checkpoint()
        while (data := self.receive_nowait()) is None:
            await self.wait_readable()
        return data

    def receive_nowait(self) -> bytes | None:
        """Return bytes that have arrived, or None; no bytes at the end of the connection."""
        if not self.is_broken:
            try:
                return self._socket.recv(_READ)
            except BlockingIOError:
                return None
            except OSError:
                self.abort()
        return b""

    async def wait_readable(self) -> None:
        """Wait until bytes or the end of the connection have arrived, in any number of tasks."""
        async with self._reading:
            if not self.is_broken:
                await wait_readable(self._socket)

    def write(self, data: bytes) -> None:
        """Send bytes as soon as the client reads them."""
        if not self._output:
            data = data[self._write_now(data) :]
        if data and not self.is_broken:
            if not self._output:
                self._written = anyio.Event()
                self._pending.set()
            self._output += data

    async def send(self, data: bytes) -> None:
        """Send bytes, waiting while the client is slow to read."""
        self.write(data)
        await self.flush()

    async def flush(self) -> None:
        """Wait until all output has left, or the connection has broken."""
        await checkpoint()
        while self._output:
            await self._written.wait()

    async def run(self) -> None:
        """Send the output that waits for the client, until cancelled."""
        while True:
            await self._pending.wait()
            while self._output:
                with move_on_after(_STALL) as scope:
                    await wait_writable(self._socket)
                if scope.cancelled_caught:
                    self.abort()
                else:
                    del self._output[: self._write_now(bytes(self._output[:_READ]))]
            self._pending = anyio.Event()
            self._written.set()

    async def finish(self) -> None:
        """Let the output leave, announce the end, and discard what the client still sends."""
        with move_on_after(_FLUSH):
            await self.flush()
        if not self._output:
            with suppress(OSError):
                self._socket.shutdown(socket.SHUT_WR)
            with move_on_after(_LINGER):
                while await self.receive():
                    pass

    def abort(self) -> None:
        """Break the connection off."""
        self._broken.set()
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)  # ends wait_readable
        self._output.clear()
        self._written.set()

    def close(self) -> None:
        """Close the socket. No task may use it any more."""
        self.abort()
        self._socket.close()

    def _write_now(self, data: bytes) -> int:
        if not self.is_broken:
            try:
                return self._socket.send(data)
            except BlockingIOError:
                pass
            except OSError:
                self.abort()
        return 0
