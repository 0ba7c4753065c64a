"""A directory in another process of the same machine, over a loopback socket.

Each request is a connection: a line of JSON there, and a line back. Closing it cancels the request.
"""

from __future__ import annotations

import hmac
import json
from base64 import b64decode, b64encode
from functools import partial

import anyio
from anyio import (
    BrokenResourceError,
    CancelScope,
    ClosedResourceError,
    DelimiterNotFound,
    EndOfStream,
    IncompleteRead,
    create_task_group,
    move_on_after,
)
from anyio.abc import SocketAttribute, SocketStream, TaskStatus
from anyio.lowlevel import checkpoint
from anyio.streams.buffered import BufferedByteReceiveStream

from fastrtc_anyio._core.groups import collapse_groups
from fastrtc_anyio._core.log import logger
from fastrtc_anyio.resumption import SessionStore

from .directory import Location, MemoryDirectory, SessionDirectory

__all__ = ["RemoteDirectory", "serve_directory"]

_HOST = "127.0.0.1"
_LINE = 262_144
"""Bytes of a line at most: more than the largest value of a store, in base64."""
_READ_SECONDS = 5.0
"""Seconds in which a request must arrive."""
_STRANGERS = 64
_CYCLES = 5
"""Turns of the event loop after which it has seen that a connection had been closed before."""
_PAUSE = 0.1
"""Seconds to wait for file descriptors before further connections are accepted."""


async def serve_directory(
    directory: MemoryDirectory, secret: str, *, task_status: TaskStatus[int]
) -> None:
    """Serve a directory until the call is cancelled, at a port that ``task_status`` receives."""
    strangers = _Strangers()
    async with (
        await anyio.create_tcp_listener(local_host=_HOST) as listener,
        create_task_group() as tasks,
    ):
        task_status.started(listener.extra(SocketAttribute.local_port))
        while True:
            try:
                with collapse_groups():
                    await listener.serve(partial(_serve_one, directory, secret, strangers), tasks)
            except (OSError, BrokenResourceError) as exc:
                logger.warning(
                    "the directory cannot accept a connection: %r",
                    exc.__cause__ or exc,
                    event="server.accept_failed",
                )
                await anyio.sleep(_PAUSE)


class _Strangers:
    """Connections that have not shown the secret: a new one may end the oldest.

    Any program of the machine can open them.
    """

    def __init__(self) -> None:
        self._scopes: dict[CancelScope, None] = {}

    async def read_request(self, stream: SocketStream, secret: str) -> list[object] | None:
        """Return what a process asks; None if a stranger asks, or a process that has gone."""
        with move_on_after(_READ_SECONDS) as scope:
            self._scopes[scope] = None
            if len(self._scopes) > _STRANGERS:
                oldest = next(iter(self._scopes))
                del self._scopes[oldest]
                oldest.cancel()
            try:
                given, *request = json.loads(await _read_line(stream))
                is_known = hmac.compare_digest(str(given).encode(), secret.encode())
                return request if is_known else None
            except (DelimiterNotFound, EndOfStream, IncompleteRead, BrokenResourceError):
                return None
            except (ValueError, TypeError, RecursionError):
                return None
            finally:
                self._scopes.pop(scope, None)
        return None


async def _serve_one(
    directory: MemoryDirectory, secret: str, strangers: _Strangers, stream: SocketStream
) -> None:
    async with stream:
        request = await strangers.read_request(stream, secret)
        if request is None:
            return
        try:
            with collapse_groups():
                async with create_task_group() as tasks:
                    tasks.start_soon(_cancel_at_end, stream, tasks.cancel_scope)
                    for _ in range(_CYCLES):  # a later request may have been answered already
                        await checkpoint()
                    answer = await _call(directory, request)
                    await stream.send(json.dumps(answer).encode() + b"\n")
                    tasks.cancel_scope.cancel()
        except (OSError, BrokenResourceError):
            pass  # the process does not want the answer any more
        except Exception:
            logger.exception("a request to the directory failed", event="cluster.request_failed")


async def _call(directory: MemoryDirectory, request: list[object]) -> object:
    match request:
        case ["join", str(owner), str(address)]:
            return await directory.join(owner, address)
        case ["leave", str(owner)]:
            await directory.leave(owner)
            return None
        case ["list"]:
            return await directory.list_processes()
        case ["claim", str(webrtc_id), str(session_id)]:
            return await directory.claim(webrtc_id, session_id)
        case ["release", str(webrtc_id), str(session_id)]:
            await directory.release(webrtc_id, session_id)
            return None
        case ["find", str(name), int(wait) | float(wait)]:
            return await directory.find(name, wait)
        case ["save", str(key), str(value), int(lifetime) | float(lifetime)]:
            return await directory.save(key, b64decode(value), lifetime)
        case ["take", str(key)]:
            return _encode(await directory.take(key))
        case ["delete", str(key)]:
            await directory.delete(key)
            return None
    raise ValueError(f"unknown request to the directory: {request!r}")


def _encode(value: bytes | None) -> str | None:
    return None if value is None else b64encode(value).decode()


async def _cancel_at_end(stream: SocketStream, scope: CancelScope) -> None:
    try:
        await stream.receive(1)
    except (EndOfStream, BrokenResourceError, ClosedResourceError):
        scope.cancel()


async def _read_line(stream: SocketStream) -> bytes:
    return await BufferedByteReceiveStream(stream).receive_until(b"\n", _LINE)


class RemoteDirectory(SessionDirectory, SessionStore):
    """A directory and a store that :func:`serve_directory` serves.

    The methods raise ``OSError`` if it cannot be reached.
    """

    def __init__(self, port: int, secret: str) -> None:
        self._port = port
        self._secret = secret

    async def join(self, owner: str, address: str) -> bool:
        return bool(await self._ask("join", owner, address))

    async def leave(self, owner: str) -> None:
        await self._ask("leave", owner)

    async def list_processes(self) -> list[Location]:
        answer = await self._ask("list")
        return [Location(*entry) for entry in answer] if isinstance(answer, list) else []

    async def claim(self, webrtc_id: str, session_id: str) -> str | None:
        answer = await self._ask("claim", webrtc_id, session_id)
        return None if answer is None else str(answer)

    async def release(self, webrtc_id: str, session_id: str) -> None:
        await self._ask("release", webrtc_id, session_id)

    async def find(self, name: str, wait: float = 0.0) -> Location | None:
        answer = await self._ask("find", name, wait)
        return Location(*answer) if isinstance(answer, list) else None

    async def save(self, key: str, value: bytes, lifetime: float) -> bool:
        return bool(await self._ask("save", key, _encode(value), lifetime))

    async def take(self, key: str) -> bytes | None:
        answer = await self._ask("take", key)
        return None if answer is None else b64decode(str(answer))

    async def delete(self, key: str) -> None:
        await self._ask("delete", key)

    async def _ask(self, name: str, *arguments: object) -> object:
        try:
            async with await anyio.connect_tcp(_HOST, self._port) as stream:
                line = json.dumps([self._secret, name, *arguments])
                await stream.send(line.encode() + b"\n")
                return json.loads(await _read_line(stream))
        except (EndOfStream, IncompleteRead, DelimiterNotFound, BrokenResourceError) as exc:
            raise ConnectionError("the directory has closed the connection") from exc
