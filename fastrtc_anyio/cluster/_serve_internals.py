"""Access to a private name of Ray Serve. No other module may use any.

Serve tells a deployment that its replica stops when all open requests have ended: readers of
outputs and WebSockets stay as long as their calls. The stream has to drain before, because it tells
their clients, and ends their calls at its timeout. Serve has no hook for that.

Verified against Ray 2.60. If a later version lacks the names, a warning is logged, and the stream
drains once Serve tells the deployment.
"""

from __future__ import annotations

from collections.abc import Callable

from fastrtc_anyio._core.log import logger

__all__ = ["find_stopping"]


def find_stopping() -> Callable[[], bool]:
    """Return a function that returns whether Serve has begun to stop this replica."""
    try:
        from ray._private.worker import global_worker

        for actor in list(global_worker.actors.values()):
            replica = getattr(actor, "_replica_impl", None)
            if isinstance(getattr(replica, "_shutting_down", None), bool):
                return lambda: bool(getattr(replica, "_shutting_down", False))
    except (ImportError, AttributeError):
        pass
    logger.warning(
        "this version of Ray does not show when a replica stops: it drains when its last request "
        "has ended",
        event="cluster.stop_unknown",
    )
    return lambda: False
