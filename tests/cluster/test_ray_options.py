"""The parts of the Ray Serve deployment that need no Ray."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any

import pytest

from fastrtc_anyio import Stream
from fastrtc_anyio.cluster._serve_options import complete_options
from fastrtc_anyio.cluster.ray import (
    RayDirectory,
    SessionsPolicy,
    deployment,
    sessions_policy,
)
from tests.kit.calls import echo

KNOWN = ["name", "num_replicas", "max_ongoing_requests", "graceful_shutdown_timeout_s"]


def build() -> Stream:
    return Stream(echo, modality="audio")


def test_options_of_the_deployment_have_suitable_defaults() -> None:
    assert complete_options({}, KNOWN, 60) == {
        "name": "calls",
        "max_ongoing_requests": 10_000,
        "max_surge_percent": 20,
        "graceful_shutdown_timeout_s": 70,
    }
    changed = complete_options({"max_ongoing_requests": 50, "name": "voice"}, KNOWN, 0)
    assert (changed["max_ongoing_requests"], changed["name"]) == (50, "voice")
    assert changed["graceful_shutdown_timeout_s"] == 10


def test_unknown_options_are_named() -> None:
    with pytest.raises(TypeError, match="has no option 'replicas'; it has name, num_replicas"):
        complete_options({"replicas": 2}, KNOWN, 60)
    with pytest.raises(ValueError, match=r"is drain_timeout \+ 10: give drain_timeout"):
        complete_options({"graceful_shutdown_timeout_s": 60}, KNOWN, 60)


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"build": build()}, "build must be a function that returns a Stream, .*; got <.*Stream"),
        ({"build": lambda path: None}, "build must be a function without arguments; got"),
        (
            {"build": build, "drain_timeout": -1},
            "drain_timeout must be .* at least 0 s; got -1",
        ),
        ({"build": build, "drain_timeout": None}, "drain_timeout must be a number"),
        ({"build": build, "backend": "curio"}, "backend must be .*asyncio.*; got 'curio'"),
    ],
)
def test_unsuitable_arguments_are_refused(arguments: dict[str, Any], error: str) -> None:
    with pytest.raises((TypeError, ValueError), match=error):
        deployment(**arguments)


def test_missing_ray_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ImportError, match=r"deployment needs Ray Serve: .*fastrtc-anyio\[ray\]"):
        deployment(build)
    with pytest.raises(ImportError, match=r"RayDirectory needs Ray: .*fastrtc-anyio\[ray\]"):
        RayDirectory("calls")


@dataclass
class Context:
    """The part of Serve's ``AutoscalingContext`` that the policy uses."""

    aggregated_metrics: dict[str, dict[object, float]] | None
    target_num_replicas: int = 3


@pytest.mark.parametrize(
    ("sessions", "replicas"),
    [([0.0], 0), ([1.0], 1), ([4.0, 0.0], 1), ([4.0, 1.0], 2), ([9.0, 9.0, 9.0], 7)],
)
def test_policy_counts_the_sessions_of_all_replicas(sessions: list[float], replicas: int) -> None:
    metrics: dict[str, dict[object, float]] = {"sessions": dict(enumerate(sessions))}
    assert SessionsPolicy(4)(Context(metrics)) == (replicas, {})


@pytest.mark.parametrize("metrics", [None, {}, {"sessions": {}}, {"other": {1: 5.0}}])
def test_policy_keeps_the_replicas_if_none_has_reported(metrics: Any) -> None:
    assert SessionsPolicy(4)(Context(metrics)) == (3, {})


def test_policy_has_a_form_for_configuration_files() -> None:
    assert sessions_policy(20) == {
        "policy_function": "fastrtc_anyio.cluster.ray:SessionsPolicy",
        "policy_kwargs": {"per_replica": 20},
    }
    with pytest.raises(ValueError, match="per_replica must be a number above 0"):
        sessions_policy(0)
