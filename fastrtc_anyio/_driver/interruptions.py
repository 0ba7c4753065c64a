"""Interruptions of a reply, decided by the application's judge.

Playout is paused from the moment the user speaks over a reply until the judge decides. An undecided
judge gets another question once there is more audio. A decision is late if the reply has ended
meanwhile, or if the utterance has reached its maximum length; the turn machine ignores late
decisions.
"""

from __future__ import annotations

from collections.abc import Callable
from inspect import isawaitable

import anyio
from anyio.abc import TaskGroup

from fastrtc_anyio._user_code import user_code
from fastrtc_anyio.conversation.events import Interruption, InterruptionJudge
from fastrtc_anyio.conversation.handlers import ReplyOnPause
from fastrtc_anyio.conversation.machine import TurnMachine
from fastrtc_anyio.conversation.turn_table import InterruptionCandidate, TurnStep
from fastrtc_anyio.errors import HandlerContractError

from .run import HandlerRun

UNDECIDED_S = 2.0
"""Seconds within which a judge must decide; longer than any "uh-huh"."""


class Interruptions:
    """Asks the judge about candidates.

    The turn machine receives the decisions. ``carry_out`` carries out the steps that follow.
    """

    def __init__(
        self,
        run: HandlerRun[ReplyOnPause],
        tasks: TaskGroup,
        machine: TurnMachine,
        carry_out: Callable[[list[TurnStep]], None],
    ) -> None:
        self._run = run
        self._session = run.session
        self._tasks = tasks
        self._machine = machine
        self._carry_out = carry_out
        self._more_audio = anyio.Event()

    def notify(self) -> None:
        """Report that the machine has processed more audio."""
        self._more_audio.set()

    def ask(self, candidate: InterruptionCandidate) -> None:
        """Pause playout and ask the judge about a candidate."""
        judge = self._run.handler.confirm_interruption
        assert judge is not None  # otherwise the machine raises no candidates
        if self._session.media.audio_out:
            self._session.audio_out.pause()
        self._tasks.start_soon(self._judge, candidate, judge)

    async def _judge(self, candidate: InterruptionCandidate, judge: InterruptionJudge) -> None:
        confirmed = await self._is_confirmed(candidate, judge)
        answer = self._machine.confirm if confirmed else self._machine.reject
        self._carry_out(answer(candidate))
        # Another candidate may have paused playout again.
        if self._session.media.audio_out and self._machine.candidate is None:
            self._session.audio_out.resume()

    async def _is_confirmed(
        self, candidate: InterruptionCandidate, judge: InterruptionJudge
    ) -> bool:
        """Ask until the judge decides. Without a decision the user is right."""
        with anyio.move_on_after(UNDECIDED_S):
            while self._machine.candidate is candidate:
                # Read before the call: the user may pause while the judge thinks, and the judge
                # then has another chance.
                paused = self._machine.user_paused
                audio = (self._run.handler.input_sample_rate, self._machine.heard())
                decision = await self._ask(judge, Interruption(audio, paused, candidate.reply))
                if decision is not None or paused:
                    return decision is not False
                self._more_audio = anyio.Event()
                await self._more_audio.wait()
        return True

    async def _ask(self, judge: InterruptionJudge, question: Interruption) -> bool | None:
        decision: object = await self._run.calls.call_on_spare_thread(
            "confirm_interruption", judge, question
        )
        if isawaitable(decision):  # from a plain function that calls a coroutine function
            with user_code("confirm_interruption"):
                decision = await decision
        if decision is None or isinstance(decision, bool):
            return decision
        raise HandlerContractError(
            f"confirm_interruption must return True, False or None; got {decision!r}"
        )
