"""Observe a stream: metrics for Prometheus, spans for OpenTelemetry, and custom observers.

``Stream(handler, observers=[Metrics(), Tracing()])``. Importing this package loads neither
library: :class:`Metrics` and :class:`Tracing` load theirs when they are made.
"""

from fastrtc_anyio._observation import Reply, ReplyEnd, Turn

from .metrics import Metrics
from .observer import LoopLoad, ObservedStream, Observer
from .tracing import Tracing

__all__ = [
    "LoopLoad",
    "Metrics",
    "ObservedStream",
    "Observer",
    "Reply",
    "ReplyEnd",
    "Tracing",
    "Turn",
]
