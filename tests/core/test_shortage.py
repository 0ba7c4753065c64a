"""Errors that mean a shortage of the process, and workers that get no thread."""

from __future__ import annotations

import errno
import logging
import threading
from typing import Any

import pytest

from fastrtc_anyio import Overloaded
from fastrtc_anyio._core.shortage import find_shortage
from fastrtc_anyio._core.threads import Worker
from fastrtc_anyio._overload import as_overloaded


def caused_by(cause: BaseException, error: Exception) -> Exception:
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "resource"),
    [
        (OSError(errno.EMFILE, "Too many open files"), "file descriptors"),
        (OSError(errno.ENFILE, "File table overflow"), "file descriptors"),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), "memory"),
        (OSError(errno.ENOBUFS, "No buffer space available"), "memory"),
        (MemoryError(), "memory"),
        (RuntimeError("can't start new thread"), "threads"),
        (caused_by(OSError(errno.EMFILE, ""), ValueError("connect failed")), "file descriptors"),
        (ExceptionGroup("", [ValueError(), MemoryError()]), "memory"),
        (OSError(errno.EADDRINUSE, "Address already in use"), None),
        (RuntimeError("another"), None),
        (OSError("no number"), None),
    ],
)
def test_shortage_is_found_in_error_causes_and_groups(
    error: Exception, resource: str | None
) -> None:
    assert find_shortage(error) == resource


def test_circular_causes_end_the_search() -> None:
    first, second = ValueError(), ValueError()
    first.__cause__, second.__cause__ = second, first
    assert find_shortage(first) is None


def test_shortage_is_logged_once_and_becomes_a_refusal(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fastrtc_anyio._overload._warned", {})
    for _ in range(3):
        refusal = as_overloaded(OSError(errno.EMFILE, "Too many open files"))
        assert isinstance(refusal, Overloaded)
        assert refusal.status_hint == 503
        assert refusal.retry_after == 5
    assert as_overloaded(ValueError()) is None
    assert as_overloaded(overloaded := Overloaded("")) is overloaded
    warnings = [r for r in caplog.records if r.levelno >= logging.WARNING]
    assert [r.getMessage()[:39] for r in warnings] == ["the process is out of file descriptors:"]


async def test_worker_without_a_thread_is_usable_later(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_thread: Any) -> None:
        raise RuntimeError("can't start new thread")

    worker = Worker("worker")
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        for _ in range(2):
            with pytest.raises(RuntimeError, match="new thread"):
                await worker.run(int, "3")
            assert not worker.busy
            assert not worker.alive
    assert await worker.run(int, "3") == 3
    await worker.aclose()
