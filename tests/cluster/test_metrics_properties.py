"""Merged metrics: nothing is lost or changed, and each metric is described once."""

from __future__ import annotations

from collections import Counter as Count

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Summary
from prometheus_client.exposition import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from fastrtc_anyio.cluster._metrics import UP, MalformedMetrics, label_metrics, merge_metrics

VALUES = st.floats() | st.integers(-5, 5).map(float)
TEXTS = st.text(st.sampled_from('a \\"{}=,#\n\té'), max_size=8)
KINDS = {"c": Counter, "g": Gauge, "h": Histogram, "s": Summary}


@st.composite
def registries(draw: st.DrawFn) -> str:
    """The metrics of a process: of all kinds, with any values and labels."""
    registry = CollectorRegistry()
    for name, kind in KINDS.items():
        for suffix in draw(st.sets(st.sampled_from(["", "_x"]))):
            labels = draw(st.sampled_from([[], ["process"], ["le_", "process"], ["reason"]]))
            text = draw(TEXTS)
            metric = kind(f"app_{name}{suffix}", text, labels, registry=registry)
            for values in draw(st.lists(st.tuples(*[TEXTS] * len(labels)), max_size=2)):
                one = metric.labels(*values) if labels else metric
                if isinstance(one, Counter):
                    one.inc(abs(draw(VALUES)))
                elif isinstance(one, Gauge):
                    one.set(draw(VALUES))
                else:
                    one.observe(draw(VALUES))
    return generate_latest(registry).decode()


def read(text: str, process: str | None = None) -> Count[object]:
    """All samples of a text, and those of a process as they should be merged."""
    found: Count[object] = Count()
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = dict(sample.labels)
            if process is not None:
                if "process" in labels:
                    labels["exported_process"] = labels.pop("process")
                labels["process"] = process
            key = (family.name, family.type, sample.name, frozenset(labels.items()))
            found[*key, repr(float(sample.value))] += 1
    return found


@given(registries(), registries())
def test_samples_of_all_processes_are_kept(first: str, second: str) -> None:
    texts = {"one": first, "two": second}
    labelled = {name: label_metrics(text, name) for name, text in texts.items()}
    merged = merge_metrics({**labelled, "silent": None})
    samples = read(merged)
    up = {frozenset({("process", name)}): value for name, value in [("one", 1), ("two", 1)]}
    up[frozenset({("process", "silent")})] = 0
    for labels, value in up.items():
        assert samples.pop((UP, "gauge", UP, labels, repr(float(value)))) == 1
    assert samples == read(first, "one") + read(second, "two")
    described = [line for line in merged.splitlines() if line.startswith("# TYPE")]
    assert len({line.split()[2] for line in described}) == len(described)


def test_samples_are_copied_as_they_are() -> None:
    text = 'a{le="0.5",} 1.50e+3 1700000000000\n# a comment\nb NaN\n\n  c { x = "}\\"" }  0x1p3\n'
    assert merge_metrics({"w": label_metrics(text, "w")}).splitlines() == [
        'a{le="0.5",process="w"} 1.50e+3 1700000000000',
        'b{process="w"} NaN',
        'c{x="}\\"",process="w"} 0x1p3',
        "# HELP fastrtc_process_up Whether a process has answered this scrape.",
        "# TYPE fastrtc_process_up gauge",
        'fastrtc_process_up{process="w"} 1',
    ]


@pytest.mark.parametrize("line", ["<html>", 'a{b="c} 1', "a", "a{b=1} 2", '{"a.b"} 1', "1a 2"])
def test_other_texts_are_refused(line: str) -> None:
    with pytest.raises(MalformedMetrics, match="expected a sample of a metric; got"):
        label_metrics(f"x 1\n{line}\n", "w")
