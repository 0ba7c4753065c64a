"""Handlers: an echo in both colours, and one that does nothing."""

from __future__ import annotations

import queue
from functools import cached_property
from typing import Any

import anyio

from fastrtc_anyio import AsyncStreamHandler, EmitType, StreamHandler


class AsyncEcho(AsyncStreamHandler):
    """Echoes audio, and logs its calls of ``start_up`` and ``shutdown``."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.options = options
        self.calls: list[str] = []

    @cached_property
    def streams(self) -> Any:
        """A memory stream, made on first use: a handler that only gets copied never closes."""
        return anyio.create_memory_object_stream[Any](100)

    async def start_up(self) -> None:
        self.calls.append("start_up")

    async def receive(self, frame: Any) -> None:
        await self.streams[0].send(frame)

    async def emit(self) -> EmitType:
        return await self.streams[1].receive()  # type: ignore[no-any-return]

    async def shutdown(self) -> None:
        self.calls.append("shutdown")
        for stream in self.streams:
            stream.close()

    def copy(self) -> AsyncEcho:
        return type(self)(**self.options)


class TalkativeEcho(AsyncEcho):
    """Echoes audio and answers messages."""

    async def on_message(self, message: str) -> None:
        await self.send_message(f"you said {message}")


class Echo(StreamHandler):
    """The synchronous echo of FastRTC's documentation."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.options = options
        self.calls: list[str] = []
        self.frames: queue.Queue[Any] = queue.Queue()

    def start_up(self) -> None:
        self.calls.append("start_up")

    def receive(self, frame: Any) -> None:
        self.frames.put(frame)

    def emit(self) -> EmitType:
        try:
            return self.frames.get_nowait()  # type: ignore[no-any-return]
        except queue.Empty:
            return None

    def shutdown(self) -> None:
        self.calls.append("shutdown")

    def copy(self) -> Echo:
        return type(self)(**self.options)


class Quiet(AsyncStreamHandler):
    """Ignores audio and sends nothing; a base class for other handlers."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.calls: list[str] = []

    async def receive(self, frame: Any) -> None: ...

    async def emit(self) -> EmitType:
        await anyio.sleep_forever()
        return None

    async def shutdown(self) -> None:
        self.calls.append("shutdown")

    def copy(self) -> Quiet:
        return type(self)()


class SyncQuiet(StreamHandler):
    """Ignores audio and emits None, with synchronous methods."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.calls: list[str] = []

    def receive(self, frame: Any) -> None: ...

    def emit(self) -> EmitType:
        return None

    def shutdown(self) -> None:
        self.calls.append("shutdown")

    def copy(self) -> SyncQuiet:
        return type(self)()
