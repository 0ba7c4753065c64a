"""Log records of the package: limited in number, and safe to print.

Clients cause most of them. A filter on the package's logger therefore suppresses records that
repeat too often, and cleans the others, so that no call site has to.
"""

from __future__ import annotations

import atexit
import logging
import numbers
import time
from collections import OrderedDict
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from traceback import format_exception, format_tb

from .budget import Budget
from .host import Lock
from .log import LOGGER, logger
from .session_log import current_log

__all__ = [
    "LOGGER",
    "Lines",
    "RateLimit",
    "RecordFilter",
    "Suppressed",
    "escape",
    "escape_lines",
    "flush_suppressed",
    "forget_records",
    "install",
    "log_failure",
]

PER_MINUTE = 20
"""Maximum records of one kind in a minute above level DEBUG."""
DEBUG_PER_MINUTE = 600
"""Maximum records of one kind in a minute at level DEBUG."""

_MAX_KINDS = 512
_MAX_TEXT = 300
"""Characters of one value in a record."""
_MAX_LINE = 1000
"""Characters of one line of a traceback."""
_MAX_LINES = 200
"""Lines of a traceback, half of them at its end."""


class Lines(str):
    """A text of several lines without anything from clients: a record keeps its line breaks."""

    __slots__ = ()


@dataclass(frozen=True)
class Suppressed:
    """Records of one kind that were not logged."""

    logger: str
    level: int
    message: str
    """The format string of the records."""
    count: int
    event: str


@dataclass
class _Kind:
    logger: str
    level: int
    message: str
    event: str
    budget: Budget
    """Records that may pass."""
    suppressed: int = 0


class RateLimit:
    """Limits the records of each kind: half of those of a minute at once, the others evenly spread.

    Thus no minute, wherever it begins, has more than the limit. The kinds are bounded in number:
    the one that has been quiet for longest is forgotten.
    """

    def __init__(self, max_kinds: int = _MAX_KINDS) -> None:
        self._max_kinds = max_kinds
        self._kinds: OrderedDict[Hashable, _Kind] = OrderedDict()
        self._suppressing: dict[Hashable, _Kind] = {}
        self._forgotten: list[Suppressed] = []

    def admit(
        self,
        logger: str,
        level: int,
        message: str,
        now: float,
        *,
        detail: Hashable = None,
        event: str = "",
    ) -> int | None:
        """Count a record. Return how many like it were suppressed before; None to suppress it.

        Args:
            logger: the name of its logger.
            level: its level.
            message: its format string. The kind of a record consists of these three.
            now: the time in seconds.
            detail: tells apart kinds that have the same format string.
            event: the name of the event, for the report of suppressed records.
        """
        key = (logger, level, message, detail)
        kind = self._kinds.pop(key, None)
        if kind is None:
            kind = _Kind(logger, level, message, event, _create_budget(level))
            self._make_room()
        self._kinds[key] = kind
        if not kind.budget.take(now):
            kind.suppressed += 1
            self._suppressing[key] = kind
            return None
        count, kind.suppressed = kind.suppressed, 0
        self._suppressing.pop(key, None)
        return count

    def collect(self, now: float) -> list[Suppressed]:
        """Return, once, the suppressed records of the kinds that may be reported now."""
        found, self._forgotten = self._forgotten, []
        for key, kind in list(self._suppressing.items()):
            if kind.budget.take(now):
                found.append(_take(kind))
                del self._suppressing[key]
        return found

    def clear(self) -> list[Suppressed]:
        """Forget all kinds, and return the suppressed records that were not reported."""
        found = self._forgotten + [_take(kind) for kind in self._suppressing.values()]
        self._forgotten = []
        self._kinds.clear()
        self._suppressing.clear()
        return found

    def _make_room(self) -> None:
        if len(self._kinds) >= self._max_kinds:
            key, kind = self._kinds.popitem(last=False)
            if self._suppressing.pop(key, None) is not None:
                self._forgotten.append(_take(kind))


def _create_budget(level: int) -> Budget:
    limit = PER_MINUTE if level > logging.DEBUG else DEBUG_PER_MINUTE
    return Budget(limit / 2 / 60, limit / 2)


def _take(kind: _Kind) -> Suppressed:
    count, kind.suppressed = kind.suppressed, 0
    return Suppressed(kind.logger, kind.level, kind.message, count, kind.event)


class RecordFilter(logging.Filter):
    """Limits, cleans and completes the records of the loggers that it is added to. Thread-safe."""

    def __init__(self) -> None:
        super().__init__()
        self._lock = Lock()
        self._limit = RateLimit()

    def filter(self, record: logging.LogRecord) -> bool:
        """Clean and complete a record, and return whether it is logged."""
        if "suppressed" in record.__dict__:
            return True  # a report of this filter's own
        now = time.monotonic()
        message = str(record.msg)[:_MAX_TEXT]
        event = str(record.__dict__.get("event", record.name))  # the application's has none
        with self._lock:
            count = self._limit.admit(
                record.name, record.levelno, message, now, detail=_origin(record), event=event
            )
            reports = self._limit.collect(now)
        _report(reports)
        if count is None:
            return False
        _clean(record)
        _complete(record, event, count)
        if count:
            record.msg = f"{record.msg} ({count} similar records were suppressed)"
        return True

    def flush(self) -> None:
        """Log the numbers of suppressed records that no record has stated yet."""
        with self._lock:
            reports = self._limit.clear()
        _report(reports)

    def forget(self) -> None:
        """Forget all records so far, as for another test in the same process."""
        with self._lock:
            self._limit.clear()


def _complete(record: logging.LogRecord, event: str, suppressed: int) -> None:
    """Set the attributes of a record for the application's handlers."""
    log = current_log.get()
    record.__dict__.update(suppressed=suppressed, event=event)
    record.__dict__.setdefault("session_id", log and log.id)
    if log is not None:
        log.note(event, record.levelno)


def _origin(record: logging.LogRecord) -> Hashable:
    """Return where the exception of a record was raised: one error must not hide another."""
    if not record.exc_info or record.exc_info[1] is None:
        return None
    kind, _, traceback = record.exc_info
    while traceback is not None and traceback.tb_next is not None:
        traceback = traceback.tb_next
    code = traceback and (traceback.tb_frame.f_code.co_filename, traceback.tb_lineno)
    return (kind.__qualname__ if kind else "", code)


def _report(reports: list[Suppressed]) -> None:
    for report in reports:
        logger = logging.getLogger(report.logger)
        if logger.isEnabledFor(report.level):
            text = "%d records were suppressed: %s"
            logger.log(
                report.level,
                text,
                report.count,
                escape(report.message),
                extra={
                    "suppressed": report.count - 1,  # this record stands for one
                    "event": report.event,
                    "session_id": None,
                },
            )


def _clean(record: logging.LogRecord) -> None:
    if isinstance(record.args, Mapping):
        record.args = {key: _clean_value(value) for key, value in record.args.items()}
    elif record.args:
        record.args = tuple(_clean_value(value) for value in record.args)
    if record.exc_info and record.exc_info[1] is not None and not record.exc_text:
        # Indented: no line of an exception's text can pass for a record.
        text = "".join(format_exception(*record.exc_info)).rstrip("\n")
        record.exc_text = escape_lines(text, indent="  ")


def _clean_value(value: object) -> object:
    if value is None or isinstance(value, numbers.Number):
        return value
    if isinstance(value, Lines):
        return escape_lines(value)
    return _Escaped(value)


class _Escaped(str):
    """The text of a value, escaped, for both ``%s`` and ``%r``."""

    __slots__ = ("_repr",)
    _repr: str

    def __new__(cls, value: object) -> _Escaped:
        try:
            text, shown = str(value), repr(value)
        except Exception:  # of the application's own classes
            text = shown = f"<{type(value).__qualname__}>"
        self = super().__new__(cls, escape(text))
        self._repr = escape(shown)
        return self

    def __repr__(self) -> str:
        return self._repr


def escape(text: str, limit: int = _MAX_TEXT) -> str:
    """Escape characters that are not printable, and cut off long texts."""
    if len(text) > limit:
        text = f"{text[:limit]}... ({len(text)} characters)"
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in text
    )


def escape_lines(text: str, indent: str = "") -> str:
    """Escape each line of a text, and leave out the middle of a long one."""
    lines = text.split("\n")
    if (extra := len(lines) - _MAX_LINES) > 0:
        half = _MAX_LINES // 2
        lines = [*lines[:half], f"... ({extra} lines)", *lines[-half:]]
    return "\n".join(f"{indent}{escape(line, _MAX_LINE)}" for line in lines)


def log_failure(message: str, *args: object, error: BaseException, event: str) -> None:
    """Log an error that a library may have raised about data of a client.

    Its text, which may quote the data, is logged at level DEBUG only.
    """
    stack = "".join(format_tb(error.__traceback__)).rstrip("\n")
    logger.error(f"{message}: %s", *args, Lines(f"{type(error).__name__}\n{stack}"), event=event)
    logger.debug(message, *args, exc_info=error, event=event)


_FILTER = RecordFilter()


def install(*names: str) -> None:
    """Limit and clean the records of these loggers. Idempotent."""
    for name in names:
        logging.getLogger(name).addFilter(_FILTER)


def flush_suppressed() -> None:
    """Log the numbers of suppressed records that no record has stated yet."""
    _FILTER.flush()


def forget_records() -> None:
    """Begin with a full budget of records: tests in one process must not affect each other."""
    _FILTER.forget()


atexit.register(flush_suppressed)
