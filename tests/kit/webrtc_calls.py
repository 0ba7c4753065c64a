"""Placing calls to a stream, with no web server between."""

from __future__ import annotations

import threading
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import numpy as np
from anyio import to_thread

from fastrtc_anyio import AudioFrame, RtcConfiguration, Stream
from fastrtc_anyio.testing import tone

from .aiortc_client import AiortcClient, Microphone, open_client
from .measure import typical_snr

LOOPBACK = RtcConfiguration(addresses=("127.0.0.1",))
SECONDS = 10
"""Real peers on a busy machine get this long for what takes them a fraction of it."""
ATTEMPTS = 5
"""How often the echo of a tone is measured, until it is clean."""
QUIET_FRAMES = 10
"""So much silence, of 20 ms each, is no gap but the end of the sound."""


def open_stream(handler: Any, **options: Any) -> Stream:
    """A stream on loopback, of audio unless ``modality`` says otherwise."""
    options.setdefault("concurrency_limit", None)
    options.setdefault("modality", "audio")
    return Stream(handler, server_rtc_configuration=LOOPBACK, **options)


@asynccontextmanager
async def place_call(
    stream: Stream,
    *,
    codec: str | None = "opus",
    channel: bool = True,
    channels: int = 1,
    webrtc_id: str | None = None,
    audio: bool | str = True,
    video: str | None = None,
    video_codec: str | None = None,
) -> AsyncGenerator[AiortcClient, None]:
    """Call a stream and wait until the call is up.

    ``audio`` and ``video`` may be directions: sendrecv, sendonly, recvonly.
    """
    async with open_client(Microphone(channels=channels)) as client:
        offer = await to_thread.run_sync(
            client.run, client.make_offer, codec, channel, audio, video, video_codec
        )
        body = {"type": "offer", "sdp": offer, "webrtc_id": webrtc_id}
        client.answer = await stream.offer(body)
        await to_thread.run_sync(client.run, client.accept, client.answer["sdp"])
        assert await _wait(client.connected), "no connection came up"
        yield client


async def _wait(event: threading.Event) -> bool:
    return await to_thread.run_sync(event.wait, SECONDS, abandon_on_cancel=True)


async def wait_until(condition: Any) -> None:
    """Wait for something to become true in another thread or task."""
    with anyio.fail_after(SECONDS):
        while not condition():
            await anyio.sleep(0.01)


async def echo_of_tones(
    client: AiortcClient, frequencies: list[int], *, wanted: float = 30.0, seconds: float = 1.0
) -> list[float]:
    """Send a tone on each channel, and return how clean each comes back, in dB.

    On a busy machine frames come too late to be played, and spoil a measurement. It is therefore
    made again, in the same call, until it is as good as wanted or was made ``ATTEMPTS`` times. What
    a defect spoils is as bad every time.
    """
    measured: list[float] = []
    for _ in range(ATTEMPTS):
        with anyio.fail_after(SECONDS):
            measured = await _echo_once(client, frequencies, seconds)
        if min(measured) > wanted:
            break
    return measured


async def _echo_once(client: AiortcClient, frequencies: list[int], seconds: float) -> list[float]:
    sent = np.concatenate([tone(f, 48_000, seconds) for f in frequencies])
    for start in range(0, sent.shape[1], 960):
        client.send_audio(AudioFrame(48_000, sent[:, start : start + 960]))
    heard: list[AudioFrame] = []
    loud = quiet = 0
    # To the silence behind it, which leaves nothing for the next measurement.
    while not loud or quiet < QUIET_FRAMES:
        heard.append(await client.receive_audio())
        is_loud = bool(np.any(np.abs(heard[-1].samples) > 1000))
        loud, quiet = loud + is_loud, 0 if is_loud else quiet + 1
    if loud < (seconds - 0.1) * 50:  # more is missing than what a network may lose
        return [0.0] * len(frequencies)
    rate = heard[0].sample_rate
    samples = np.concatenate([frame.samples for frame in heard], axis=1)
    return [typical_snr(samples[i], f, rate) for i, f in enumerate(frequencies)]
