"""The stream of ``tests/workers`` in a deployment of Ray Serve."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import ray

from fastrtc_anyio import RtcConfiguration, Stream
from fastrtc_anyio.cluster.ray import deployment
from tests.workers.program import make_stream

if TYPE_CHECKING:
    from ray.serve import Application

PORTS = (42_000, 42_199)


def build() -> Stream:
    """Create the stream of a replica: at the address of its node, with the ports of all nodes."""
    address: str = ray.util.get_node_ip_address()  # type: ignore[no-untyped-call]
    return make_stream(RtcConfiguration(addresses=(address,), ports=PORTS))


def app(arguments: dict[str, Any]) -> Application:
    """Create the application. A configuration file has the arguments, as ``args``."""
    return deployment(build, **arguments)
