"""Whose session the running code belongs to: a context variable, in tasks and threads alike."""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ._signaling.messages import encode_message

if TYPE_CHECKING:
    from .session import Session

__all__ = ["Context", "Warning", "current_session", "get_current_context"]

current_session: ContextVar[Session] = ContextVar("current_session")
"""Set in the tasks of a session and in the threads its handler runs on."""


@dataclass(frozen=True)
class Context:
    """Where the calling code runs."""

    webrtc_id: str
    """The client's own name for its connection, or the session's id if it gave none."""
    websocket: Any = None
    """The WebSocket, as the web framework has it, if the client or its carrier came by one."""


def get_current_context() -> Context:
    """Tell a handler which connection it serves; in its tasks and on its threads.

    Raises:
        RuntimeError: called elsewhere.
    """
    session = _session("get_current_context()")
    return Context(session.alias or session.id, session.websocket)


def Warning(message: str = "Warning issued.") -> None:  # noqa: N802 - FastRTC's name
    """Show the client a warning. Unlike :class:`WebRTCError` it ends nothing.

    Raises:
        RuntimeError: called outside a handler.
    """
    _session("Warning()").messages.send_nowait(encode_message("warning", str(message)))


def _session(what: str) -> Session:
    session = current_session.get(None)
    if session is None:
        raise RuntimeError(f"{what} is for handlers: no session is being served here")
    return session
