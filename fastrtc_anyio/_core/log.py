"""The package's logger, whose records name an event."""

from __future__ import annotations

import logging
from collections.abc import MutableMapping

__all__ = ["LOGGER", "EventLogger", "logger"]

LOGGER = "fastrtc_anyio"
"""Name of the package's logger."""


class EventLogger(logging.LoggerAdapter[logging.Logger]):
    """A logger whose calls take the name of an event: ``logger.info("text", event="area.event")``.

    The name is a constant, and ``docs/guides/observability.md`` lists it. Code that runs outside of
    the session of a record passes ``session_id=session.log_id``.
    """

    def process(
        self, msg: object, kwargs: MutableMapping[str, object]
    ) -> tuple[object, MutableMapping[str, object]]:
        """Make attributes of the record from these arguments."""
        names = [name for name in ("event", "session_id") if name in kwargs]
        kwargs["extra"] = {name: kwargs.pop(name) for name in names}
        return msg, kwargs


logger: EventLogger = EventLogger(logging.getLogger(LOGGER))
