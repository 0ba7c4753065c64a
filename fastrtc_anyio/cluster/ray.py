"""Serve a stream in the replicas of a Ray Serve deployment. Needs the ``ray`` extra."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Literal, Protocol

from fastrtc_anyio._core.options import check_choice, check_number

from ._process import Built
from ._ray_directory import RayDirectory
from ._replica import Replica
from ._serve_options import check_build, complete_options

if TYPE_CHECKING:  # installed by the extra `ray`
    from ray.serve import Application

__all__ = ["RayDirectory", "SessionsPolicy", "deployment", "sessions_policy"]


def deployment(
    build: Callable[[], Built],
    *,
    num_replicas: int | Literal["auto"] | None = None,
    drain_timeout: float = 3600.0,
    backend: str = "asyncio",
    **options: object,
) -> Application:
    """Return an application of Ray Serve whose replicas serve a stream.

    Deploy it with a configuration file, ``import_path: module:app``. Requests about a session that
    reach another replica are forwarded. A replica that Serve stops refuses new sessions, and ends
    when its last session has ended.

    The stream and its handlers run in a thread of the replica, on an event loop of their own. Serve
    passes requests and WebSockets to it.

    Args:
        build: called once in each replica, in that thread. It returns a :class:`.Stream`, which is
            served with its page, or an ASGI application and the stream that is mounted in it.
        num_replicas: number of replicas; by default 1, or as ``autoscaling_config`` says.
        drain_timeout: seconds for which the sessions of a replica that is stopped may continue,
            in place of the stream's. Their clients are told a few seconds before the end.
        backend: ``"asyncio"`` or ``"trio"``.
        options: further options of ``serve.deployment``, such as ``ray_actor_options`` and
            ``autoscaling_config``. Unless they say otherwise, ``max_ongoing_requests`` is 10,000,
            and replicas of a new version start before old ones stop (``max_surge_percent=20``).
            ``graceful_shutdown_timeout_s`` is ``drain_timeout`` + 10.

    Raises:
        ImportError: Ray is not installed.
        TypeError, ValueError: an argument is unsuitable.
    """
    check_build(build)
    check_number("drain_timeout", drain_timeout, at_least=0, unit="s")
    check_choice("backend", backend, ("asyncio", "trio"))
    try:
        from ray import serve
    except ImportError as exc:
        raise ImportError(
            f"deployment needs Ray Serve: pip install 'fastrtc-anyio[ray]' ({exc})"
        ) from exc
    known = list(inspect.signature(serve.deployment).parameters)[1:]
    found = complete_options(options, known, drain_timeout)
    if num_replicas is not None:
        found["num_replicas"] = num_replicas
    make = serve.deployment(**found)  # type: ignore[arg-type]
    return make(serve.ingress()(Replica)).bind(build, float(drain_timeout), backend)


class _Autoscaling(Protocol):
    """The part of Serve's ``AutoscalingContext`` that the policy uses."""

    @property
    def aggregated_metrics(self) -> Mapping[str, Mapping[object, float]] | None: ...

    @property
    def target_num_replicas(self) -> int: ...


class SessionsPolicy:
    """Autoscaling policy: as many replicas as the sessions need.

    Serve applies the limits, delays and factors of ``autoscaling_config`` to this number. A
    configuration file names this class as ``policy_function``, and its arguments in
    ``policy_kwargs``. In Python, :func:`sessions_policy` does so.

    Args:
        per_replica: sessions for which there is one replica.
    """

    def __init__(self, per_replica: float) -> None:
        check_number("per_replica", per_replica, above=0)
        self.per_replica: float = per_replica

    def __call__(self, context: _Autoscaling) -> tuple[int, dict[str, object]]:
        """Return the number of replicas, and no state."""
        sessions = (context.aggregated_metrics or {}).get("sessions")
        if not sessions:  # no replica has reported yet
            return context.target_num_replicas, {}
        return math.ceil(sum(sessions.values()) / self.per_replica), {}


def sessions_policy(per_replica: float) -> dict[str, object]:
    """Return the ``policy`` of an ``autoscaling_config`` that scales on sessions.

    ``autoscaling_config={"max_replicas": 10, "policy": sessions_policy(20)}``

    Args:
        per_replica: sessions for which there is one replica. Choose about three quarters of the
            stream's ``concurrency_limit``: Serve does not place calls evenly, and a new replica
            takes some seconds to start.
    """
    SessionsPolicy(per_replica)
    return {
        "policy_function": "fastrtc_anyio.cluster.ray:SessionsPolicy",
        "policy_kwargs": {"per_replica": per_replica},
    }
