"""A stream for ``serve --workers``: an echo that puts out its inputs."""

from __future__ import annotations

import json
import os
from typing import Any

import anyio

from fastrtc_anyio import (
    AdditionalOutputs,
    AsyncStreamHandler,
    Limits,
    RtcConfiguration,
    Slider,
    Stream,
    Textbox,
    get_current_context,
)
from fastrtc_anyio.observability import Metrics
from fastrtc_anyio.server import require_token

TOKEN = "a token of the tests"


class Echo(AsyncStreamHandler):
    """Returns audio, and the inputs as outputs."""

    def __init__(self) -> None:
        super().__init__(output_sample_rate=48_000)
        self.to_emit, self.queued = anyio.create_memory_object_stream[Any](50)

    def copy(self) -> Echo:
        return Echo()

    async def start_up(self) -> None:
        session = get_current_context().session
        session.save_nowait({"pid": os.getpid()})
        if path := os.environ.get("PID_FILE"):
            await anyio.Path(path).write_text(str(os.getpid()))
        if path := os.environ.get("RESUMED_FILE"):
            found = session.resumed_from
            described = None if found is None else {"id": found.session_id, "value": found.value}
            await anyio.Path(path).write_text(json.dumps({"id": session.id, "from": described}))

    async def receive(self, frame: Any) -> None:
        if self.args_set.is_set():
            self.args_set.clear()
            await self.to_emit.send(AdditionalOutputs(self.latest_args[-1]))
        await self.to_emit.send(frame)

    async def emit(self) -> Any:
        return await self.queued.receive()

    def shutdown(self) -> None:
        self.to_emit.close()
        self.queued.close()


if os.environ.get("FAIL_AT_START"):
    raise RuntimeError("as the test asks")


def make_stream(configuration: RtcConfiguration) -> Stream:
    return Stream(
        Echo(),
        modality="audio",
        concurrency_limit=int(os.environ.get("CONCURRENCY_LIMIT", "20")),
        server_rtc_configuration=configuration,
        limits=Limits(lag=None),
        drain_timeout=float(os.environ.get("DRAIN_TIMEOUT", "25")),
        additional_inputs=[Slider(label="level", minimum=0, maximum=1000)],
        additional_outputs=[Textbox(label="shown")],
        observers=[Metrics()],
        authenticate=None if os.environ.get("IS_PUBLIC") else require_token(TOKEN),
    )


stream = make_stream(RtcConfiguration(addresses=("127.0.0.1",)))
