"""Options of a deployment of Ray Serve."""

from __future__ import annotations

import inspect
from collections.abc import Mapping

from fastrtc_anyio._core.options import short_repr

__all__ = ["check_build", "complete_options"]

_REQUESTS = 10_000
"""Requests of a replica at a time. Each WebSocket and each reader of outputs is one; the stream has
limits of its own."""
_LAST_SECONDS = 10.0
"""Seconds after the drain for the last sessions to end."""
_SURGE = 20
"""Percentage of replicas of a new version that start before old ones stop: at least one."""


def check_build(build: object) -> None:
    """Raise ``TypeError`` unless ``build`` can be called without arguments."""
    if not callable(build):
        raise TypeError(
            "build must be a function that returns a Stream, which each replica calls; "
            f"got {short_repr(build)}"
        )
    if any(
        parameter.default is parameter.empty
        and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
        for parameter in inspect.signature(build).parameters.values()
    ):
        raise TypeError(f"build must be a function without arguments; got {short_repr(build)}")


def complete_options(
    options: Mapping[str, object], known: list[str], drain_timeout: float
) -> dict[str, object]:
    """Return the options of ``serve.deployment``, which has those that are ``known``."""
    for name in options:
        if name not in known:
            raise TypeError(f"serve.deployment has no option {name!r}; it has {', '.join(known)}")
        if name == "graceful_shutdown_timeout_s":
            raise ValueError(
                "graceful_shutdown_timeout_s is drain_timeout + 10: give drain_timeout instead"
            )
    return {
        "name": "calls",
        "max_ongoing_requests": _REQUESTS,
        "max_surge_percent": _SURGE,
        **options,
        "graceful_shutdown_timeout_s": drain_timeout + _LAST_SECONDS,
    }
