"""Inspect a waiting coroutine: where it waits, and whether that operation can fail."""

from __future__ import annotations

from types import FrameType

_LIBRARIES = frozenset({"anyio", "asyncio", "trio"})

# Functions that cannot fail. A lock already has its new owner when the waiter wakes, a shielded
# checkpoint follows a completed operation, and a task group must wait for its tasks. An error there
# would be an error of the library: it would lose received values, leave locks held, and orphan
# tasks.
_CANNOT_FAIL = frozenset(
    {
        "__aexit__",
        "_nested_child_finished",
        "acquire",
        "acquire_on_behalf_of",
        "cancel_shielded_checkpoint",
        "start",
        "wait_for",
    }
)
_CANNOT_FAIL_METHODS = frozenset({"Condition.wait"})


def _is_library(frame: FrameType) -> bool:
    return str(frame.f_globals.get("__name__", "")).partition(".")[0] in _LIBRARIES


def can_fail(frames: list[FrameType], sent: object) -> bool:
    """Whether the operation that the innermost frame outside the libraries awaits can fail."""
    for at in reversed(range(len(frames))):
        frame = frames[at]
        if not _is_library(frame):
            return True
        code = frame.f_code
        # In trio it is also the second half of an ordinary checkpoint.
        caller = frames[at - 1].f_code.co_name if at else ""
        if code.co_name == "cancel_shielded_checkpoint" and caller == "checkpoint":
            return True
        if code.co_name in _CANNOT_FAIL or code.co_qualname in _CANNOT_FAIL_METHODS:
            return False
        returned = hasattr(getattr(sent, "value", None), "unwrap")
        if code.co_name == "to_thread_run_sync" and not returned:
            return False  # the thread asked for a call and would wait for its result forever
    return True


def describe(name: str, frames: list[FrameType]) -> str:
    """Name the task and the innermost line of code outside the libraries."""
    ours = [frame for frame in frames if not _is_library(frame)] or frames
    if not ours:
        return name
    frame = ours[-1]
    code = frame.f_code
    return f"{name}: {code.co_filename}:{frame.f_lineno} in {code.co_qualname}"
