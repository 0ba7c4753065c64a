"""Run an ASGI application in a thread that has an event loop of its own.

A server on another event loop, even of another library, passes requests on to it: each ``receive``
and ``send`` of the application runs on the server's loop, and waits there as long as the server
makes it wait. No socket is between them.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, ExitStack
from functools import partial

import anyio
from anyio import CancelScope, to_thread
from anyio.abc import TaskStatus
from anyio.from_thread import BlockingPortal, start_blocking_portal
from anyio.lowlevel import checkpoint, checkpoint_if_cancelled
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fastrtc_anyio._core.groups import collapse_groups
from fastrtc_anyio._core.log import logger

__all__ = ["AppThread"]

_ABNORMAL = 1006
"""Code of a WebSocket that ends without a close frame (RFC 6455 7.1.5)."""


class AppThread:
    """An ASGI application that runs in a thread of its own.

    It is an ASGI application itself, for a server on another event loop. Within the server's
    lifespan, it passes on requests and WebSockets, and their cancellation in both directions. The
    end of the lifespan closes the application, and ends the thread.

    Args:
        open_app: returns a context manager with the application, which is entered and left in the
            thread.
        backend: event loop of the thread, ``"trio"`` or ``"asyncio"``.
    """

    def __init__(
        self, open_app: Callable[[], AbstractAsyncContextManager[ASGIApp]], backend: str
    ) -> None:
        self._open_app = open_app
        self._backend = backend
        self._thread = ExitStack()
        self._portal: BlockingPortal | None = None
        """To the thread."""
        self._server: BlockingPortal
        """To the server's event loop. Requests do not have one each: their cancellation has to
        reach the application first, and through it ``receive`` and ``send``."""
        self._app: ASGIApp
        self._requests: set[CancelScope] = set()
        self._stopping: anyio.Event
        self._ended: anyio.Event
        self._error: Exception | None = None

    async def start(self) -> None:
        """Start the thread, and open the application.

        Raises:
            Exception: opening the application failed. The thread has ended.
        """
        portal = self._thread.enter_context(start_blocking_portal(self._backend))
        try:
            await to_thread.run_sync(portal.start_task, self._run)
        except BaseException:
            await self._end_thread()
            raise
        self._portal = portal

    async def stop(self) -> None:
        """Close the application, and end the thread. Idempotent."""
        if (portal := self._portal) is None:
            await checkpoint()
            return
        try:
            await portal.call_async(self._close)
        finally:
            self._portal = None
            await self._end_thread()

    async def _end_thread(self) -> None:
        with CancelScope(shield=True):
            await to_thread.run_sync(self._thread.close)

    async def check(self) -> None:
        """Wait until the event loop of the thread answers.

        Raises:
            RuntimeError: the application has ended.
        """
        await self._find_portal().call_async(self._answer, abandon_on_cancel=True)

    async def _answer(self) -> None:
        await checkpoint()
        if self._ended.is_set():
            raise RuntimeError("the application has ended") from self._error

    def _find_portal(self) -> BlockingPortal:
        if self._portal is None:
            raise RuntimeError("the application does not run")
        return self._portal

    async def _run(self, *, task_status: TaskStatus[None]) -> None:
        """Keep the application open. This is the only task of the thread beside those of requests.

        Errors before the start are raised by :meth:`start`, and later ones by :meth:`check`.
        """
        self._stopping, self._ended = anyio.Event(), anyio.Event()
        is_started = False
        try:
            async with self._open_app() as self._app:
                task_status.started()
                is_started = True
                await self._stopping.wait()
        except Exception as exc:
            self._error = exc
            if not is_started:
                raise
            logger.exception("the application has failed", event="cluster.application_failed")
        finally:
            self._ended.set()

    async def _close(self) -> None:
        self._stopping.set()
        await self._ended.wait()
        for request in self._requests:
            request.cancel()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._answer_lifespan(receive, send)
            return
        portal = self._find_portal()
        inbox = _Inbox(self._server, receive, scope["type"])
        app_send: Send = partial(self._server.call_async, send)
        await portal.call_async(self._serve, dict(scope), inbox.receive, app_send)

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        with CancelScope() as request:
            self._requests.add(request)
            try:
                # A group with a cancellation in it would end the portal, and with it all requests.
                with collapse_groups():
                    await self._app(scope, receive, send)
            except Exception:
                await checkpoint_if_cancelled()  # an error beside the cancellation
                raise
            finally:
                self._requests.discard(request)
        if request.cancelled_caught:
            raise ConnectionError("the application has ended")

    async def _answer_lifespan(self, receive: Receive, send: Send) -> None:
        async with BlockingPortal() as self._server:
            while (await receive())["type"] == "lifespan.startup":
                await send({"type": "lifespan.startup.complete"})
            await self.stop()
        await send({"type": "lifespan.shutdown.complete"})


class _Inbox:
    """``receive`` of a server on another event loop.

    A cancelled call loses no message, even if it has arrived meanwhile.
    """

    def __init__(self, server: BlockingPortal, receive: Receive, kind: str) -> None:
        self._server = server
        self._kind = kind
        self._receive = receive
        self._arrived: list[Message] = []

    async def receive(self) -> Message:
        if not self._arrived:
            await self._server.call_async(self._fetch)
        else:
            await checkpoint()
        return self._arrived.pop(0)

    async def _fetch(self) -> None:
        try:
            message = await self._receive()
        except Exception:  # Serve's, if the client has gone
            code = {"code": _ABNORMAL} if self._kind == "websocket" else {}
            message = {"type": f"{self._kind}.disconnect", **code}
        self._arrived.append(message)
