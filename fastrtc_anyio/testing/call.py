"""A whole call in memory: a real session, driven by a test instead of a browser."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import AbstractContextManager, asynccontextmanager, nullcontext
from dataclasses import dataclass

import anyio
from anyio import create_task_group

from fastrtc_anyio.driver import HandlerProgram
from fastrtc_anyio.groups import unwrapped
from fastrtc_anyio.handlers import StreamHandlerBase
from fastrtc_anyio.peers.memory import MemoryClient, MemoryPeer, open_memory_peer
from fastrtc_anyio.session import FunctionProgram, Limits, Program, Session, SessionFunction
from fastrtc_anyio.workers import Host

from .virtual_time import virtual_time

__all__ = ["Call", "open_call"]


@dataclass
class Call:
    """What a test has in hand while a call runs."""

    session: Session
    peer: MemoryPeer
    client: MemoryClient
    ended: anyio.Event
    """Set when the session is over and everything it held is released."""


@asynccontextmanager
async def open_call(
    handler: StreamHandlerBase | SessionFunction,
    *,
    limits: Limits | None = None,
    connect: bool = True,
    channel: bool = True,
    output_buffer_s: float = 30.0,
    raise_errors: bool = True,
) -> AsyncGenerator[Call, None]:
    """Call a handler. Leaving the block hangs up and waits until the session is over.

    On trio's ``MockClock`` the whole call runs on virtual time, plain handlers included.

    Args:
        handler: the handler of this one call, or a session function.
        limits: deadlines of the session.
        connect: have the client connect at once.
        channel: have its data channel open at once.
        output_buffer_s: seconds of audio the handler may work ahead.
        raise_errors: let what the handler raised leave the block. Else it is in
            ``call.session.error``.

    Raises:
        Whatever the handler raised.
    """
    sample_rate, channels = 24_000, 1
    program: Program
    if isinstance(handler, StreamHandlerBase):
        sample_rate = handler.output_sample_rate
        channels = 2 if handler.expected_layout == "stereo" else 1
        program = HandlerProgram(handler, _no_asyncio_loop)
    else:
        program = FunctionProgram(handler)
    with unwrapped(), _virtual_time():
        async with (
            open_memory_peer(
                sample_rate=sample_rate, channels=channels, output_buffer_s=output_buffer_s
            ) as peer,
            create_task_group() as tg,
        ):
            session = Session(peer, program, limits=limits)
            call = Call(session, peer, peer.client, anyio.Event())

            async def run() -> None:
                try:
                    await session.run()
                except Exception:
                    if raise_errors:
                        raise
                finally:
                    call.ended.set()

            if connect:
                peer.client.connect(channel=channel)
            tg.start_soon(run)
            yield call
            peer.client.hang_up()
            await call.ended.wait()


def _virtual_time() -> AbstractContextManager[object]:
    """Where the run has trio's virtual clock, have it stand still while threads work."""
    if Host().asyncio_loop is None:
        import trio

        clock = trio.lowlevel.current_clock()
        if isinstance(clock, trio.testing.MockClock):
            return virtual_time(clock)
    return nullcontext()


def _no_asyncio_loop() -> object:
    raise RuntimeError("handler.loop needs asyncio, which a call in memory does without")
