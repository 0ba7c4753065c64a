"""A WebSocket client of the package ``websockets``, on the loopback interface."""

from __future__ import annotations

import json
import socket
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any

import anyio
import numpy as np
from anyio import CancelScope, create_task_group, to_thread
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from fastrtc_anyio._wire.events import Framing, Start
from fastrtc_anyio._wire.fastrtc import FastRTCFraming
from fastrtc_anyio._wire.payload import AudioEncoding
from fastrtc_anyio.testing import tone

from .measure import FREQUENCY
from .waiting import wait_until
from .websocket_clients import Client

PCM_16K = AudioEncoding("pcm16", 16_000)


class Wire:
    """An open connection."""

    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection

    async def send(self, text: str | bytes) -> None:
        try:
            await to_thread.run_sync(self._connection.send, text)
        except ConnectionClosed:
            raise anyio.BrokenResourceError from None

    async def receive(self) -> str:
        try:
            text = await to_thread.run_sync(self._connection.recv, abandon_on_cancel=True)
        except ConnectionClosed:
            raise anyio.EndOfStream from None
        assert isinstance(text, str)
        return text

    async def receive_json(self) -> Any:
        with anyio.fail_after(10):
            return json.loads(await self.receive())

    async def receive_end(self) -> int:
        """Read to the end, and return the close code."""
        with anyio.fail_after(10), suppress(anyio.EndOfStream):
            while True:
                await self.receive()
        return self._connection.close_code or 0

    async def aclose(self, code: int | None = 1000) -> None:
        """Close with a close frame. None sends one without a code."""
        if code is None:
            self._connection.socket.sendall(b"\x88\x80\0\0\0\0")
        else:
            await to_thread.run_sync(self._connection.close, code)

    def send_bytes(self, data: bytes) -> None:
        """Send bytes in place of a frame."""
        self._connection.socket.sendall(data)

    def abort(self) -> None:
        """End the connection without a close frame."""
        self._connection.socket.shutdown(socket.SHUT_RDWR)


@asynccontextmanager
async def open_wire(
    url: str, path: str = "/websocket/offer", headers: Mapping[str, str] | None = None
) -> AsyncGenerator[Wire, None]:
    """Connect.

    Raises:
        websockets.exceptions.InvalidStatus: the server rejects the handshake.
    """

    def dial() -> ClientConnection:
        address = url.replace("http", "ws", 1) + path
        # Wire.aclose() closes it on a thread, so that the event loop is not blocked.
        return connect(address, additional_headers=headers, close_timeout=1).__enter__()

    wire = Wire(await to_thread.run_sync(dial))
    try:
        yield wire
    finally:
        with CancelScope(shield=True):
            await wire.aclose()


@asynccontextmanager
async def open_client(
    url: str,
    start: Start | None = None,
    framing: Framing | None = None,
    path: str = "/websocket/offer",
    headers: Mapping[str, str] | None = None,
) -> AsyncGenerator[Client, None]:
    """Open a client that has sent its start message."""
    start = start or Start("caller", PCM_16K)
    assert start.encoding is not None
    async with open_wire(url, path, headers) as wire, create_task_group() as tasks:
        client = Client(wire, framing or FastRTCFraming(), start.encoding)
        client.send(start)
        tasks.start_soon(client.run)
        try:
            yield client
        finally:
            tasks.cancel_scope.cancel()
            with CancelScope(shield=True):
                await wire.aclose()
            client.close()


async def wait_for_echo(client: Client) -> None:
    """Send a tone until it comes back."""
    async with create_task_group() as tasks:
        tasks.start_soon(client.listen)
        tasks.start_soon(client.speak, tone(FREQUENCY, 16_000, 5.0), 16_000)
        await wait_until(lambda: np.abs(client.sound).max(initial=0) > 5000, "the echo")
        tasks.cancel_scope.cancel()
