"""Reads the state of sessions and event loops when Prometheus scrapes them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence

from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric

from fastrtc_anyio._core.host import Lock
from fastrtc_anyio._core.log import logger
from fastrtc_anyio._signaling.session_state import SessionState
from fastrtc_anyio.session import Session

from ._totals import FAMILIES, Totals, add_totals, read_totals
from .observer import LoopLoad, ObservedStream

_LOOPS = ("host", "portal")


class SessionCollector:
    """A collector of ``prometheus_client``. Any thread may scrape it."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._streams: list[ObservedStream] = []
        self._live: dict[str, Session] = {}
        self._ended: Totals = {}
        self._shown: Totals = {}
        """The highest values so far. Counters must not go back, though a session may count on while
        it is read at its end."""

    def add_stream(self, stream: ObservedStream) -> None:
        with self._lock:
            self._streams.append(stream)

    def remove_stream(self, stream: ObservedStream) -> None:
        with self._lock:
            self._streams.remove(stream)

    def add(self, session: Session) -> None:
        with self._lock:
            self._live[session.id] = session

    def end(self, session: Session) -> None:
        """Keep the totals of a session in its place."""
        totals: Totals = {}
        try:
            totals = read_totals(session)
        finally:
            with self._lock:  # so that each scrape counts the session once
                add_totals(self._ended, totals)
                del self._live[session.id]

    def describe(self) -> Iterator[Metric]:
        """Yield the families of :meth:`collect` without values."""
        yield from _make_families((), (), {})

    def collect(self) -> Iterator[Metric]:
        """Yield all families with their values now."""
        with self._lock:
            sessions, totals = list(self._live.values()), dict(self._ended)
            streams = list(self._streams)
        for session in sessions:
            try:
                add_totals(totals, read_totals(session))
            except Exception:  # of a transport of the application
                text = "the statistics of session %s could not be read"
                log_id = session.log_id
                logger.exception(text, log_id, event="observer.failed", session_id=log_id)
        with self._lock:
            for key, number in totals.items():
                self._shown[key] = max(number, self._shown.get(key, 0))
            totals = dict(self._shown)
        states = [session.state for session in sessions]
        yield from _make_families(states, [one.measure_loops() for one in streams], totals)


def _make_families(
    states: Iterable[SessionState], loads: Sequence[Mapping[str, LoopLoad]], totals: Totals
) -> Iterator[Metric]:
    sessions = GaugeMetricFamily("fastrtc_sessions", "Sessions by state.", labels=["state"])
    counts = Counter(states)
    for state in SessionState:
        sessions.add_metric([state.value], counts[state])
    yield sessions
    lag = GaugeMetricFamily("fastrtc_loop_lag_seconds", "Lag of an event loop.", labels=["loop"])
    busy = GaugeMetricFamily("fastrtc_loop_busy_ratio", "Load of an event loop.", labels=["loop"])
    for loop in _LOOPS:
        # Streams of one process share these loops, but for applications with several hosts.
        found = [load[loop] for load in loads if loop in load]
        lag.add_metric([loop], max((load.lag for load in found), default=0.0))
        busy.add_metric([loop], max((load.busy for load in found), default=0.0))
    yield lag
    yield busy
    for family in FAMILIES:
        labels = [family.label] if family.label else []
        metric = CounterMetricFamily(f"fastrtc_{family.name}", family.text, labels=labels)
        for value in family.values:
            metric.add_metric([value] if labels else [], totals.get((family.name, value), 0))
        yield metric
