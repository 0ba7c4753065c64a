"""Calls on any number of machines, with Ray Serve: an echo that scales with its sessions.

In this folder:

    pip install '.[ray]'                  # in the root of the repository
    PYTHONPATH=. ray start --head
    serve deploy ray_calls.yaml

Open http://127.0.0.1:8000/ in a browser. During a call, change this file, and VERSION in
ray_calls.yaml, and run `serve deploy ray_calls.yaml` again: the call goes on in the old replica,
and new calls begin in new ones. `serve status` shows the replicas, and `ray stop` ends all.
"""

import ray

from fastrtc_anyio import RtcConfiguration, Session, Stream
from fastrtc_anyio.cluster.ray import deployment


async def echo(session: Session) -> None:
    async for frame in session.audio_in:
        await session.audio_out.send(frame)


def build() -> Stream:
    """Create the stream of a replica."""
    configuration = RtcConfiguration(
        addresses=(ray.util.get_node_ip_address(),), ports=(50_000, 50_999)
    )
    return Stream(
        echo,
        modality="audio",
        concurrency_limit=20,
        time_limit=1800,
        server_rtc_configuration=configuration,
    )


# No call is longer than half an hour, so no update ends one.
app = deployment(build, drain_timeout=1800, backend="trio")
