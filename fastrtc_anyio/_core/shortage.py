"""Recognize errors of a process that is out of file descriptors, threads or memory."""

from __future__ import annotations

import errno

_BY_ERRNO = {
    errno.EMFILE: "file descriptors",
    errno.ENFILE: "file descriptors",
    errno.ENOMEM: "memory",
    errno.ENOBUFS: "memory",
}
_THREADS = ("can't start new thread", "can't allocate lock")
"""Texts of the RuntimeError of :mod:`threading`."""
_DEPTH = 16
"""Maximum causes of an error to visit: a chain may be circular."""


def find_shortage(error: BaseException | None, depth: int = _DEPTH) -> str | None:
    """Return which resource an error, one of its causes or its members is about; else None."""
    if error is None or depth == 0:
        return None
    if isinstance(error, BaseExceptionGroup):
        found = (find_shortage(member, depth - 1) for member in error.exceptions)
        return next((resource for resource in found if resource), None)
    cause = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return _name(error) or find_shortage(cause, depth - 1)


def _name(error: BaseException) -> str | None:
    if isinstance(error, OSError):
        return _BY_ERRNO.get(error.errno or 0)
    if isinstance(error, MemoryError):
        return "memory"
    if isinstance(error, RuntimeError) and any(text in str(error) for text in _THREADS):
        return "threads"
    return None
