"""The state machine of a session under any sequence of events."""

from __future__ import annotations

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from fastrtc_anyio import CloseReason, InvalidTransition, SessionState
from fastrtc_anyio._signaling.session_state import TRANSITIONS, SessionEvent, SessionStateMachine

ORDER = list(SessionState)


class AnyOrderOfEvents(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.machine = SessionStateMachine()
        self.before = self.machine.state
        self.first: CloseReason | None = None

    @rule(event=st.sampled_from([e for e in SessionEvent if e is not SessionEvent.CLOSE]))
    def handle_event(self, event: SessionEvent) -> None:
        self.before = self.machine.state
        if event in TRANSITIONS[self.before]:
            assert self.machine.handle(event) is TRANSITIONS[self.before][event]
        else:
            with pytest.raises(InvalidTransition, match=event.value):
                self.machine.handle(event)
            assert self.machine.state is self.before

    @rule(reason=st.sampled_from(CloseReason))
    def close(self, reason: CloseReason) -> None:
        self.before = self.machine.state
        self.first = self.first or reason
        assert self.machine.close(reason).reason is self.first

    @precondition(lambda self: self.first is not None)
    @rule()
    def release_peer(self) -> None:
        self.before = self.machine.state
        assert self.machine.handle(SessionEvent.PEER_RELEASED) is SessionState.CLOSED

    @invariant()
    def first_reason_is_kept(self) -> None:
        got = self.machine.closed
        assert (got.reason if got else None) is self.first

    @invariant()
    def state_never_goes_back(self) -> None:
        assert ORDER.index(self.machine.state) >= ORDER.index(self.before)


TestAnyOrderOfEvents = AnyOrderOfEvents.TestCase


def test_every_state_has_transitions_and_can_close() -> None:
    assert set(TRANSITIONS) == set(SessionState)
    for state, row in TRANSITIONS.items():
        assert row[SessionEvent.CLOSE] in (SessionState.CLOSING, SessionState.CLOSED), state


def test_closing_states_ignore_late_events() -> None:
    for event in (SessionEvent.ANSWERED, SessionEvent.PEER_CONNECTED, SessionEvent.CLOSE):
        assert TRANSITIONS[SessionState.CLOSED][event] is SessionState.CLOSED
        assert TRANSITIONS[SessionState.CLOSING][event] is SessionState.CLOSING
