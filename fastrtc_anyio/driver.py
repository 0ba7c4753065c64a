"""Drives a handler over a session: the classes of :mod:`.handlers` are an adapter onto it.

Plain methods run on worker threads of the session's own, one thread for each method, coroutine
methods on the event loop. All methods run side by side, and an error in any of them ends the rest.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import anyio
import numpy as np
from anyio import BrokenResourceError, CancelScope, create_task_group
from anyio.from_thread import BlockingPortal

from .errors import CloseReason, HandlerContractError, UnsupportedFormat
from .groups import contained
from .handlers import (
    AdditionalOutputs,
    AsyncStreamHandler,
    CloseStream,
    HandlerRuntime,
    StreamHandlerBase,
)
from .media.frames import (
    FRAMES_PER_SECOND,
    AudioFrame,
    Int16Array,
    as_int16,
    mix_channels,
)
from .media.playout import Played
from .media.resample import Rechunker, StreamResampler
from .protocol.messages import encode_message
from .workers import Host, Worker

if TYPE_CHECKING:
    from .session import Session

__all__ = ["Emission", "HandlerProgram", "check_handler", "read_emission"]

FRAME_SECONDS = 1 / FRAMES_PER_SECOND
_RATES = (1_000, 384_000)
"""Rates in Hz that ``emit`` may return; wider than anything in use."""


@dataclass(frozen=True)
class Emission:
    """What one call of ``emit`` gave, taken apart."""

    audio: AudioFrame | None = None
    outputs: AdditionalOutputs | None = None
    close: CloseStream | None = None


def read_emission(value: object, source: str) -> Emission:
    """Check and take apart what ``emit`` returned.

    Args:
        value: see ``EmitType``.
        source: the handler and method, for the error.

    Raises:
        HandlerContractError: it is not an ``EmitType``; says what it is.
    """
    match value:
        case None:
            return Emission()
        case AdditionalOutputs():
            return Emission(outputs=value)
        case CloseStream():
            return Emission(close=value)
        case (audio, AdditionalOutputs() as outputs):
            return Emission(_read_audio(audio, source), outputs=outputs)
        case (audio, CloseStream() as close):
            return Emission(_read_audio(audio, source), close=close)
        case _:
            return Emission(_read_audio(value, source))


def _read_audio(value: object, source: str) -> AudioFrame:
    wanted = "(rate, samples), (rate, samples, layout), AdditionalOutputs, CloseStream or None"
    rate: Any
    layout: str | None = None
    match value:
        case (rate, np.ndarray() as samples):
            pass
        case (rate, np.ndarray() as samples, "mono" | "stereo" as layout):
            pass
        case _:
            raise HandlerContractError(f"{source} must return {wanted}; got {_describe(value)}")
    if isinstance(rate, bool | np.bool_) or not isinstance(rate, int | np.integer):
        raise HandlerContractError(f"{source}: the sample rate must be an int; got {rate!r}")
    if not _RATES[0] <= rate <= _RATES[1]:
        raise HandlerContractError(
            f"{source}: the sample rate must be from {_RATES[0]} to {_RATES[1]} Hz; got {rate}"
        )
    try:
        pcm = as_int16(samples)
    except UnsupportedFormat as exc:
        raise HandlerContractError(f"{source}: {exc}") from exc
    if layout is not None and pcm.shape[0] != (2 if layout == "stereo" else 1):
        raise HandlerContractError(
            f'{source}: samples of layout "{layout}" must have shape '
            f"{'(2, n)' if layout == 'stereo' else '(n,) or (1, n)'}; got {samples.shape}"
        )
    return AudioFrame(int(rate), pcm)


def _describe(value: object) -> str:
    if isinstance(value, tuple):
        return f"({', '.join(_describe(item) for item in value)})"
    if isinstance(value, np.ndarray):
        return f"an array of {value.dtype}, shape {value.shape}"
    return f"{type(value).__name__} {str(value)[:40]!r}"


def check_handler(handler: StreamHandlerBase) -> None:
    """Refuse methods of the wrong kind before a session starts.

    Raises:
        HandlerContractError: a coroutine function where a plain one belongs, or the reverse.
    """
    is_async = isinstance(handler, AsyncStreamHandler)
    for name in ("receive", "emit", "start_up"):
        if inspect.iscoroutinefunction(getattr(handler, name)) != is_async:
            base, kind = (
                ("AsyncStreamHandler", "a coroutine function (async def)")
                if is_async
                else ("StreamHandler", "a plain function (def)")
            )
            raise HandlerContractError(
                f"{type(handler).__name__} is {base}'s kind: its {name} must be {kind}"
            )


class HandlerProgram:
    """A handler as something a session can run."""

    def __init__(self, handler: StreamHandlerBase, asyncio_loop: Callable[[], Any]) -> None:
        """``asyncio_loop`` gives ``handler.loop``, on first use."""
        check_handler(handler)
        self.handler = handler
        self._asyncio_loop = asyncio_loop
        self._workers: dict[str, Worker] = {}

    async def run(self, session: Session) -> None:
        """Drive the handler until it emits ``CloseStream``, raises, or is cancelled."""
        handler = self.handler
        async with BlockingPortal() as portal:
            runtime = _Runtime(session, portal, self._asyncio_loop)
            handler._runtime = runtime
            handler.set_channel(runtime.channel)
            async with create_task_group() as tg:
                for part in (self._start_up, self._receive_audio, self._messages):
                    tg.start_soon(self._run_part, part, session)
                await self._run_part(self._emit_audio, session)
                tg.cancel_scope.cancel()

    async def _run_part(self, part: Callable[[Session], Awaitable[None]], session: Session) -> None:
        try:
            await part(session)
        except Exception as exc:
            session.fail(exc)  # at once: the client does not wait for the other parts to unwind
            raise

    async def shut_down(self) -> None:
        """Call ``shutdown``."""
        await self._call("shutdown")

    async def join(self, deadline: float) -> int:
        """Wait for the worker threads until ``deadline``.

        Returns:
            How many were still inside the handler then.
        """
        workers = list(self._workers.values())
        with CancelScope(deadline=deadline):
            async with create_task_group() as tg:
                for worker in workers:
                    tg.start_soon(_close, worker)
        return sum(worker.busy for worker in workers)

    async def _call(self, name: str, *args: object) -> Any:
        source = f"{type(self.handler).__name__}.{name}"
        method = getattr(self.handler, name)
        with contained(source):
            try:
                if inspect.iscoroutinefunction(method):
                    return await method(*args)
                if isinstance(self.handler, AsyncStreamHandler):
                    return method(*args)  # an async handler lives on the event loop, whole
                if name not in self._workers:
                    self._workers[name] = Worker(source)
                return await self._workers[name].run(method, *args)
            except Exception as exc:
                exc.add_note(f"raised in {source}")
                raise

    async def _start_up(self, session: Session) -> None:
        limit = session.limits.start_up
        with anyio.move_on_after(limit) as scope:
            await self._call("start_up")
        if scope.cancelled_caught:
            text = f"start_up took longer than {limit:g} s"
            session.close(CloseReason.START_UP_TIMEOUT, text)

    async def _receive_audio(self, session: Session) -> None:
        handler = self.handler
        channels = 2 if handler.expected_layout == "stereo" else 1
        convert = _Converter(handler.input_sample_rate, channels)
        rechunk = Rechunker(handler.input_sample_rate // FRAMES_PER_SECOND, channels)
        try:
            async for frame in session.audio_in:
                for samples in rechunk.push(convert(frame)):
                    await self._call("receive", (handler.input_sample_rate, samples))
        finally:
            convert.close()

    async def _emit_audio(self, session: Session) -> None:
        source = f"{type(self.handler).__name__}.emit"
        out = session.audio_out
        convert = _Converter(out.sample_rate, out.channels)
        try:
            while True:
                emission = read_emission(await self._call("emit"), source)
                sounds = emission.audio is not None and emission.audio.samples.size > 0
                if emission.audio is not None and sounds:
                    await out.send(convert(emission.audio))
                if emission.outputs is not None:
                    session.messages.send_nowait(encode_message("fetch_output"))
                if emission.close is not None:
                    await out.wait_played()
                    session.close(CloseReason.HANDLER_CLOSED, emission.close.msg)
                    return
                if not sounds:
                    # "Nothing now." Asking again at once would keep a core busy.
                    await anyio.sleep(FRAME_SECONDS)
        except BrokenResourceError:
            await anyio.sleep_forever()  # the client has gone, and the session with it in a moment
        finally:
            convert.close()

    async def _messages(self, session: Session) -> None:
        listens = type(self.handler).on_message is not StreamHandlerBase.on_message
        while True:
            try:
                text = await session.messages.receive()
            except anyio.EndOfStream:
                return
            if listens:
                await self._call("on_message", text)


async def _close(worker: Worker) -> None:
    with suppress(TimeoutError):  # a virtual clock does not wait for threads without end
        await worker.aclose()


class _Runtime(HandlerRuntime):
    def __init__(
        self, session: Session, portal: BlockingPortal, asyncio_loop: Callable[[], Any]
    ) -> None:
        self.portal = portal
        self.channel = _Channel(session, Host())
        self._session = session
        self._host = self.channel.host
        self._asyncio_loop = asyncio_loop

    @property
    def loop(self) -> Any:
        return self._asyncio_loop()

    @property
    def on_host_thread(self) -> bool:
        return self._host.is_current_thread

    def flush_audio(self) -> Played:
        return self._session.audio_out.flush()


class _Channel:
    """The data channel as a handler sees it: ``send`` from any thread."""

    def __init__(self, session: Session, host: Host) -> None:
        self.host = host
        self._messages = session.messages

    def send(self, message: str) -> None:
        if not isinstance(message, str):
            raise TypeError(f"a message is a str; got {type(message).__name__}")
        self.host.call(partial(self._messages.send_nowait, message))


class _Converter:
    """Audio of any rate and layout to one rate and layout, with the filter's state kept."""

    def __init__(self, sample_rate: int, channels: int) -> None:
        self._sample_rate = sample_rate
        self._channels = channels
        self._from: int | None = None
        self._resampler: StreamResampler | None = None

    def __call__(self, frame: AudioFrame) -> Int16Array:
        samples = mix_channels(frame.samples, self._channels)
        if frame.sample_rate == self._sample_rate and self._resampler is None:
            return samples
        tail: list[Int16Array] = []
        if self._resampler is None or self._from != frame.sample_rate:
            if self._resampler is not None:
                tail.append(self._resampler.flush())
                self._resampler.close()
            self._from = frame.sample_rate
            self._resampler = StreamResampler(self._from, self._sample_rate, self._channels)
        tail.append(self._resampler.push(samples))
        return np.concatenate(tail, axis=1) if len(tail) > 1 else tail[0]

    def close(self) -> None:
        if self._resampler is not None:
            self._resampler.close()
            self._resampler = None
