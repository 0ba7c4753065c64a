"""Observers for tests: one that records all calls, and the values of a scrape."""

from __future__ import annotations

from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from fastrtc_anyio import Played, Session, errors
from fastrtc_anyio.observability import Metrics, Observer, Reply, ReplyEnd, Turn
from fastrtc_anyio.observability.observer import refusal_reason

Values = dict[tuple[str, str], float]
"""Values of samples, by their names and by the values of their labels."""


class Recorder(Observer):
    """Records all calls."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []

    def of(self, name: str) -> list[tuple[Any, ...]]:
        return [call[1:] for call in self.calls if call[0] == name]

    @property
    def names(self) -> list[str]:
        return [call[0] for call in self.calls]

    def stream_opened(self, stream: object) -> None:
        self.calls.append(("opened", stream))

    def stream_closed(self, stream: object) -> None:
        self.calls.append(("closed", stream))

    def refused(self, reason: str, error: Exception) -> None:
        self.calls.append(("refused", reason, error))

    def session_admitted(self, session: Session) -> None:
        self.calls.append(("admitted", session))

    def session_connected(self, session: Session, seconds: float) -> None:
        self.calls.append(("connected", session, seconds))

    def session_ended(self, session: Session, seconds: float | None) -> None:
        self.calls.append(("ended", session, seconds))

    def turn_ended(self, session: Session, turn: Turn) -> None:
        self.calls.append(("turn", turn))

    def reply_started(self, session: Session, reply: Reply) -> None:
        self.calls.append(("started", reply))

    def reply_audible(self, session: Session, reply: Reply, latency: float) -> None:
        self.calls.append(("audible", reply, latency))

    def reply_ended(self, session: Session, reply: Reply, end: ReplyEnd, played: Played) -> None:
        self.calls.append(("reply ended", reply, end, played))


def metric_families() -> dict[str, tuple[str, list[str]]]:
    """Return the types and labels of all metrics, by name."""
    metrics = Metrics()
    metrics.refused("error", ValueError())  # the values of its label are not known before
    found = {}
    for family in metrics.registry.collect():
        name = f"{family.name}_total" if family.type == "counter" else family.name
        samples = [one for one in family.samples if not one.name.endswith("_created")]
        labels = {label for sample in samples for label in sample.labels if label != "le"}
        found[name] = (family.type, sorted(labels))
    return found


def refusal_reasons() -> set[str]:
    """Return the reasons of refusals that are not errors of the application."""
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type)]
    refusals = [kind for kind in kinds if issubclass(kind, errors.SignalingError)]
    return {refusal_reason(kind.__new__(kind)) for kind in refusals}


def scrape(metrics: Metrics) -> Values:
    """Return the values of all samples, as prometheus-client's parser reads them."""
    text, _ = metrics.render()
    found: Values = {}
    for family in text_string_to_metric_families(text.decode()):
        for sample in family.samples:
            (label,) = sample.labels.values() or ("",)
            name = sample.name.removeprefix("fastrtc_")
            assert (name, label) not in found
            found[name, label] = sample.value
    return found


def count_of(values: Values, name: str) -> dict[str, float]:
    """Return the values of one name other than zero, by label."""
    return {label: value for (found, label), value in values.items() if found == name and value}
