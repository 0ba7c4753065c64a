"""``Tracing``: spans of sessions, turns and replies for OpenTelemetry."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from fastrtc_anyio._core.options import check_type, short_repr
from fastrtc_anyio._media.playout import Played
from fastrtc_anyio._observation import Reply, ReplyEnd, Turn
from fastrtc_anyio.errors import CloseReason
from fastrtc_anyio.session import Session

from .observer import Observer

if TYPE_CHECKING:  # installed by the extra `otel`
    from opentelemetry.trace import Span, TracerProvider

__all__ = ["Tracing"]


@dataclass
class _Spans:
    """The open spans of one session."""

    session: Span
    turns: dict[int, Span] = field(default_factory=dict)
    """By the numbers of the replies."""
    replies: dict[int, Span] = field(default_factory=dict)


class Tracing(Observer):
    """Spans for OpenTelemetry. Needs the extra ``otel``, and a tracer provider to export them.

    A span ``fastrtc.session`` contains a span ``fastrtc.turn`` for each turn of the user, and this
    one a span ``fastrtc.reply``. The handler's code runs in the span of its session, and a reply
    function in the span of its reply: spans of libraries that they call become children of these.

    Args:
        tracer_provider: creates the tracer; by default the global one.
        clock: returns the time of the spans, in nanoseconds since the epoch.

    Raises:
        ImportError: ``opentelemetry-api`` is not installed.
        TypeError: an argument is unsuitable.
    """

    def __init__(
        self,
        tracer_provider: TracerProvider | None = None,
        *,
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        try:
            from opentelemetry import trace
        except ImportError as exc:
            raise ImportError(
                f"Tracing needs more packages: pip install 'fastrtc-anyio[otel]' ({exc})"
            ) from exc
        check_type("tracer_provider", tracer_provider, trace.TracerProvider, optional=True)
        if not callable(clock):
            raise TypeError(f"clock must be a function; got {short_repr(clock)}")
        self._trace = trace
        self._tracer = trace.get_tracer("fastrtc_anyio", tracer_provider=tracer_provider)
        self._clock = clock
        self._live: dict[str, _Spans] = {}

    def session_admitted(self, session: Session) -> None:
        # A child of the span of the request that began the session, if there is one.
        span = self._tracer.start_span(
            "fastrtc.session",
            attributes={"fastrtc.session.id": session.log_id},
            start_time=self._clock(),
        )
        self._live[session.id] = _Spans(span)

    def session_connected(self, session: Session, seconds: float) -> None:
        span = self._live[session.id].session
        span.set_attribute("fastrtc.session.connect_seconds", seconds)
        span.add_event("fastrtc.connected", timestamp=self._clock())

    def session_ended(self, session: Session, seconds: float | None) -> None:
        spans, now = self._live.pop(session.id), self._clock()
        span = spans.session
        reason = CloseReason.CANCELLED if session.closed is None else session.closed.reason
        try:
            span.set_attribute("fastrtc.session.close_reason", reason.value)
            if reason is CloseReason.HANDLER_ERROR:
                span.set_status(self._trace.StatusCode.ERROR)
                if session.error is not None:  # its text may raise another error
                    span.record_exception(session.error, timestamp=now)
        finally:
            for one in (*spans.replies.values(), *spans.turns.values(), span):
                one.end(now)

    def turn_ended(self, session: Session, turn: Turn) -> None:
        spans = self._live[session.id]
        span = self._tracer.start_span(
            "fastrtc.turn",
            context=self._trace.set_span_in_context(spans.session),
            attributes={
                "fastrtc.turn.number": turn.number,
                "fastrtc.turn.utterance_seconds": turn.utterance_s,
            },
            start_time=self._clock() - round(turn.age_s * 1e9),
        )
        if turn.latency is not None:
            span.set_attribute("fastrtc.turn.latency_seconds", turn.latency)
        spans.turns[turn.number] = span

    def reply_started(self, session: Session, reply: Reply) -> None:
        spans = self._live[session.id]
        parent = spans.turns.get(reply.number, spans.session)
        spans.replies[reply.number] = self._tracer.start_span(
            "fastrtc.reply",
            context=self._trace.set_span_in_context(parent),
            attributes={"fastrtc.reply.number": reply.number},
            start_time=self._clock(),
        )

    def reply_audible(self, session: Session, reply: Reply, latency: float) -> None:
        span = self._live[session.id].replies[reply.number]
        span.set_attribute("fastrtc.reply.latency_seconds", latency)
        span.add_event("fastrtc.audible", timestamp=self._clock())

    def reply_ended(self, session: Session, reply: Reply, end: ReplyEnd, played: Played) -> None:
        spans, now = self._live[session.id], self._clock()
        span = spans.replies.pop(reply.number)
        span.set_attribute("fastrtc.reply.end", end.value)
        span.set_attribute("fastrtc.reply.played_seconds", played.seconds)
        if end is ReplyEnd.FAILED:
            span.set_status(self._trace.StatusCode.ERROR)
        span.end(now)
        if (turn := spans.turns.pop(reply.number, None)) is not None:
            turn.end(now)

    def in_session(self, session: Session) -> AbstractContextManager[object]:
        return self._use(self._live[session.id].session)

    def in_reply(self, session: Session, reply: Reply) -> AbstractContextManager[object]:
        return self._use(self._live[session.id].replies[reply.number])

    def _use(self, span: Span) -> AbstractContextManager[object]:
        return self._trace.use_span(
            span, end_on_exit=False, record_exception=False, set_status_on_exception=False
        )
