"""What leaves user code: one error, not a nest, and none that would take the server along."""

from __future__ import annotations

import math
from collections.abc import Generator
from contextlib import contextmanager

from anyio import current_effective_deadline, get_cancelled_exc_class

from .errors import HandlerContractError

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
        try:
            raise error
        finally:
            del error  # no reference cycle through the traceback


@contextmanager
def contained(source: str) -> Generator[None, None, None]:
    """Put this round user code: ``sys.exit()`` in a handler ends its session, not the server.

    So does a cancellation that nobody here asked for: the handler awaited a task of its own that
    was cancelled. Both leave as an ordinary error. Ctrl-C passes.

    Args:
        source: whose code it is, for the message.
    """
    try:
        yield
    except (Exception, KeyboardInterrupt, GeneratorExit):
        raise
    except BaseException as exc:
        cancelled = get_cancelled_exc_class()
        if isinstance(exc, BaseExceptionGroup):
            if exc.split((Exception, cancelled))[1] is None:
                raise
        elif isinstance(exc, cancelled) and current_effective_deadline() == -math.inf:
            raise
        raise HandlerContractError(f"{source} raised {exc!r}") from exc
