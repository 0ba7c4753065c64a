"""A description of one session for operators: JSON-ready, and without words of the conversation."""

from __future__ import annotations

import logging
import time
from dataclasses import asdict
from traceback import StackSummary

from fastrtc_anyio._core.session_log import Noted, SessionLog
from fastrtc_anyio._core.stacks import choose_tasks, find_tasks, task_stack, thread_stack
from fastrtc_anyio._core.threads import IDLE
from fastrtc_anyio.session import Session, SessionStatistics

__all__ = ["describe_session"]

_MAX_TASKS = 50
"""Tasks, and threads, with their stacks. A handler may leak thousands, and reading them all would
stop the calls of others."""
_MAX_FRAMES = 50
"""Frames of one stack, half of them at its end."""
_MAX_TEXT = 300
"""Characters of a name, and of a line of code."""


def describe_session(session: Session) -> dict[str, object]:
    """See :meth:`fastrtc_anyio.Stream.describe`. Runs on the session's event loop."""
    now, log, statistics = time.monotonic(), session.log, session.statistics()
    closed = session.closed
    return {
        "session_id": session.log_id,
        "handler": session.driver.name,
        "transport": type(session.peer).__name__,
        "state": session.state.value,
        "age": _round(now - log.began),
        "closed": closed and {"reason": closed.reason.value, "message": closed.message},
        "error": None if session.error is None else type(session.error).__name__,
        "hanging_up": session.is_hanging_up,
        "queues": _describe_queues(statistics),
        "statistics": asdict(statistics),
        "events": [_describe_event(noted, now) for noted in list(log.recent)],
        **_describe_tasks(session),
        "threads": _describe_threads(log),
    }


def _round(seconds: float) -> float:
    return round(seconds, 3)


def _describe_queues(statistics: SessionStatistics) -> dict[str, object]:
    """Return what waits in each queue. Queues that the stream does not have are left out."""
    waiting: dict[str, object] = {}
    if statistics.audio_in is not None:
        waiting["audio_in_seconds"] = _round(statistics.audio_in.buffered_seconds)
    if statistics.audio_out is not None:
        waiting["audio_out_seconds"] = _round(statistics.audio_out.latency)
    if statistics.video_in is not None:
        waiting["video_in_frames"] = statistics.video_in.buffered
    if statistics.video_out is not None:
        waiting["video_out_frames"] = statistics.video_out.buffered
    waiting["messages_in"] = statistics.messages.waiting_in
    waiting["messages_out"] = statistics.messages.waiting_out
    return waiting


def _describe_event(noted: Noted, now: float) -> dict[str, object]:
    level = None if noted.level is None else logging.getLevelName(noted.level)
    return {"ago": _round(now - noted.at), "event": noted.event, "level": level}


def _describe_tasks(session: Session) -> dict[str, object]:
    tasks = find_tasks(session.task_id) if session.task_id else []
    # The session's own task, which is the first, is kept.
    tasks.sort(key=lambda task: task.id != session.task_id)
    shown = choose_tasks(tasks, _MAX_TASKS)
    shown.sort(key=lambda task: (task.id != session.task_id, task.name or ""))
    described = [
        {"name": _cut(task.name or ""), "stack": _format(task_stack(task))} for task in shown
    ]
    return {"task_count": len(tasks), "tasks": described}


def _describe_threads(log: SessionLog) -> list[dict[str, object]]:
    """Return the threads that are inside a call."""
    threads: list[dict[str, object]] = []
    for thread in list(log.threads):
        if len(threads) == _MAX_TASKS:
            break
        if stack := thread_stack(thread, IDLE):
            threads.append({"name": _cut(thread.name), "stack": _format(stack)})
    return threads


def _format(stack: StackSummary) -> list[str]:
    half, more = _MAX_FRAMES // 2, len(stack) - _MAX_FRAMES
    frames = stack if more <= 0 else [*stack[:half], *stack[-half:]]
    lines = [_cut(f"{one.filename}:{one.lineno} in {one.name}: {one.line}") for one in frames]
    if more > 0:
        lines.insert(half, f"... ({more} frames)")
    return lines


def _cut(text: str) -> str:
    return text if len(text) <= _MAX_TEXT else f"{text[:_MAX_TEXT]}..."
