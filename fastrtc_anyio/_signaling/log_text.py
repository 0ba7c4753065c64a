"""Texts of errors for the log, without anything that a client sent."""

from __future__ import annotations

from fastrtc_anyio._core.log import logger
from fastrtc_anyio.errors import FastRTCError, SignalingError

__all__ = ["log_error", "log_text"]


def log_text(error: BaseException) -> str:
    """Return the text of an error for levels above DEBUG.

    Only errors of this package are known to quote no client, and a :exc:`.SignalingError` only in
    its rule or, without one, the description of its class. The type stands for any other.
    """
    if isinstance(error, SignalingError):
        description = type(error).__doc__ or type(error).__name__
        return error.rule or description.partition("\n")[0].rstrip(".")
    if isinstance(error, FastRTCError):
        return str(error)
    return type(error).__name__


def log_error(level: int, message: str, *args: object, error: BaseException, event: str) -> None:
    """Log an error about a client: its :func:`log_text` at ``level``, and its own text at DEBUG."""
    logger.log(level, f"{message}: %s", *args, log_text(error), event=event)
    logger.debug(f"{message}: %s", *args, error, event=event)
