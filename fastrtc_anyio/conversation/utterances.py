"""Turn taking for session functions: the user's utterances as an asynchronous iterator.

A :class:`.ReplyOnPause` takes the turns. Its reply function offers each utterance to the session
function, and plays the audio passed to :meth:`Utterance.reply`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from typing import Self, TypeAlias, Unpack

import anyio
import numpy as np
from anyio import get_cancelled_exc_class
from anyio.lowlevel import checkpoint

from fastrtc_anyio._core.log import logger
from fastrtc_anyio._core.options import short_repr
from fastrtc_anyio._media.frames import Int16Array
from fastrtc_anyio.handlers import CloseStream
from fastrtc_anyio.outputs import AdditionalOutputs
from fastrtc_anyio.speech.batch import ModelOptions, PauseDetectionModel
from fastrtc_anyio.speech.vad import Vad

from .events import ReplyFinished, ReplyInterrupted, ReplyStarted, TurnEvent, TurnListener
from .handlers import ReplyOnPause, TurnSettings
from .pause_rules import AlgoOptions

__all__ = ["Utterance", "Utterances"]

Chunks: TypeAlias = AsyncIterator[object] | Iterable[object] | AdditionalOutputs | CloseStream
Outcome: TypeAlias = ReplyFinished | ReplyInterrupted

_BACKLOG_S = 60.0
"""Seconds of utterances that wait for a session function. The oldest are dropped beyond."""


class Utterance:
    """Something that the user said.

    Attributes:
        audio: ``(rate, samples)``: int16, shape ``(1, n)``, from the first syllable on.
    """

    def __init__(self, audio: tuple[int, Int16Array], stop: Callable[[], object]) -> None:
        self.audio: tuple[int, Int16Array] = audio
        self._stop = stop
        self._chunks: Iterable[object] | AsyncIterator[object] = ()
        self._answered = anyio.Event()
        self._ended = anyio.Event()
        self._outcome: Outcome | None = None

    @property
    def interrupted(self) -> bool:
        """Whether the user has interrupted the reply, or has gone on before there was one."""
        return isinstance(self._outcome, ReplyInterrupted)

    async def reply(self, chunks: Chunks) -> Outcome:
        """Play a reply, and wait until it has been played or interrupted.

        A user who speaks over the reply interrupts it: the iterator is cancelled and closed, and
        the rest of its audio is dropped.

        Args:
            chunks: an async iterator, such as an async generator or ``stream_tts(text)``; an
                iterator or a list; or one chunk. A chunk is a value that ``emit`` may return:
                ``(rate, samples)``, ``AdditionalOutputs``, ``CloseStream``. A plain iterator
                runs on a thread.

        Returns:
            A :class:`ReplyFinished` or a :class:`ReplyInterrupted`, whose ``played`` and ``text``
            say what the user heard. If the user has gone on speaking before the call, nothing is
            played.

        Raises:
            RuntimeError: the utterance has a reply, or a later one was taken from the iterator.
            TypeError: ``chunks`` is not iterable.

        An exception of the iterator ends the session, as in :class:`ReplyOnPause`.

        Cancellation:
            Stops the reply and drops the rest of its audio, unless the session hangs up.
        """
        if isinstance(chunks, tuple | AdditionalOutputs | CloseStream):
            chunks = (chunks,)
        _check_chunks(chunks)
        if self._answered.is_set() and not self.interrupted:
            raise RuntimeError("this utterance has been replied to already")
        self._chunks = chunks
        self._answered.set()
        try:
            if self._ended.is_set():
                await checkpoint()
            await self._ended.wait()
        except get_cancelled_exc_class():
            self._stop()
            raise
        assert self._outcome is not None
        return self._outcome

    async def wait_chunks(self) -> AsyncIterator[object] | Iterable[object]:
        """Wait for the reply. Called by the conversation."""
        await self._answered.wait()
        return self._chunks if isinstance(self._chunks, AsyncIterator) else iter(self._chunks)

    def skip(self) -> None:
        """Let there be no reply, unless there is one."""
        self._answered.set()

    def end(self, outcome: Outcome) -> None:
        """Note the end of the reply. Called by the conversation."""
        self._outcome = outcome
        self._ended.set()


class Utterances(AsyncIterator[Utterance]):
    """The utterances of a session's user: ``async for utterance in session.utterances()``.

    Made by :meth:`.Session.utterances`. Taking the next utterance ends the turn of the one before,
    so an utterance may stay without a reply.
    """

    def __init__(
        self,
        start: Callable[[ReplyOnPause], object],
        *,
        algo_options: AlgoOptions | None = None,
        model: Vad | PauseDetectionModel | None = None,
        model_options: ModelOptions = None,
        can_interrupt: bool = True,
        input_sample_rate: int = 48_000,
        **settings: Unpack[TurnSettings],
    ) -> None:
        self._handler = handler = ReplyOnPause(
            _no_reply,
            algo_options=algo_options,
            model=model,
            model_options=model_options,
            can_interrupt=can_interrupt,
            input_sample_rate=input_sample_rate,
            **settings,
        )
        self._listener: TurnListener | None = handler.on_event
        handler.fn, handler.on_event = self._offer, self._note
        self._start: Callable[[ReplyOnPause], object] | None = start
        self._waiting: deque[Utterance] = deque()
        self._open: dict[int, Utterance] = {}
        self._number = 0
        self._latest: Utterance | None = None
        self._more = anyio.Event()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Utterance:
        """Wait for the user's next utterance.

        Cancellation:
            A cancelled call has not taken an utterance.
        """
        if self._start is not None:
            start, self._start = self._start, None
            start(self._handler)
        if self._latest is not None:
            self._latest.skip()
        await checkpoint()
        while not self._waiting:
            self._more = anyio.Event()
            await self._more.wait()
        self._latest = self._waiting.popleft()
        return self._latest

    async def _offer(self, audio: tuple[int, Int16Array]) -> object:
        """Offer an utterance, and return the audio of the reply to it."""
        number = self._number
        utterance = Utterance(audio, lambda: self._handler.stop_reply(number))
        self._open[number] = utterance
        self._waiting.append(utterance)
        while len(self._waiting) > 1 and self._seconds_waiting > _BACKLOG_S:
            self._waiting.popleft()
            logger.warning(
                "an utterance was dropped: the session function does not take them",
                event="turn.utterance_dropped",
            )
        self._more.set()
        return await utterance.wait_chunks()

    _offer.__qualname__ = "Utterance.reply"  # where an error of the audio comes from

    @property
    def _seconds_waiting(self) -> float:
        return sum(float(u.audio[1].shape[1] / u.audio[0]) for u in self._waiting)

    def _note(self, event: TurnEvent) -> None:
        if isinstance(event, ReplyStarted):
            self._number = event.reply
        elif isinstance(event, ReplyFinished | ReplyInterrupted):
            utterance = self._open.pop(event.reply, None)
            if utterance is not None:
                utterance.end(event)
        if self._listener is not None:
            self._listener(event)


def _check_chunks(chunks: object) -> None:
    # Texts, arrays and mappings are iterable, too.
    wrong = isinstance(chunks, str | bytes | np.ndarray | Mapping)
    if wrong or not isinstance(chunks, AsyncIterator | Iterable):
        raise TypeError(f"chunks must be an iterator of audio or a chunk; got {short_repr(chunks)}")


async def _no_reply(audio: tuple[int, Int16Array]) -> AsyncIterator[object]:
    """Stand in for the reply function until the iterator exists."""
    chunks: tuple[object, ...] = ()
    for chunk in chunks:
        yield chunk
