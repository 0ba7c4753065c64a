"""``Metrics``: counters and histograms of a stream for Prometheus.

Events are counted when they occur. Everything about frames and queues is read from the sessions'
own statistics when the metrics are scraped, so it costs nothing in between.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastrtc_anyio._core.options import check_type
from fastrtc_anyio._media.playout import Played
from fastrtc_anyio._observation import Reply, ReplyEnd, Turn
from fastrtc_anyio.errors import CloseReason
from fastrtc_anyio.session import Session

from .observer import ObservedStream, Observer, refusal_reasons

if TYPE_CHECKING:  # installed by the extra `metrics`
    from prometheus_client import CollectorRegistry, Counter, Histogram

__all__ = ["Metrics"]

_CONNECT = (0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 2.0, 5.0, 10.0)
_DURATION = (1.0, 5.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0)
_LATENCY = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0)
"""Upper bounds of the buckets, in seconds."""


class Metrics(Observer):
    """Metrics for Prometheus. Needs the extra ``metrics``.

    :meth:`Stream.mount` adds the endpoint ``GET /metrics``, which is guarded by ``authenticate`` as
    all others.

    Args:
        registry: the registry of ``prometheus_client`` to register the metrics in. By default a new
            one, without the metrics of the process.
        endpoint: whether ``mount`` adds ``GET /metrics``.

    Raises:
        ImportError: ``prometheus-client`` is not installed.
        TypeError: an argument is unsuitable.
        ValueError: ``registry`` has metrics of these names already.
    """

    def __init__(self, registry: CollectorRegistry | None = None, *, endpoint: bool = True) -> None:
        try:
            from prometheus_client import CollectorRegistry

            from ._collector import SessionCollector
        except ImportError as exc:
            raise ImportError(
                f"Metrics needs more packages: pip install 'fastrtc-anyio[metrics]' ({exc})"
            ) from exc
        check_type("registry", registry, CollectorRegistry, optional=True)
        check_type("endpoint", endpoint, bool)
        self.registry: CollectorRegistry = CollectorRegistry() if registry is None else registry
        """The registry of the metrics."""
        self.endpoint = endpoint
        self._collector = SessionCollector()
        self._make_counters()
        self._make_histograms()
        self.registry.register(self._collector)

    def _make_counters(self) -> None:
        def make(name: str, text: str, *labels: str) -> Counter:
            from prometheus_client import Counter

            return Counter(f"fastrtc_{name}", text, labels, registry=self.registry)

        self._admitted = make("sessions_admitted", "Sessions that were admitted.")
        self._sessions_ended = make("sessions_ended", "Sessions that have ended.", "reason")
        self._refusals = make("refusals", "Requests that were refused.", "reason")
        self._turns = make("turns", "Turns of users that ended with a reply.")
        self._replies_started = make("replies_started", "Replies that were due.")
        self._replies_ended = make("replies_ended", "Replies that have ended.", "end")
        # Series that exist from the beginning, so that the first increase is not lost.
        for closed in CloseReason:
            self._sessions_ended.labels(closed.value)
        for reason in refusal_reasons():
            self._refusals.labels(reason)
        for end in ReplyEnd:
            self._replies_ended.labels(end.value)

    def _make_histograms(self) -> None:
        def make(name: str, text: str, buckets: tuple[float, ...]) -> Histogram:
            from prometheus_client import Histogram

            return Histogram(f"fastrtc_{name}", text, buckets=buckets, registry=self.registry)

        self._connect = make(
            "connect_seconds", "Time from a session's admission to its connection.", _CONNECT
        )
        self._duration = make(
            "session_duration_seconds", "Time from a session's connection to its end.", _DURATION
        )
        self._turn_latency = make(
            "turn_latency_seconds",
            "Audio from the end of speech to the pause.",
            _LATENCY,
        )
        self._reply_latency = make(
            "reply_latency_seconds", "Time from a reply's turn to its first audio.", _LATENCY
        )
        self._response_latency = make(
            "response_latency_seconds", "Turn latency and reply latency of a reply.", _LATENCY
        )

    def stream_opened(self, stream: ObservedStream) -> None:
        self._collector.add_stream(stream)

    def stream_closed(self, stream: ObservedStream) -> None:
        self._collector.remove_stream(stream)

    def refused(self, reason: str, error: Exception) -> None:
        self._refusals.labels(reason).inc()

    def session_admitted(self, session: Session) -> None:
        self._admitted.inc()
        self._collector.add(session)

    def session_connected(self, session: Session, seconds: float) -> None:
        self._connect.observe(seconds)

    def session_ended(self, session: Session, seconds: float | None) -> None:
        reason = CloseReason.CANCELLED if session.closed is None else session.closed.reason
        self._sessions_ended.labels(reason.value).inc()
        if seconds is not None:
            self._duration.observe(seconds)
        self._collector.end(session)

    def turn_ended(self, session: Session, turn: Turn) -> None:
        self._turns.inc()
        if turn.latency is not None:
            self._turn_latency.observe(turn.latency)

    def reply_started(self, session: Session, reply: Reply) -> None:
        self._replies_started.inc()

    def reply_audible(self, session: Session, reply: Reply, latency: float) -> None:
        self._reply_latency.observe(latency)
        if reply.turn is not None and reply.turn.latency is not None:
            self._response_latency.observe(reply.turn.latency + latency)

    def reply_ended(self, session: Session, reply: Reply, end: ReplyEnd, played: Played) -> None:
        self._replies_ended.labels(end.value).inc()

    def render(self) -> tuple[bytes, str]:
        """Return the metrics in Prometheus' text format, and its content type. Thread-safe."""
        from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest

        return generate_latest(self.registry), CONTENT_TYPE_PLAIN_0_0_4
