"""Echo servers of aiortc, which send the received track back."""

from __future__ import annotations

import asyncio
import math

import numpy as np
from aioice import ice
from aiortc import RTCConfiguration, RTCPeerConnection, RTCSessionDescription, rtp
from av import AudioFrame

from benchmarks.servers.lines import LOOPBACK, Answers, answer_offers


def audio_level_with_numpy(frame: AudioFrame) -> int:
    """Compute what aiortc.rtp.compute_audio_level_dbov computes in a loop in Python."""
    samples = frame.to_ndarray().astype(np.float32)
    mean = float(np.mean(np.square(samples)))
    return max(-127, min(0, round(10 * math.log10(mean / 32767**2)))) if mean else -127


def serve(handler: str, rate: int, backend: str) -> None:
    ice.get_host_addresses = lambda **options: [LOOPBACK]
    if handler == "numpy":
        assert hasattr(rtp, "compute_audio_level_dbov")
        rtp.compute_audio_level_dbov = audio_level_with_numpy
    asyncio.run(_serve())


async def _serve() -> None:
    answers = Answers()
    connections: set[RTCPeerConnection] = set()

    async def answer(sdp: str, identifier: str) -> str:
        pc = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        connections.add(pc)
        pc.on("track", pc.addTrack)

        @pc.on("connectionstatechange")
        async def close() -> None:
            if pc.connectionState in ("closed", "failed"):
                await pc.close()
                connections.discard(pc)

        await pc.setRemoteDescription(RTCSessionDescription(sdp, "offer"))
        await pc.setLocalDescription()
        return str(pc.localDescription.sdp)

    await answer_offers(answers, answer)
