"""Records of the package's logger: their text, and limits of their number."""

from __future__ import annotations

import io
import logging
import re
import threading
import time
from collections.abc import Generator

import numpy as np
import pytest

from fastrtc_anyio._core.records import LOGGER, Lines, flush_suppressed, forget_records

logger = logging.getLogger(LOGGER)


@pytest.fixture
def log() -> Generator[io.StringIO, None, None]:
    """A log file."""
    file = io.StringIO()
    handler = logging.StreamHandler(file)
    handler.setFormatter(logging.Formatter("%(levelname)s %(message)s"))
    logger.addHandler(handler)
    before, logger.level = logger.level, logging.DEBUG
    yield file
    logger.setLevel(before)
    logger.removeHandler(handler)


class Strange(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


def test_values_are_escaped_and_cut_off(log: io.StringIO) -> None:
    logger.warning("got %s", "a\nERROR forged\x1b[2J\u202e\ud800")
    logger.warning("got %r and %s", ValueError("b\nc"), "x" * 1000)
    logger.warning("got %d of %g%% and %s", np.int64(3), 0.5, None)
    logger.warning("got %s, %r", Strange(), Strange())
    logger.warning("got %(text)s", {"text": "d\r\ne"})
    assert log.getvalue().splitlines() == [
        r"WARNING got a\nERROR forged\x1b[2J\u202e\ud800",
        r"WARNING got ValueError('b\nc') and " + "x" * 300 + "... (1000 characters)",
        "WARNING got 3 of 0.5% and None",
        "WARNING got <Strange>, <Strange>",
        r"WARNING got d\r\ne",
    ]


def test_lines_of_own_texts_are_kept(log: io.StringIO) -> None:
    logger.warning("waits:\n%s", Lines("in f\nin g"))
    assert log.getvalue() == "WARNING waits:\nin f\nin g\n"


def test_text_of_exception_cannot_pass_for_a_record(log: io.StringIO) -> None:
    try:
        raise ValueError("a\nWARNING forged\r\x1b[2J")
    except ValueError:
        logger.exception("failed")
    first, *others = log.getvalue().splitlines()
    assert first == "ERROR failed"
    assert others[0] == "  Traceback (most recent call last):"
    assert others[-2:] == ["  ValueError: a", r"  WARNING forged\r\x1b[2J"]
    assert all(line.startswith("  ") for line in others)


def test_repeated_records_are_counted(log: io.StringIO, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    for i in range(30):
        logger.warning("kind %d", i)
    now += 6
    logger.warning("kind %d", 30)
    logger.warning("kind %d", 31)
    lines = log.getvalue().splitlines()
    assert lines[9:] == [
        "WARNING kind 9",
        "WARNING kind 30 (20 similar records were suppressed)",
    ]
    now += 6
    logger.info("other")  # any record brings the count
    assert log.getvalue().splitlines()[11:] == [
        "WARNING 1 records were suppressed: kind %d",
        "INFO other",
    ]


def test_rest_is_counted_at_the_end(log: io.StringIO) -> None:
    for _ in range(15):
        logger.error("again")
    flush_suppressed()
    flush_suppressed()
    assert log.getvalue().splitlines()[10:] == ["ERROR 5 records were suppressed: again"]


def test_attribute_states_the_number_of_further_records(log: io.StringIO) -> None:
    numbers: list[int] = []

    class Count(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            numbers.append(1 + vars(record)["suppressed"])

    logger.addHandler(handler := Count())
    for _ in range(35):
        logger.error("again")
    flush_suppressed()
    logger.removeHandler(handler)
    assert numbers == [1] * 10 + [25]


def test_one_error_does_not_hide_another(log: io.StringIO) -> None:
    def fail(error: Exception) -> None:
        try:
            raise error
        except Exception:
            logger.exception("failed")

    for _ in range(50):
        fail(ValueError("first"))
    fail(KeyError("second"))
    assert log.getvalue().count("ValueError: first") == 10
    assert log.getvalue().count("KeyError: 'second'") == 1


def test_levels_below_the_loggers_are_not_counted(log: io.StringIO) -> None:
    logger.setLevel(logging.WARNING)
    for _ in range(50):
        logger.info("quiet")
    logger.setLevel(logging.DEBUG)
    logger.info("quiet")
    assert log.getvalue() == "INFO quiet\n"


def test_threads_lose_no_count(log: io.StringIO) -> None:
    def work() -> None:
        for _ in range(500):
            logger.warning("from a thread")

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    flush_suppressed()
    lines = log.getvalue().splitlines()
    plain = [line for line in lines if line == "WARNING from a thread"]
    others = [line for line in lines if line not in plain]
    counts = [int(number) for line in others for number in re.findall(r"\d+", line)]
    assert len(plain) <= 20
    assert len(plain) + sum(counts) + sum("similar" in line for line in lines) == 4000


def test_tests_do_not_affect_each_other(log: io.StringIO) -> None:
    for _ in range(3):
        for _ in range(20):
            logger.warning("the same in every test")
        forget_records()
    assert len(log.getvalue().splitlines()) == 30
