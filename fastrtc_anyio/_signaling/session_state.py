"""The states of a session, as a table. ``docs/concepts/states.md`` holds the diagram drawn from it.

Two entries are less obvious. ICE may finish before the answer is sent, so ``PEER_CONNECTED`` can
come before ``ANSWERED``. Events of the peer come from another thread and may arrive late, so
``CLOSING`` and ``CLOSED`` absorb them.
"""

from __future__ import annotations

import enum
from collections.abc import Callable

from fastrtc_anyio.errors import Closed, CloseReason, InvalidTransition


class SessionState(enum.Enum):
    """State of a session."""

    NEW = "new"
    NEGOTIATING = "negotiating"
    CONNECTING = "connecting"
    CONNECTED = "connected"
    CLOSING = "closing"
    CLOSED = "closed"


class SessionEvent(enum.Enum):
    """Event that changes the state of a session."""

    OFFER = "offer"
    ANSWERED = "answered"
    PEER_CONNECTED = "peer_connected"
    CLOSE = "close"
    PEER_RELEASED = "peer_released"


S, E = SessionState, SessionEvent

TRANSITIONS: dict[SessionState, dict[SessionEvent, SessionState]] = {
    S.NEW: {E.OFFER: S.NEGOTIATING, E.PEER_CONNECTED: S.CONNECTED, E.CLOSE: S.CLOSING},
    S.NEGOTIATING: {
        E.ANSWERED: S.CONNECTING,
        E.PEER_CONNECTED: S.CONNECTED,
        E.CLOSE: S.CLOSING,
    },
    S.CONNECTING: {E.PEER_CONNECTED: S.CONNECTED, E.CLOSE: S.CLOSING},
    S.CONNECTED: {E.ANSWERED: S.CONNECTED, E.PEER_CONNECTED: S.CONNECTED, E.CLOSE: S.CLOSING},
    S.CLOSING: {
        E.ANSWERED: S.CLOSING,
        E.PEER_CONNECTED: S.CLOSING,
        E.CLOSE: S.CLOSING,
        E.PEER_RELEASED: S.CLOSED,
    },
    S.CLOSED: {
        E.ANSWERED: S.CLOSED,
        E.PEER_CONNECTED: S.CLOSED,
        E.CLOSE: S.CLOSED,
        E.PEER_RELEASED: S.CLOSED,
    },
}


class SessionStateMachine:
    """State of one session, and the first reason for its end.

    ``on_change`` is called with the value of each new state.
    """

    def __init__(self, on_change: Callable[[str], object] = lambda _: None) -> None:
        self.state = SessionState.NEW
        self.closed: Closed | None = None
        self._on_change = on_change

    def handle(self, event: SessionEvent) -> SessionState:
        """Apply an event, and return the new state.

        Raises:
            InvalidTransition: the current state does not accept the event. Nothing changes.
        """
        before = self.state
        try:
            self.state = TRANSITIONS[before][event]
        except KeyError:
            raise InvalidTransition(
                f"{event.value} is not possible while the session is {self.state.value}"
            ) from None
        if self.state is not before:
            self._on_change(self.state.value)
        return self.state

    def close(self, reason: CloseReason, message: str = "") -> Closed:
        """Begin to close, and return the first reason, which stays."""
        if self.closed is None:
            self.closed = Closed(reason, message)
        self.handle(SessionEvent.CLOSE)
        return self.closed
