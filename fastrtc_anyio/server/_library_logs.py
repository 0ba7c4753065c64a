"""Logs of the libraries below this one, for servers that :func:`.launch` runs."""

from __future__ import annotations

import copy
import logging
import re

from fastrtc_anyio._core.records import escape_lines

__all__ = ["lower_records", "protect_logs"]

_PASSWORD = re.compile(r"((?:ice-pwd|ice-ufrag)[:=]\s*)\S+")


def protect_logs() -> None:
    """Keep data of clients out of the log above level DEBUG.

    aioice logs addresses at level INFO, and aiortc logs exceptions with parts of packets at level
    WARNING. Idempotent.
    """
    lower_records("aioice", "aiortc")


def lower_records(*names: str) -> None:
    """Lower all records of these loggers, and of those below them, to level DEBUG. Idempotent.

    Handlers of the loggers themselves are unaffected.
    """
    for name in names:
        logger = logging.getLogger(name)
        if not any(isinstance(handler, _Lowering) for handler in logger.handlers):
            logger.addHandler(_Lowering(logger))
            logger.propagate = False


class _Lowering(logging.Handler):
    """Passes records to the parent of a logger, at level DEBUG and without ICE credentials."""

    def __init__(self, logger: logging.Logger) -> None:
        super().__init__()
        self._logger = logger

    def emit(self, record: logging.LogRecord) -> None:
        parent = self._logger.parent
        if parent is None or not logging.getLogger(record.name).isEnabledFor(logging.DEBUG):
            return
        lowered = copy.copy(record)
        lowered.levelno, lowered.levelname = logging.DEBUG, logging.getLevelName(logging.DEBUG)
        text = escape_lines(record.getMessage().replace("\r\n", "\n"), indent="  ").removeprefix(
            "  "
        )
        lowered.msg, lowered.args = _PASSWORD.sub(r"\1...", text), ()
        parent.callHandlers(lowered)
