"""Close a connection in steps. Each step runs even if an earlier one failed.

A step that raises an exception or exceeds its limit leaves one record in the log. The next step
runs in either case. Together the limits are below the default of ``Limits.close``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Coroutine, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from aiortc import RTCPeerConnection

from fastrtc_anyio._core.log import logger
from fastrtc_anyio._core.records import log_failure

from . import task_internals
from .data import DRAIN_LIMIT, DataChannels, poll
from .ice_path import IcePath
from .media import ConnectionMedia
from .tasks import ConnectionTasks

_NEGOTIATION = 0.4
"""Seconds for the negotiation to end before it is cancelled."""
_PART = 0.08
"""Seconds to stop the parts of one kind."""

_abandoned: set[asyncio.Task[Any]] = set()
"""Tasks of steps that exceeded their limit, until they end."""


@dataclass(frozen=True)
class Step:
    """One step of the end."""

    name: str
    limit: float
    """Seconds."""
    run: Callable[[], Coroutine[Any, Any, object]]
    is_cancellable: bool = True


@dataclass(frozen=True)
class Closing:
    """Closes a connection, of which these are the parts."""

    tasks: ConnectionTasks
    negotiation: asyncio.Task[str] | None
    find_pc: Callable[[], RTCPeerConnection | None]
    paths: Sequence[IcePath]
    data_channels: DataChannels
    media: ConnectionMedia
    connecting: Collection[asyncio.Task[Any]]
    """Tasks that perform ICE and DTLS."""
    has_failed: bool
    """Whether a task failed, which the log shows: the failure of a step is a consequence."""
    end: Callable[[], None]
    """Ends all streams."""

    def steps(self) -> tuple[Step, ...]:
        """Return the steps in their order."""
        return (
            Step("waiting for the negotiation", 0.5, self._end_negotiation),
            Step("abandoning ICE restarts", 0.1, self._abandon_restarts),
            Step("waiting for the handshake", DRAIN_LIMIT + 0.1, self._wait_handshake),
            Step("sending the last messages", 2.0, self._send_last),
            # Before pc.close(), so that the handler's receive loop does not wait for it.
            Step("ending the input", 0.1, self._end_input),
            Step("closing the peer connection", 0.8, self._close_pc, is_cancellable=False),
            Step("ending the connect tasks", 0.2, self._end_connecting),
            Step("releasing the transports", 0.3, self._release),
            Step("ending the tasks", 0.2, self._end_tasks),
            # Last, because the playout track uses the encoder until pc.close() returns.
            Step("ending the streams", 0.1, self._end_streams),
        )

    async def run(self, on_ended: Callable[[], None]) -> None:
        """Run the steps, each as a task. Cancel at the end what hangs.

        ``on_ended`` is called once all steps have ended, perhaps later, or never.
        """
        hanging = [task for step in self.steps() if (task := await self._run_step(step))]
        if not hanging:
            on_ended()

        def end(task: asyncio.Task[Any]) -> None:
            hanging.remove(task)
            if not hanging:
                on_ended()

        for task in list(hanging):
            task.cancel()
            task.add_done_callback(end)

    async def _run_step(self, step: Step) -> asyncio.Task[Any] | None:
        """Run a step, and return its task if that has not ended."""
        task = self.tasks.start_apart(step.run())
        await asyncio.wait([task], timeout=step.limit)
        if not task.done():
            text = "closing a WebRTC connection: %s exceeds %g s"
            logger.warning(text, step.name, step.limit, event="webrtc.close_timeout")
            if step.is_cancellable:
                task.cancel()
            _abandoned.add(task)
            task.add_done_callback(_forget)
            return task
        if not task.cancelled() and (error := task.exception()) is not None:
            text = "closing a WebRTC connection: %s failed"
            if self.has_failed:
                logger.debug(text, step.name, exc_info=error, event="webrtc.close_failed")
            else:
                log_failure(text, step.name, error=error, event="webrtc.close_failed")
        return None

    async def _end_negotiation(self) -> None:
        # Cancelled late: aioice 0.13 registers the sockets it opens only when all of them are open,
        # so that pc.close() would leave the others open. After that it waits for STUN servers.
        if self.negotiation is None:
            return
        await asyncio.wait([self.negotiation], timeout=_NEGOTIATION)
        self.negotiation.cancel()
        await asyncio.wait([self.negotiation])
        if not self.negotiation.cancelled():
            self.negotiation.exception()  # retrieves it: the caller may be cancelled

    async def _abandon_restarts(self) -> None:
        errors = []
        for path in self.paths:
            try:
                await path.close()
            except Exception as exc:
                errors.append(exc)
        if errors:
            raise ExceptionGroup("ICE restarts could not be abandoned", errors)

    async def _wait_handshake(self) -> None:
        """Wait for DTLS: only after the handshake does it send a close alert.

        Without the alert the client takes up to 30 s to notice the end.
        """
        if (pc := self.find_pc()) is not None:
            transports = [transceiver.sender.transport for transceiver in pc.getTransceivers()]
            await poll(lambda: all(one.state != "connecting" for one in transports), DRAIN_LIMIT)

    async def _send_last(self) -> None:
        pc = self.find_pc()
        if pc is not None and pc.connectionState == "connected" and pc.sctp is not None:
            await self.data_channels.drain(pc.sctp)

    async def _end_input(self) -> None:
        self.media.end_input()

    async def _close_pc(self) -> None:
        if (pc := self.find_pc()) is None:
            return
        task_internals.release_ended(pc)
        closing = task_internals.get_close_task(pc)
        if closing is None:
            await pc.close()
        else:  # aiortc has begun to close it; if that task failed, close() would wait for ever
            await asyncio.wait([closing])

    async def _end_connecting(self) -> None:
        """End the connect tasks, which ``pc.close()`` neither awaits nor cancels."""
        try:
            if self.connecting:
                await asyncio.wait(self.connecting, timeout=_PART)
        finally:
            for task in list(self.connecting):
                task.cancel()

    async def _release(self) -> None:
        """Stop what ``pc.close()`` has not reached or a connect task has started since."""
        if (pc := self.find_pc()) is not None:
            task_internals.release_ended(pc)
            media = [transceiver.stop() for transceiver in pc.getTransceivers()]
            await _stop(media if pc.sctp is None else [*media, pc.sctp.stop()])
            task_internals.end_decoders(pc)
        await _stop([path.transport.stop() for path in self.paths])
        await _stop([path.transport.transport.stop() for path in self.paths])
        for path in self.paths:
            path.abort()

    async def _end_tasks(self) -> None:
        # Even aiortc's own close(), if it still hangs: all its parts are released, and no other
        # close() will wait for it.
        await self.tasks.cancel()

    async def _end_streams(self) -> None:
        try:
            self.end()
        finally:
            self.media.close()


async def _stop(parts: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Stop parts of a connection concurrently. A failure of one does not affect the others."""
    loop = asyncio.get_running_loop()
    stopping = {loop.create_task(part) for part in parts}
    if not stopping:
        return
    ended, late = await asyncio.wait(stopping, timeout=_PART)
    for task in late:
        task.cancel()
    for task in ended:
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.debug(
                "a part of a WebRTC connection failed to stop",
                exc_info=error,
                event="webrtc.close_failed",
            )


def _forget(task: asyncio.Task[Any]) -> None:
    _abandoned.discard(task)
    if not task.cancelled() and (error := task.exception()) is not None:
        logger.debug("an abandoned step failed", exc_info=error, event="webrtc.failed_late")
