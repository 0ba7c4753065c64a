"""How many records pass, how many are counted, and which characters they have."""

from __future__ import annotations

import logging
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from fastrtc_anyio._core.records import (
    DEBUG_PER_MINUTE,
    PER_MINUTE,
    RateLimit,
    escape,
    escape_lines,
)

MINUTE = 60.0
steps = st.lists(
    st.tuples(
        st.sampled_from([0.0, 0.001, 0.5, 3.0, 6.0, 59.0, 61.0]), st.sampled_from(["a %s", "b"])
    ),
    max_size=300,
)


def count_most(times: list[float]) -> int:
    """The most records in any minute."""
    return max((sum(start <= t < start + MINUTE for t in times) for start in times), default=0)


@given(steps)
def test_no_minute_has_more_records_than_the_limit_and_none_is_lost(
    steps: list[tuple[float, str]],
) -> None:
    limit, now = RateLimit(), 1000.0
    logged: dict[str, list[float]] = {"a %s": [], "b": []}
    seen: Counter[str] = Counter()
    counted: Counter[str] = Counter()
    for step, message in steps:
        now += step
        seen[message] += 1
        count = limit.admit("x", logging.WARNING, message, now)
        if count is not None:
            logged[message].append(now)
            counted[message] += 1 + count
        for report in limit.collect(now):
            logged[report.message].append(now)
            counted[report.message] += report.count
    for report in limit.clear():
        counted[report.message] += report.count
    assert counted == seen
    assert all(count_most(times) <= PER_MINUTE for times in logged.values())


@given(st.integers(1, 5000), st.sampled_from([logging.DEBUG, logging.INFO, logging.ERROR]))
def test_first_records_pass_at_once(number: int, level: int) -> None:
    limit = RateLimit()
    passed = [limit.admit("x", level, "m", 5.0) for _ in range(number)]
    allowed = (DEBUG_PER_MINUTE if level == logging.DEBUG else PER_MINUTE) // 2
    assert passed == [0] * min(number, allowed) + [None] * max(0, number - allowed)


@given(st.lists(st.integers(0, 40), max_size=400))
def test_memory_is_bounded_and_forgotten_kinds_are_reported(kinds: list[int]) -> None:
    limit = RateLimit(max_kinds=8)
    counted = 0
    for kind in kinds:
        count = limit.admit("x", logging.INFO, f"m{kind}", 5.0)
        counted += 0 if count is None else 1 + count
        assert len(limit._kinds) <= 8
        assert set(limit._suppressing) <= set(limit._kinds)
        counted += sum(report.count for report in limit.collect(5.0))
    counted += sum(report.count for report in limit.clear())
    assert counted == len(kinds)


@given(st.text(), st.integers(1, 50))
def test_escaped_text_is_one_short_printable_line(text: str, limit: int) -> None:
    escaped = escape(text, limit)
    assert escaped.isprintable()
    escaped.encode()
    assert len(escaped) <= 10 * limit + len("... (1000000 characters)")
    assert not (text.isprintable() and len(text) <= limit) or escaped == text


@given(st.text(st.sampled_from("a\n\r\x1b\x85\u2028\ud800")), st.sampled_from(["", "  "]))
def test_lines_keep_their_breaks_alone(text: str, indent: str) -> None:
    escaped = escape_lines(text, indent)
    lines = escaped.splitlines()
    assert all(line.startswith(indent) and line.isprintable() for line in lines)
    assert escaped.count("\n") == text.count("\n")


def test_long_texts_lose_their_middle() -> None:
    lines = escape_lines("\n".join(f"line {i}" for i in range(1000))).split("\n")
    assert lines[0] == "line 0"
    assert lines[100] == "... (800 lines)"
    assert lines[-1] == "line 999"
    assert len(lines) == 201
