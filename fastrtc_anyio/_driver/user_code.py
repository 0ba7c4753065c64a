"""Contain the errors of application code."""

from __future__ import annotations

import math
from types import TracebackType

from anyio import current_effective_deadline, get_cancelled_exc_class

from fastrtc_anyio.errors import HandlerContractError


class user_code:  # noqa: N801 - used like a function; a class, because it is entered per frame
    """Contain errors of application code: wrap each call of it in this context manager.

    Exceptions get a note that names the source. ``sys.exit()`` in a handler ends its session, not
    the server: it becomes a `HandlerContractError`. A cancellation that no scope of the session
    requested becomes one too: the handler awaited a task of the application that was cancelled.
    KeyboardInterrupt passes.
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
    """Return whether an enclosing scope requested the cancellation, alone or in a group."""
    cancelled = get_cancelled_exc_class()
    if isinstance(error, BaseExceptionGroup):
        return error.split((Exception, cancelled))[1] is None
    return isinstance(error, cancelled) and current_effective_deadline() == -math.inf
