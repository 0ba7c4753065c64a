"""The end of the tasks in which aiortc connects."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any

from aiortc import RTCPeerConnection
from aiortc.exceptions import InvalidStateError

from . import internals

logger = logging.getLogger("fastrtc_anyio")

_LAST_STEP = 1.0
"""Seconds a connect task gets to notice that the connection is closed."""


class ConnectTasks:
    """Keeps the tasks in which a connection does ICE and DTLS, and ends them on close."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()

    def track(self, pc: RTCPeerConnection) -> None:
        """Keep all further connect tasks of ``pc``."""
        internals.wrap_connect(pc, self._run)

    async def end(self, pc: RTCPeerConnection) -> None:
        """End the tasks, and what they started after ``pc.close()``: senders and consent checks."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=_LAST_STEP)
        for task in list(self._tasks):
            task.cancel()
        for transceiver in pc.getTransceivers():
            await transceiver.stop()
            internals.cancel_consent_checks(transceiver.sender.transport)
        if pc.sctp is not None:
            internals.cancel_consent_checks(pc.sctp.transport)

    async def _run(self, connect: Callable[[], Coroutine[Any, Any, None]]) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            await connect()
        except InvalidStateError:
            logger.debug("closed while it was connecting")
        finally:
            self._tasks.discard(task)
