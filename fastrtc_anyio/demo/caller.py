"""Places one call to a stream, speaks a WAV file into it and reports what came back.

Runs as a process of its own, so that nothing but the network connects it with the server:
``python -m fastrtc_anyio.demo.caller URL OUT.wav``. Reports are lines of JSON.
"""

from __future__ import annotations

import json
import sys
import wave
from pathlib import Path
from typing import Any

import anyio
import httpx
import numpy as np
from anyio import create_task_group, move_on_after

from fastrtc_anyio.media.frames import Int16Array
from fastrtc_anyio.media.resample import StreamResampler
from fastrtc_anyio.peers._portal import open_portal
from fastrtc_anyio.peers.webrtc import WebRTCPeer
from fastrtc_anyio.protocol.ice import RtcConfiguration
from fastrtc_anyio.protocol.signaling import SessionDescription

from .measure import compare

__all__ = ["SAMPLE_RATE", "call", "hear_live"]

SAMPLE_RATE = 48_000
SPEECH = Path(__file__).with_name("speech.wav")
_TAIL_SECONDS = 0.6
"""How long to listen on after the last word."""


async def call(url: str, out: Path) -> None:
    """Call the stream at ``url``, and write what it says to ``out``."""
    speech = _read_speech()
    async with open_portal() as portal, httpx.AsyncClient() as http:
        peer = WebRTCPeer(
            portal,
            sample_rate=SAMPLE_RATE,
            configuration=RtcConfiguration(addresses=("127.0.0.1",)),
        )
        try:
            began = anyio.current_time()
            offer = await peer.offer()
            reply = await http.post(
                f"{url}/webrtc/offer", json={"type": "offer", "sdp": offer.sdp, "webrtc_id": "demo"}
            )
            if reply.is_error:
                _report(event="refused", status=reply.status_code, error=reply.text)
                return
            await peer.accept(SessionDescription("answer", reply.json()["sdp"]))
            await peer.wait_connected()
            _report(event="connected", seconds=anyio.current_time() - began)
            returned = await _talk(peer, speech)
            _report(**await _summary(peer, speech, returned))
            _write_wav(out, returned)
        finally:
            with anyio.CancelScope(shield=True):
                await peer.aclose()


async def _talk(peer: WebRTCPeer, speech: Int16Array) -> Int16Array:
    """Speak, and record from the moment the first sample is handed over."""
    seconds = speech.shape[1] / SAMPLE_RATE + _TAIL_SECONDS
    recorded = np.zeros((1, round((seconds + 1) * SAMPLE_RATE)), np.int16)
    position: int | None = None
    async with create_task_group() as tg:
        with move_on_after(1):
            await hear_live(peer)  # the line is up both ways
        await peer.audio_out.send(speech)
        began = anyio.current_time()

        async def show_progress() -> None:
            while True:
                played = peer.audio_out.statistics().played / SAMPLE_RATE
                heard = (position or 0) / SAMPLE_RATE
                _report(event="progress", played=played, heard=heard)
                await anyio.sleep(0.25)

        tg.start_soon(show_progress)
        with move_on_after(seconds):
            async for frame in peer.audio_in:
                if position is None:
                    position = round((anyio.current_time() - began) * SAMPLE_RATE)
                mono = frame.samples[:1]
                room = recorded[:, position : position + mono.shape[1]]
                room[:] = mono[:, : room.shape[1]]
                position += mono.shape[1]
        tg.cancel_scope.cancel()
    return recorded[:, : position or 0]


async def hear_live(peer: WebRTCPeer) -> None:
    """Pass over what came before now, so that what is heard next is what is just being said."""
    await peer.audio_in.receive()
    while peer.audio_in.statistics().buffered:
        await peer.audio_in.receive()


async def _summary(peer: WebRTCPeer, speech: Int16Array, returned: Int16Array) -> dict[str, Any]:
    found = compare(speech[0], returned[0], SAMPLE_RATE)
    reports = await peer.transport_statistics()
    inbound = [report for report in reports.values() if report["type"] == "inbound-rtp"]
    return {
        "event": "done",
        "latency": found.lag,
        "correlation": found.correlation,
        "frames": sum(report["packetsReceived"] for report in inbound),
        "lost": sum(report["packetsLost"] for report in inbound)
        + peer.audio_in.statistics().dropped,
    }


def _read_speech() -> Int16Array:
    with wave.open(str(SPEECH)) as file:
        rate = file.getframerate()
        samples = np.frombuffer(file.readframes(file.getnframes()), np.int16)[np.newaxis]
    resampler = StreamResampler(rate, SAMPLE_RATE, 1)
    return np.concatenate([resampler.push(samples), resampler.flush()], axis=1)


def _write_wav(path: Path, samples: Int16Array) -> None:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE)
        file.writeframes(samples.tobytes())


def _report(**fields: Any) -> None:
    print(json.dumps(fields), flush=True)


def main() -> None:
    """``URL OUT.wav``"""
    url, out = sys.argv[1:]
    anyio.run(call, url, Path(out), backend="trio")


if __name__ == "__main__":
    main()
