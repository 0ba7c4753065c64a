"""The states of a session, as a table.

::

    NEW -> NEGOTIATING -> CONNECTING -> CONNECTED -> CLOSING -> CLOSED

Two things are not obvious and are in the table for that reason. ICE may finish before the answer
is sent, so ``CONNECTED`` can come before ``ANSWERED``. And events of the peer arrive late, from
another thread: ``CLOSING`` and ``CLOSED`` absorb them.
"""

from __future__ import annotations

import enum

from fastrtc_anyio.errors import Closed, CloseReason, InvalidTransition


class SessionState(enum.Enum):
    """Where a session is in its life."""

    NEW = "new"
    NEGOTIATING = "negotiating"
    CONNECTING = "connecting"
    CONNECTED = "connected"
    CLOSING = "closing"
    CLOSED = "closed"


class SessionEvent(enum.Enum):
    """What moves a session on."""

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
    """A session's state, and the first reason it was given to end."""

    def __init__(self) -> None:
        self.state = SessionState.NEW
        self.closed: Closed | None = None

    def handle(self, event: SessionEvent) -> SessionState:
        """Move on.

        Raises:
            InvalidTransition: the event makes no sense in this state; nothing has changed.
        """
        try:
            self.state = TRANSITIONS[self.state][event]
        except KeyError:
            raise InvalidTransition(
                f"{event.value} is not possible while the session is {self.state.value}"
            ) from None
        return self.state

    def close(self, reason: CloseReason, message: str = "") -> Closed:
        """Begin to close. The first reason stays.

        Returns:
            The reason that counts.
        """
        if self.closed is None:
            self.closed = Closed(reason, message)
        self.handle(SessionEvent.CLOSE)
        return self.closed
