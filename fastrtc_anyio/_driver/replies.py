"""The replies of a conversation: one task each, which advances and closes the user's generator.

A reply starts once the generator of the previous reply is closed, and once the client has sent its
input if the function takes it. An interruption cancels the scope of the reply and flushes playout
in one step of the event loop. So no audio from before the flush can be queued after it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import anyio
from anyio import CancelScope
from anyio.abc import TaskGroup
from anyio.lowlevel import checkpoint_if_cancelled

from fastrtc_anyio._core.log import logger
from fastrtc_anyio._core.user_code import is_generator_function
from fastrtc_anyio._media.frames import AudioFrame
from fastrtc_anyio._media.playout import Played
from fastrtc_anyio._observation import ReplyEnd
from fastrtc_anyio.conversation.handlers import ReplyOnPause
from fastrtc_anyio.conversation.reply_calls import InputNeed, ReplyCall

from .captions import ReplyText
from .emissions import Emission, read_audio_emission
from .generators import run_generator
from .run import HandlerRun

INPUTS_S = 2.0
"""Seconds to wait for the client's input if the function can be called without it."""
UNWINDING_S = 1.0
"""Seconds to wait for the previous reply to unwind."""


class _Reply:
    """One reply, from the moment it is due."""

    def __init__(self, number: int, text: ReplyText) -> None:
        self.number = number
        self.text = text
        self.scope = CancelScope()
        # Set once its generator, and those of all previous replies, are closed.
        self.unwound = anyio.Event()
        self.audible = False
        self.finished = False


class Replies:
    """Starts, plays and interrupts the replies of one conversation.

    ``finished`` is called with the number of each reply that was played to its end, or as far as it
    was queued when the session hung up, with the audio played, and with its text.
    """

    def __init__(
        self,
        run: HandlerRun[ReplyOnPause],
        tasks: TaskGroup,
        finished: Callable[[int, Played, str], None],
    ) -> None:
        self._run = run
        self._handler = run.handler
        self._session = run.session
        self._tasks = tasks
        self._finished = finished
        self._current = self._make_reply(0)
        self._current.unwound.set()
        self._client_answers = True
        run.on_played = self._finish_current

    def start(self, number: int, call: ReplyCall) -> None:
        """Start a reply. It waits until the previous one has unwound."""
        if self._session.media.audio_out:
            # A judge may still think about a candidate of the previous reply, and have paused it.
            self._session.audio_out.resume()
        previous, self._current = self._current, self._make_reply(number)
        if (observation := self._session.observation) is None:
            self._tasks.start_soon(self._run_reply, self._current, previous, call)
            return
        observation.reply_started(number)
        with observation.in_reply(number):
            self._tasks.start_soon(self._run_reply, self._current, previous, call)

    def interrupt(self) -> tuple[Played, str]:
        """Cancel the current reply, drop its queued audio, and return the audio it has played and
        the text of that audio."""
        reply = self._current
        reply.scope.cancel()
        if self._session.media.audio_out:
            self._session.audio_out.flush()
        self._report_end(reply, ReplyEnd.INTERRUPTED)
        return self._played_of(reply), reply.text.end(interrupted=True)

    async def _run_reply(self, reply: _Reply, previous: _Reply, call: ReplyCall) -> None:
        try:
            with reply.scope:
                await self._wait_unwound(previous)
                await self._wait_for_inputs(call.need)
                await self._generate(reply, call.function, call.arguments())
                await self._run.wait_played()
                # An interruption during the last sample must not count as the end, too.
                await checkpoint_if_cancelled()
                self._finish(reply)
        except Exception:
            if not reply.scope.cancel_called:
                self._report_end(reply, ReplyEnd.FAILED)
                raise
            # The conversation has moved on, so the error must not end the session.
            logger.exception(
                "session %s: an interrupted reply failed",
                self._session.log_id,
                event="reply.failed",
            )
        finally:
            self._report_end(reply, ReplyEnd.CUT_OFF)
            reply.text.end(interrupted=True)  # of a reply that the end of the session cuts off
            # Even a reply that was cancelled while it waited keeps the next one waiting.
            with CancelScope(shield=True):
                await self._wait_unwound(previous)
            reply.unwound.set()

    async def _wait_unwound(self, previous: _Reply) -> None:
        """Wait for the ``finally`` blocks of the previous reply."""
        with anyio.move_on_after(UNWINDING_S) as scope:
            await previous.unwound.wait()
        if scope.cancelled_caught and not previous.unwound.is_set():
            previous.unwound.set()  # wait for it, and log it, only once
            logger.warning(
                "session %s: reply %d has not unwound within %g s of being interrupted",
                self._session.log_id,
                previous.number,
                UNWINDING_S,
                event="reply.unwinding",
            )

    async def _wait_for_inputs(self, need: InputNeed) -> None:
        """Ask the client for its input before each reply, and wait for it.

        The wait is unlimited only if the function requires input and none has arrived yet. Replies
        do not wait again for a client that did not answer the last time.
        """
        handler = self._handler
        if need is InputNeed.NONE:
            return
        if not handler.args_set.is_set():
            limit: float | None = INPUTS_S if self._client_answers else 0.0
            if need is InputNeed.REQUIRED and not handler.latest_args:
                logger.info(
                    "session %s: a reply waits for the client's input",
                    self._session.log_id,
                    event="reply.waits_for_input",
                )
                limit = None
            await handler.fetch_args()
            with anyio.move_on_after(limit):
                await handler.args_set.wait()
        self._client_answers = handler.args_set.is_set()
        handler.reset()

    async def _generate(
        self, reply: _Reply, function: Callable[..., object], arguments: tuple[object, ...]
    ) -> None:
        """Run the generator and play what it yields."""
        calls = self._run.calls
        reply.text.collect()
        source = str(getattr(function, "__qualname__", type(function).__qualname__))
        if is_generator_function(function):  # calling it runs none of its code
            generator = function(*arguments)
        else:
            generator = await calls.call_on_spare_thread(source, function, *arguments)

        def read(value: object) -> Emission[AudioFrame]:
            emission = read_audio_emission(value, source)
            if emission.media is not None:
                reply.text.emit(value, emission.media)
            return emission

        await run_generator(calls, source, generator, read, partial(self._play, reply))
        reply.text.complete()

    async def _play(self, reply: _Reply, emission: Emission[AudioFrame]) -> None:
        # The next checkpoint comes after the audio stream has noted its generation. Audio that
        # passes here therefore belongs to this reply, and the flush of an interruption drops it.
        await checkpoint_if_cancelled()
        if emission.outputs is not None and self._handler.phone_mode:
            self._handler.set_args(list(emission.outputs.args))
        if emission.media is not None:
            if not reply.audible and self._session.observation is not None:
                self._session.observation.reply_audible(reply.number)
            self._mark_audible(reply)
            reply.text.show()
        await self._run.play(emission._replace(close=None))
        if emission.close is not None:
            await self._run.end(emission.close.msg)

    def _mark_audible(self, reply: _Reply) -> None:
        if not reply.audible:
            reply.audible = True
            self._run.log("response_starting")

    def _finish_current(self) -> None:
        if self._current.number and not self._current.scope.cancel_called:
            self._finish(self._current)

    def _finish(self, reply: _Reply) -> None:
        if reply.finished:
            return
        reply.finished = True
        self._mark_audible(reply)
        self._report_end(reply, ReplyEnd.FINISHED)
        self._finished(reply.number, self._played_of(reply), reply.text.end(interrupted=False))

    def _report_end(self, reply: _Reply, end: ReplyEnd) -> None:
        """Report the first end of a reply to the observers, if there are any."""
        if (observation := self._session.observation) is not None:
            observation.reply_ended(reply.number, end, self._played_of(reply))

    def _make_reply(self, number: int) -> _Reply:
        captions = not self._handler.phone_mode
        return _Reply(number, ReplyText(self._session, number, self._tasks, captions=captions))

    def _played_of(self, reply: _Reply) -> Played:
        samples = reply.text.played
        seconds = samples / self._session.audio_out.sample_rate if samples else 0.0
        return Played(samples, seconds)
