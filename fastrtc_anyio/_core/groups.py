"""What leaves user code: one error, not a nest, and none that would take the server along."""

from __future__ import annotations

import math
from collections.abc import Generator
from contextlib import contextmanager
from types import TracebackType

from anyio import current_effective_deadline, get_cancelled_exc_class

from fastrtc_anyio.errors import HandlerContractError

__all__ = ["contained", "unwrapped"]


@contextmanager
def unwrapped() -> Generator[None, None, None]:
    """Put this round a task group: a group of one error leaves as that error.

    Cancellations beside a real error are left out; several real errors stay a group.
    """
    error: BaseException | None = None
    try:
        yield
    except BaseExceptionGroup as group:
        error = group
        _, real = group.split(get_cancelled_exc_class())
        if real is not None:
            error = real
            while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
                error = error.exceptions[0]
    if error is not None:
        context = error.__context__
        try:
            raise error
        finally:
            error.__context__ = context  # not the group that it was taken out of
            del error, context  # no reference cycle through the traceback


class contained:  # noqa: N801 - used like a function; a class, as it is entered for every frame
    """Put this round user code: ``sys.exit()`` in a handler ends its session, not the server.

    So does a cancellation that nobody here asked for: the handler awaited a task of its own that
    was cancelled. Both leave as an ordinary error. Ctrl-C passes. Every error carries a note that
    says where it was raised.

    Args:
        source: whose code it is, for the note.
    """

    __slots__ = ("_source",)

    def __init__(self, source: str) -> None:
        self._source = source

    def __enter__(self) -> None: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is None:
            return
        if isinstance(error, Exception):
            error.add_note(f"raised in {self._source}")
            if _is_asyncio_under_trio(traceback):
                error.add_note(
                    "This runs under trio, where asyncio's own objects do not work: use anyio's, "
                    'or run_asyncio(), or serve under asyncio: launch(backend="asyncio").'
                )
        elif not isinstance(error, KeyboardInterrupt | GeneratorExit) and not _is_ours(error):
            raise HandlerContractError(f"{self._source} raised {error!r}") from error


def _is_asyncio_under_trio(traceback: TracebackType | None) -> bool:
    if not get_cancelled_exc_class().__module__.startswith("trio"):
        return False
    while traceback is not None:
        if str(traceback.tb_frame.f_globals.get("__name__")).startswith("asyncio"):
            return True
        traceback = traceback.tb_next
    return False


def _is_ours(error: BaseException) -> bool:
    """Whether it is a cancellation that somebody here asked for, also one of several errors."""
    cancelled = get_cancelled_exc_class()
    if isinstance(error, BaseExceptionGroup):
        return error.split((Exception, cancelled))[1] is None
    return isinstance(error, cancelled) and current_effective_deadline() == -math.inf
