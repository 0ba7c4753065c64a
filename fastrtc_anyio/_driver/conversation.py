"""A conversation: the turns of a :class:`.ReplyOnPause` and its user.

Theory of operation. One task listens: it receives each hop of audio with the probability that it
is speech (:mod:`.listening`), passes both to the turn machine, and carries out the machine's steps
at once. Each reply is a task (:mod:`.replies`), and so is each question to a judge
(:mod:`.interruptions`).

All code that touches the machine is synchronous and runs on the event loop's thread, so it needs no
lock. Slow code - a model, a judge, a custom algorithm, a plain generator - runs on threads. A late
result is recognised as late: by the machine, or by the cancelled scope that awaits it.
"""

from __future__ import annotations

import math
from contextlib import ExitStack, suppress

from anyio import EndOfStream, create_task_group, current_time
from anyio.abc import TaskGroup
from anyio.lowlevel import checkpoint

from fastrtc_anyio._core.gate import Gate
from fastrtc_anyio._core.groups import collapse_groups
from fastrtc_anyio._core.log import logger
from fastrtc_anyio._media.convert import AudioConverter
from fastrtc_anyio._media.frames import FRAMES_PER_SECOND, AudioFrame, Int16Array, split_frame
from fastrtc_anyio._media.playout import Played
from fastrtc_anyio._media.resample import Rechunker
from fastrtc_anyio._observation import Turn
from fastrtc_anyio._user_code import user_code
from fastrtc_anyio.conversation.custom_rule import CustomPauseRule
from fastrtc_anyio.conversation.events import (
    InterruptionRejected,
    ReplyFinished,
    ReplyInterrupted,
    ReplyStarted,
    StopWordHeard,
    TurnEvent,
    UserStartedSpeaking,
    UserStoppedSpeaking,
)
from fastrtc_anyio.conversation.handlers import ReplyOnPause, ReplyOnStopWords
from fastrtc_anyio.conversation.machine import TurnMachine
from fastrtc_anyio.conversation.pause_rules import PauseRule, SlidingWindow
from fastrtc_anyio.conversation.stop_words import StopWordCandidate, StopWordRule
from fastrtc_anyio.conversation.turn_table import (
    CandidateRejected,
    Interrupted,
    InterruptionCandidate,
    ReplyDue,
    ReplyEnded,
    SpeechStarted,
    SpeechStopped,
    TurnState,
    TurnStep,
)
from fastrtc_anyio.speech.vad import Vad

from .interruptions import Interruptions
from .listening import Listener, SharedListener, can_share, open_shared_listener
from .replies import Replies
from .run import HandlerRun

_AFTER_SPEECH_S = 1.0
"""Seconds after the last speech has left the window in which silence may still matter."""


async def converse(run: HandlerRun[ReplyOnPause]) -> None:
    """Take turns with the user until the session ends."""
    with collapse_groups(), ExitStack() as stack:
        async with create_task_group() as tasks:
            conversation = Conversation(run, tasks)
            stack.callback(conversation.release)
            run.handler.set_trigger(conversation.triggered.set, conversation.stop_reply)
            try:
                conversation.greet()
                tasks.start_soon(conversation.wait_for_triggers)
                if run.session.media.audio_in:
                    await conversation.listen()
            finally:
                run.handler.set_trigger(None)


class Conversation:
    """Listens to the user, feeds the turn machine and carries out its steps."""

    def __init__(self, run: HandlerRun[ReplyOnPause], tasks: TaskGroup) -> None:
        handler = run.handler
        self._run = run
        self._handler = handler
        self._calls = run.calls
        self._tasks = tasks
        self._rule = _make_rule(handler)
        self._machine = TurnMachine(
            handler.input_sample_rate,
            handler.algo_options,
            rule=self._rule,
            can_interrupt=handler.can_interrupt,
            interrupt_on=handler.interrupt_on,
            judged=handler.confirm_interruption is not None,
            pre_roll_s=handler.pre_roll_s,
        )
        self._began = current_time()
        self._replies = Replies(run, tasks, self._finish_reply)
        self._interruptions = Interruptions(run, tasks, self._machine, self._carry_out)
        self.triggered = Gate()
        """Opened by a request for a reply. Any thread may open it."""
        self._searching = False
        self._speech_at = -math.inf  # place of the last hop of speech
        self._shared: SharedListener | None = None

    def release(self) -> None:
        """Free the memory: no reference cycle is left. Its tasks must have ended."""
        self._run.on_played = lambda: None
        del self._replies, self._interruptions

    def greet(self) -> None:
        """Start the greeting, if there is one."""
        call = self._handler.greeting_call()
        if call is not None:
            self._carry_out(self._machine.reply_started())
            number = self._machine.reply
            self._tell(ReplyStarted(self._now, number, 0.0))
            self._replies.start(number, call)

    async def wait_for_triggers(self) -> None:
        """Start the replies that the application requests."""
        while True:
            await self.triggered.wait()
            self.triggered.clear()
            self._carry_out(self._machine.trigger_response())

    def stop_reply(self, number: int) -> None:
        """Cancel a reply, unless it has ended or the session hangs up."""
        replying = self._machine.state in (TurnState.REPLYING, TurnState.INTERRUPTING)
        if number == self._machine.reply and replying and not self._run.ending:
            self._tell(ReplyInterrupted(self._now, number, *self._replies.interrupt()))
            self._carry_out(self._machine.reply_finished(number))

    async def listen(self) -> None:
        """Process the client's audio until the connection ends."""
        if isinstance(self._rule, CustomPauseRule):
            await self._listen_with_rule(self._rule)
            return
        vad, audio_in = self._handler.vad, self._run.session.audio_in
        if not can_share(audio_in, vad):
            await self._listen_with_model(vad)
            return
        rate, speech_probability = self._handler.input_sample_rate, self._handler.speech_probability
        with open_shared_listener(audio_in, rate, vad, speech_probability) as shared:
            await self._listen_to(shared)

    async def _listen_to(self, shared: SharedListener) -> None:
        """Receive hops from the thread that listens for all conversations."""
        self._shared = shared
        with suppress(EndOfStream):
            while True:
                self._update_listening()
                for hop, probability in await shared.receive():
                    self._push(hop, probability)

    def _update_listening(self) -> None:
        """Tell the shared thread what matters from now on."""
        shared, listening = self._shared, self._machine.state is TurnState.LISTENING
        if shared is not None:
            shared.fills_gaps = self._silence_matters
            shared.idle = listening and not shared.fills_gaps

    async def _listen_with_model(self, vad: Vad) -> None:
        """Compute the probability of speech with the voice-activity model."""
        listener = Listener(self._handler.input_sample_rate, vad)
        source = f"{type(vad).__name__}.probability"
        judge = listener.stream.probability
        try:
            while (frame := await self._receive()) is not None:
                for i, piece in enumerate(split_frame(frame)):
                    if i:
                        await checkpoint()
                    for hop, window in listener.feed(piece):
                        if vad.blocking:
                            probability = await self._calls.function(source, judge, window)
                        else:
                            with user_code(source):
                                probability = judge(window)
                        self._push(hop, probability)
        finally:
            listener.close()

    async def _receive(self) -> AudioFrame | None:
        """Wait for audio, or for silence in its place if that can end speech; None at the end."""
        audio_in = self._run.session.audio_in
        try:
            if self._silence_matters:
                return await audio_in.receive_or_silence()
            return await audio_in.receive()
        except EndOfStream:
            return None

    @property
    def _silence_matters(self) -> bool:
        """Whether silence can end speech."""
        machine, window = self._machine, self._handler.algo_options.audio_chunk_duration
        quiet = (machine.now - self._speech_at) / self._handler.input_sample_rate - window
        # Also for a stop-word rule, which ends speech that the machine ignores, and which may have
        # speech to report after a search.
        return machine.user_speaks or self._searching or quiet < _AFTER_SPEECH_S

    async def _listen_with_rule(self, rule: CustomPauseRule) -> None:
        """Call a subclass's ``determine_pause`` after every 20 ms."""
        source = self._calls.source("determine_pause")
        convert = AudioConverter(self._handler.input_sample_rate, 1)
        size = self._handler.input_sample_rate // FRAMES_PER_SECOND
        rechunk = Rechunker(size, 1, copy=False)
        async for frame in self._run.session.audio_in.in_real_time():
            for samples in (
                s for piece in split_frame(frame) for s in rechunk.push(convert(piece))
            ):
                if self._handler.can_interrupt or self._machine.state is not TurnState.REPLYING:
                    rule.responding = self._machine.state is TurnState.REPLYING
                    await self._calls.function(source, rule.judge, samples)
                self._push(samples, 0.0)  # the rule has its verdict and ignores the probability

    def _push(self, hop: Int16Array, probability: float) -> None:
        if probability >= self._handler.speech_probability:
            self._speech_at = self._machine.now
            self._handler.speech_detected = True
        self._carry_out(self._machine.push(hop, probability))
        rule = self._rule
        # One search at a time: a recogniser may be slower than the audio.
        if isinstance(rule, StopWordRule) and not self._searching:
            candidate = rule.candidate()
            if candidate is not None:
                self._searching = True
                self._tasks.start_soon(self._find_stop_word, rule, candidate)
        self._interruptions.notify()

    def _carry_out(self, steps: list[TurnStep]) -> None:
        for step in steps:
            # The user cannot interrupt a goodbye. The machine does not know it is one.
            if self._run.ending and not isinstance(step, CandidateRejected):
                continue
            match step:
                case SpeechStarted():
                    self._handler.speech_detected = True  # also by a custom rule
                    self._run.log("started_talking")
                    self._tell(UserStartedSpeaking(self._now))
                case SpeechStopped():
                    self._tell(UserStoppedSpeaking(self._now))
                case InterruptionCandidate():
                    self._interruptions.ask(step)
                case Interrupted():
                    played, text = self._replies.interrupt()
                    self._tell(ReplyInterrupted(self._now, step.reply, played, text))
                case CandidateRejected():
                    self._tell(InterruptionRejected(self._now, step.reply))
                case ReplyDue():
                    self._run.log("pause_detected")
                    seconds = step.utterance.shape[1] / self._handler.input_sample_rate
                    self._tell(ReplyStarted(self._now, step.reply, seconds))
                    self._report_turn(step)
                    self._replies.start(step.reply, self._handler.reply_call(step.utterance))
                case ReplyEnded():
                    pass  # _finish_reply has reported it, with the audio played
        if steps:
            self._update_listening()

    def _report_turn(self, due: ReplyDue) -> None:
        """Report the end of the user's turn to the observers, if there are any."""
        if (observation := self._run.session.observation) is not None:
            rate, now = self._handler.input_sample_rate, self._machine.now
            latency = None if due.silence is None else due.silence / rate
            seconds = due.utterance.shape[1] / rate
            observation.turn_ended(Turn(due.reply, seconds, (now - due.started_at) / rate, latency))

    def _finish_reply(self, number: int, played: Played, text: str) -> None:
        # Even if the machine has counted a goodbye as interrupted, it was played to its end.
        self._tell(ReplyFinished(self._now, number, played, text))
        self._carry_out(self._machine.reply_finished(number))

    @property
    def _now(self) -> float:
        return current_time() - self._began

    def _tell(self, event: TurnEvent) -> None:
        """Pass an event to the application."""
        logger.debug("session %s: %r", self._run.session.log_id, event, event="turn.event")
        self._run.session.log.note(f"turn.{type(event).__name__}")
        if self._handler.on_event is not None:
            with user_code("on_event"):
                self._handler.on_event(event)

    async def _find_stop_word(self, rule: StopWordRule, candidate: StopWordCandidate) -> None:
        handler = self._handler
        assert isinstance(handler, ReplyOnStopWords)
        audio = (handler.input_sample_rate, candidate.samples)
        end = await self._calls.function(
            self._calls.source("find_stop_word"), handler.find_stop_word, audio
        )
        self._searching = False
        if end is None:
            rule.reject(candidate)
        elif (ago := rule.wake(candidate, end)) is not None:
            self._machine.forget(ago)  # the pre-roll must not contain the stop word
            self._speech_at = self._machine.now  # the rule may have speech to report
            with user_code(self._calls.source("send_stopword")):
                handler.send_stopword()
            self._tell(StopWordHeard(self._now))


def _make_rule(handler: ReplyOnPause) -> PauseRule:
    if handler.determines_pauses:
        return CustomPauseRule(handler)
    kind = StopWordRule if isinstance(handler, ReplyOnStopWords) else SlidingWindow
    return kind(
        handler.input_sample_rate,
        handler.algo_options,
        handler.speech_probability,
        handler.background_db,
    )
