"""A conversation: what a :class:`.ReplyOnPause` hears and says.

Theory of operation. One task listens: it gives each hop of audio to the voice-activity model, and
the probability to the turn machine, whose events it carries out at once. A reply is a task of its
own, and the only one that advances and closes the user's generator. To interrupt is to cancel that
task's scope and to flush the playout, in one step of the event loop: the audio stream takes nothing
from before the flush any more, whatever the generator is doing.

Everything that touches the machine is a plain function on the event loop's thread, so it needs no
lock. What takes its time - a model, a judge of interruptions, an algorithm of the user's own, a
plain generator - runs on threads, and what comes back late is recognised as late: by the machine,
or by the cancelled scope it comes back to.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from inspect import isawaitable
from typing import Any

import anyio
from anyio import CancelScope, create_task_group
from anyio.abc import TaskGroup
from anyio.lowlevel import checkpoint_if_cancelled

from fastrtc_anyio._core.gate import Gate
from fastrtc_anyio._core.groups import collapse_groups
from fastrtc_anyio._core.user_code import is_generator, user_code
from fastrtc_anyio._media.frames import FRAMES_PER_SECOND, AudioFrame, Int16Array
from fastrtc_anyio._media.playout import Played
from fastrtc_anyio._media.resample import Rechunker
from fastrtc_anyio._signaling.messages import encode_message
from fastrtc_anyio.conversation.custom_rule import OwnAlgorithm
from fastrtc_anyio.conversation.events import (
    Interruption,
    InterruptionRejected,
    ReplyFinished,
    ReplyInterrupted,
    ReplyStarted,
    StopWordHeard,
    TurnEvent,
    UserStartedSpeaking,
    UserStoppedSpeaking,
)
from fastrtc_anyio.conversation.handlers import InputNeed, ReplyOnPause, ReplyOnStopWords
from fastrtc_anyio.conversation.machine import (
    Interrupted,
    InterruptionCandidate,
    ReplyDue,
    SpeechStarted,
    SpeechStopped,
    TurnMachine,
    TurnState,
    TurnStep,
)
from fastrtc_anyio.conversation.pause_rules import PauseRule, SlidingWindow
from fastrtc_anyio.conversation.stop_words import StopWordCandidate, StopWordRule
from fastrtc_anyio.errors import HandlerContractError
from fastrtc_anyio.speech.vad import Hops
from fastrtc_anyio.streams import AudioConverter

from .emissions import Emission, read_audio_emission
from .generators import run_generator
from .run import HandlerRun

__all__ = ["converse"]

logger = logging.getLogger("fastrtc_anyio")

UNDECIDED_S = 2.0
"""How long a judge may take to decide about an interruption. Longer than any "uh-huh"."""
INPUTS_S = 2.0
"""How long a reply waits for the client's inputs, where it can do without."""
UNWINDING_S = 1.0
"""How long a reply waits for the one before to have unwound."""


async def converse(run: HandlerRun[ReplyOnPause]) -> None:
    """Take turns with the client until one of them ends the session."""
    with collapse_groups():
        async with create_task_group() as tasks:
            conversation = Conversation(run, tasks)
            run.handler._turns = conversation
            try:
                conversation.greet()
                tasks.start_soon(conversation.wait_for_triggers)
                if run.session.media.audio_in:
                    await conversation.listen()
            finally:
                run.handler._turns = None


class _Reply:
    """One reply, from the moment it is due.

    Attributes:
        unwound: set when its generator, and those of all replies before, are closed.
        played_before: samples of the conversation that were played before it.
    """

    def __init__(self, number: int, played_before: int) -> None:
        self.number = number
        self.scope = CancelScope()
        self.unwound = anyio.Event()
        self.played_before = played_before
        self.sounds = False


class Conversation:
    """One caller's turns. All of it belongs to the event loop."""

    def __init__(self, run: HandlerRun[ReplyOnPause], tasks: TaskGroup) -> None:
        self._run = run
        self._handler = handler = run.handler
        self._session = run.session
        self._calls = run.calls
        self._tasks = tasks
        self._began = anyio.current_time()
        self._rule = _make_rule(handler)
        self._machine = TurnMachine(
            handler.input_sample_rate,
            handler.algo_options,
            rule=self._rule,
            can_interrupt=handler.can_interrupt,
            interrupt_on=handler.interrupt_on,
            pre_roll_s=handler.pre_roll_s,
        )
        self._reply = _Reply(0, 0)
        self._reply.unwound.set()
        self._triggered = Gate()
        self._client_answers = True
        self._news = anyio.Event()
        self._looking = False

    # -- what comes in

    async def listen(self) -> None:
        """Hear the client until the connection ends."""
        hear = self._hear_own if isinstance(self._rule, OwnAlgorithm) else self._hear
        convert = AudioConverter(self._handler.input_sample_rate, 1)
        try:
            await hear(convert)
        finally:
            convert.reset()

    async def _hear(self, convert: Callable[[AudioFrame], Int16Array]) -> None:
        """The usual way: a model says how probable speech is, a rule adds it up."""
        vad = self._handler.vad
        stream = vad.new_stream()
        source = f"{type(vad).__name__}.probability"
        hops = Hops(self._handler.input_sample_rate, vad)
        try:
            async for frame in self._session.audio_in:
                for hop, window in hops.push(convert(frame)):
                    if vad.blocking:
                        probability = await self._calls.function(source, stream.probability, window)
                    else:
                        with user_code(source):
                            probability = stream.probability(window)
                    self._push(hop, probability)
        finally:
            hops.close()

    async def _hear_own(self, convert: Callable[[AudioFrame], Int16Array]) -> None:
        """A subclass's way: its ``determine_pause`` is asked every 20 ms."""
        rule = self._rule
        assert isinstance(rule, OwnAlgorithm)
        source = self._calls.source("determine_pause")
        rechunk = Rechunker(self._handler.input_sample_rate // FRAMES_PER_SECOND, 1)
        async for frame in self._session.audio_in:
            for samples in rechunk.push(convert(frame)):
                if self._handler.can_interrupt or self._machine.state is not TurnState.REPLYING:
                    rule.responding = self._machine.state is TurnState.REPLYING
                    await self._calls.function(source, rule.judge, samples)
                self._push(samples, 0.0)

    def _push(self, hop: Int16Array, probability: float) -> None:
        self._carry_out(self._machine.push(hop, probability))
        if self._rule_is_deaf():
            self._look_for_stop_word()
        self._news.set()

    def trigger_response(self) -> None:
        """Have a reply begin now; on any thread."""
        self._triggered.set()

    async def wait_for_triggers(self) -> None:
        """Begin a reply whenever one is asked for."""
        while True:
            await self._triggered.wait()
            self._triggered.clear()
            self._carry_out(self._machine.trigger_response())

    def greet(self) -> None:
        """Begin with the greeting, if there is one."""
        handler = self._handler
        if handler.startup_fn is not None:
            self._carry_out(self._machine.reply_started())
            self._start_reply(
                handler.startup_fn, handler.greeting_inputs, handler.greeting_arguments, 0.0
            )

    # -- what follows from it

    def _carry_out(self, events: list[TurnStep]) -> None:
        for event in events:
            if self._run.ending:
                return  # a goodbye is heard to its end
            match event:
                case SpeechStarted():
                    self._say("started_talking")
                    self._tell(UserStartedSpeaking(self._time()))
                case SpeechStopped():
                    self._tell(UserStoppedSpeaking(self._time()))
                case InterruptionCandidate():
                    self._judge(event)
                case Interrupted():
                    self._interrupt()
                case ReplyDue():
                    self._say("pause_detected")
                    utterance = event.utterance
                    seconds = utterance.shape[1] / self._handler.input_sample_rate
                    arguments = partial(self._handler.reply_arguments, utterance)
                    self._start_reply(
                        self._handler.fn, self._handler.reply_inputs, arguments, seconds
                    )

    def _interrupt(self) -> None:
        reply = self._reply
        reply.scope.cancel()
        self._flush()
        self._tell(ReplyInterrupted(self._time(), reply.number, self._played_of(reply)))

    def _start_reply(
        self,
        function: Callable[..., Any],
        need: InputNeed,
        arguments: Callable[[], tuple[Any, ...]],
        heard: float,
    ) -> None:
        self._flush()  # what is played is counted from here
        before, self._reply = self._reply, _Reply(self._machine.reply, self._played_so_far())
        self._tell(ReplyStarted(self._time(), self._reply.number, heard))
        self._tasks.start_soon(self._run_reply, self._reply, before, function, need, arguments)

    def _flush(self) -> None:
        if self._session.media.audio_out:
            self._session.audio_out.flush()

    def _played_so_far(self) -> int:
        """Samples of all replies, those included that the handler itself has flushed."""
        return self._session.audio_out.played_before_flushes if self._session.media.audio_out else 0

    def _played_of(self, reply: _Reply) -> Played:
        samples = self._played_so_far() - reply.played_before
        rate = self._session.audio_out.sample_rate if self._session.media.audio_out else 1
        return Played(samples, samples / rate)

    # -- a reply

    async def _run_reply(
        self,
        reply: _Reply,
        before: _Reply,
        function: Callable[..., Any],
        need: InputNeed,
        arguments: Callable[[], tuple[Any, ...]],
    ) -> None:
        try:
            with reply.scope:
                await self._wait_unwound(before)
                await self._wait_for_inputs(need)
                await self._generate(reply, function, arguments())
                await self._run.wait_played()
                await checkpoint_if_cancelled()  # interrupted at its last sample
                self._finish(reply)
        except Exception:
            if not reply.scope.cancel_called:
                raise
            # The conversation has moved on: nobody is left to be told but the log.
            logger.exception("session %s: an interrupted reply failed", self._session.id)
        finally:
            with CancelScope(shield=True):
                await self._wait_unwound(before)
            reply.unwound.set()

    async def _generate(
        self, reply: _Reply, function: Callable[..., Any], arguments: tuple[Any, ...]
    ) -> None:
        source = getattr(function, "__qualname__", type(function).__qualname__)

        async def deliver(emission: Emission[AudioFrame]) -> None:
            # No checkpoint from here to where the audio stream notes its generation: what is not
            # cancelled here belongs to this reply, and goes when it is flushed.
            await checkpoint_if_cancelled()
            if emission.outputs is not None and self._handler.phone_mode:
                self._handler.set_args(list(emission.outputs.args))
            if emission.media is not None:
                self._sound(reply)
            await self._run.play(replace(emission, close=None))
            if emission.close is not None:
                await self._run.end(emission.close.msg, partial(self._finish, reply))

        if is_generator(function):  # calling it runs none of it
            generator = function(*arguments)
        else:
            generator = await self._calls.call_on_spare_thread(source, function, *arguments)
        await run_generator(
            self._calls,
            source,
            generator,
            lambda value: read_audio_emission(value, source),
            deliver,
        )

    def _sound(self, reply: _Reply) -> None:
        if not reply.sounds:
            reply.sounds = True
            self._say("response_starting")

    def _finish(self, reply: _Reply) -> None:
        self._sound(reply)
        self._flush()
        self._tell(ReplyFinished(self._time(), reply.number, self._played_of(reply)))
        self._carry_out(self._machine.reply_finished(reply.number))

    async def _wait_unwound(self, before: _Reply) -> None:
        """What a reply does at its end, in ``finally``, is done before the next begins."""
        with anyio.move_on_after(UNWINDING_S) as scope:
            await before.unwound.wait()
        if scope.cancelled_caught and not before.unwound.is_set():
            before.unwound.set()  # nobody waits for it again
            logger.warning(
                "session %s: reply %d has not unwound within %g s of being interrupted",
                self._session.id,
                before.number,
                UNWINDING_S,
            )

    # -- inputs

    async def _wait_for_inputs(self, need: InputNeed) -> None:
        """Ask the client for its input, anew for each reply, and wait for the answer.

        Without limit only where there can be no reply without. A client that does not answer is
        asked again, but not waited for again.
        """
        handler = self._handler
        if need is InputNeed.NONE:
            return
        if not handler.args_set.is_set():
            limit: float | None = INPUTS_S if self._client_answers else 0.0
            if need is InputNeed.REQUIRED and not handler.latest_args:
                logger.info("session %s: a reply waits for the client's input", self._session.id)
                limit = None
            await handler.fetch_args()
            with anyio.move_on_after(limit):
                await handler.args_set.wait()
        self._client_answers = handler.args_set.is_set()
        handler.reset()

    # -- interruptions

    def _judge(self, candidate: InterruptionCandidate) -> None:
        if self._handler.confirm_interruption is None:
            self._carry_out(self._machine.confirm(candidate))
            return
        if self._session.media.audio_out:
            self._session.audio_out.pause()
        self._tasks.start_soon(self._ask_judge, candidate)

    async def _ask_judge(self, candidate: InterruptionCandidate) -> None:
        """Ask again and again, with more audio each time, until there is a decision."""
        confirmed = True
        with anyio.move_on_after(UNDECIDED_S):
            while self._machine.candidate is candidate:
                paused = self._machine.user_paused
                decision = await self._decision(candidate, paused)
                if decision is not None or paused:
                    confirmed = decision is not False
                    break
                self._news = anyio.Event()
                await self._news.wait()
        if confirmed:
            self._carry_out(self._machine.confirm(candidate))
        else:
            if self._machine.candidate is candidate:
                self._tell(InterruptionRejected(self._time(), candidate.reply))
            self._carry_out(self._machine.reject(candidate))
        if self._session.media.audio_out and self._machine.candidate is None:
            self._session.audio_out.resume()

    async def _decision(self, candidate: InterruptionCandidate, paused: bool) -> bool | None:
        judge = self._handler.confirm_interruption
        assert judge is not None
        audio = (self._handler.input_sample_rate, self._machine.heard())
        decision: object = await self._calls.call_on_spare_thread(
            "confirm_interruption", judge, Interruption(audio, paused, candidate.reply)
        )
        if isawaitable(decision):  # of a plain function that calls a coroutine function
            with user_code("confirm_interruption"):
                decision = await decision
        if decision is None or isinstance(decision, bool):
            return decision
        raise HandlerContractError(
            f"confirm_interruption must return True, False or None; got {decision!r}"
        )

    # -- stop words

    def _rule_is_deaf(self) -> bool:
        return isinstance(self._rule, StopWordRule) and not self._rule.awake

    def _look_for_stop_word(self) -> None:
        assert isinstance(self._rule, StopWordRule)
        if not self._looking and (candidate := self._rule.candidate()) is not None:
            self._looking = True
            self._tasks.start_soon(self._find_stop_word, self._rule, candidate)

    async def _find_stop_word(self, rule: StopWordRule, candidate: StopWordCandidate) -> None:
        handler = self._handler
        assert isinstance(handler, ReplyOnStopWords)
        audio = (handler.input_sample_rate, candidate.samples)
        end = await self._calls.function(
            self._calls.source("find_stop_word"), handler.find_stop_word, audio
        )
        self._looking = False
        if end is None:
            rule.nothing_in(candidate)
        elif (ago := rule.wake(candidate, end)) is not None:
            self._machine.forget(ago)
            handler.send_stopword()
            self._tell(StopWordHeard(self._time()))

    # -- who is told

    def _time(self) -> float:
        return anyio.current_time() - self._began

    def _say(self, what: str) -> None:
        self._session.messages.send_nowait(encode_message("log", what))

    def _tell(self, event: TurnEvent) -> None:
        logger.debug("session %s: %r", self._session.id, event)
        if self._handler.on_event is not None:
            with user_code("on_event"):
                self._handler.on_event(event)


def _make_rule(handler: ReplyOnPause) -> PauseRule:
    if handler.determines_pauses:
        return OwnAlgorithm(handler)
    kind = StopWordRule if isinstance(handler, ReplyOnStopWords) else SlidingWindow
    return kind(
        handler.input_sample_rate,
        handler.algo_options,
        handler.speech_probability,
        handler.background_db,
    )
