"""Places one call to a stream, speaks a WAV file into it and reports what came back.

As a process of its own nothing but the network connects it with the server:
``python -m fastrtc_anyio._cli.client URL OUT.wav``. Reports are lines of JSON.
"""

from __future__ import annotations

import json
import re
import secrets
import sys
import wave
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import anyio
import httpx
import numpy as np
from anyio import create_task_group, move_on_after

from fastrtc_anyio._media.frames import Int16Array, mix_channels
from fastrtc_anyio._media.media_plan import MediaPlan
from fastrtc_anyio._media.resample import StreamResampler
from fastrtc_anyio._peers.portal import open_portal
from fastrtc_anyio._peers.webrtc import WebRTCPeer, local_addresses
from fastrtc_anyio._signaling.ice import RtcConfiguration
from fastrtc_anyio._signaling.requests import SessionDescription
from fastrtc_anyio.errors import Closed, CloseReason, PeerError, UnsupportedFormat

from .measure import compare

__all__ = ["SAMPLE_RATE", "SPEECH", "CallOptions", "call", "hear_live", "place_call"]

SAMPLE_RATE = 48_000
SPEECH = Path(__file__).with_name("speech.wav")
_TAIL_SECONDS = 0.6
"""How long the demo listens on after the last word."""
_CONNECT_SECONDS = 30.0
_ECHO = 0.5
"""What came back is what was sent, if it correlates so well."""
_LOUD = 500
"""What is louder is sound."""

Report = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class CallOptions:
    """What to say, to whom, and how long to listen."""

    speech: Path | None = SPEECH
    """A WAV file of 16 bits; None to say nothing."""
    listen: float = _TAIL_SECONDS
    """Seconds to listen on after the last word."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """Of the HTTP requests."""


class _CallFailed(Exception):
    """What a caller is told; ``fields`` go with it into the report."""

    def __init__(self, message: str, **fields: Any) -> None:
        super().__init__(message)
        self.fields = fields


async def call(url: str, out: Path) -> None:
    """The demo's call: reports are lines of JSON."""

    def report(fields: dict[str, Any]) -> None:
        print(json.dumps(fields), flush=True)

    await place_call(url, CallOptions(), report, out)


async def place_call(url: str, options: CallOptions, report: Report, out: Path | None) -> bool:
    """Call the stream at ``url``.

    Args:
        url: of the server; the endpoints are below it.
        options: what to say.
        report: is given ``connected``, ``progress``, ``message`` and at the end ``done`` or
            ``failed``, each under ``event``, with what there is to tell.
        out: where to write what was heard, as WAV.

    Returns:
        Whether the call came up and lasted to its end.
    """
    try:
        speech = _read_speech(options.speech)
        _check_writable(out)
        async with open_portal() as portal, httpx.AsyncClient(headers=options.headers) as http:
            stream = await _ask(http, f"{url.rstrip('/')}/webrtc/config")
            peer = _make_peer(portal, url, stream)
            try:
                await _connect(peer, http, f"{url.rstrip('/')}/webrtc/offer", report)
                done = await _Conversation(peer, speech, options.listen, report).run(out)
                report({"event": "done", **done})
            finally:
                with anyio.CancelScope(shield=True):
                    await peer.aclose()
    except _CallFailed as exc:
        report({"event": "failed", "error": str(exc), **exc.fields})
        return False
    return True


async def _ask(http: httpx.AsyncClient, url: str) -> dict[str, Any]:
    """What the server says of its stream. Not every server that can be called has that."""
    try:
        reply = await http.get(url)
        config = reply.json() if reply.is_success else {}
    except (httpx.HTTPError, httpx.InvalidURL) as exc:
        raise _CallFailed(f"nobody answers at {url}: {_words(exc)}") from exc
    except ValueError:
        return {}
    return config if isinstance(config, dict) else {}


def _make_peer(portal: Any, url: str, stream: Mapping[str, Any]) -> WebRTCPeer:
    modality, mode = stream.get("modality", "audio"), stream.get("mode", "send-receive")
    if modality == "video":
        raise _CallFailed("this stream has video only; there is nothing to say to it")
    theirs = MediaPlan.of(modality, mode)
    ours = MediaPlan(theirs.audio_out, theirs.audio_in, theirs.video_out, theirs.video_in)
    asked: Mapping[str, Any] = stream.get("rtc_configuration") or {}
    here = local_addresses()
    if urlsplit(url).hostname in ("127.0.0.1", "localhost", "::1") or not here:
        here = ("127.0.0.1", *here)
    configuration = RtcConfiguration.parse(
        {
            "iceServers": asked.get("iceServers"),
            "iceTransportPolicy": asked.get("iceTransportPolicy"),
            "addresses": here,
        }
    )
    return WebRTCPeer(portal, media=ours, sample_rate=SAMPLE_RATE, configuration=configuration)


async def _connect(peer: WebRTCPeer, http: httpx.AsyncClient, url: str, report: Report) -> None:
    began = anyio.current_time()
    try:
        offer = await peer.offer()
        body = {"type": "offer", "sdp": offer.sdp, "webrtc_id": secrets.token_hex(8)}
        reply = await http.post(url, json=body, timeout=_CONNECT_SECONDS)
        answer = _read_answer(reply)
        await peer.accept(SessionDescription("answer", answer))
        with anyio.fail_after(_CONNECT_SECONDS):
            await peer.wait_connected()
    except httpx.HTTPError as exc:
        raise _CallFailed(f"nobody answers at {url}: {_words(exc)}") from exc
    except TimeoutError:
        raise _CallFailed(f"no connection came up in {_CONNECT_SECONDS:g} s") from None
    except PeerError as exc:
        raise _CallFailed(f"no connection came up: {exc}") from exc
    report({"event": "connected", "seconds": anyio.current_time() - began})


def _read_answer(reply: httpx.Response) -> str:
    try:
        body = reply.json()
    except ValueError:
        body = None
    if isinstance(body, dict) and isinstance(body.get("sdp"), str) and reply.is_success:
        sdp: str = body["sdp"]
        return sdp
    meta = body.get("meta") if isinstance(body, dict) else None
    if not isinstance(meta, dict):
        words = f"{reply.status_code} {httpx.codes.get_reason_phrase(reply.status_code)}".strip()
        text = f"there is no stream at {reply.url}: {words}"
        raise _CallFailed(text, status=reply.status_code)
    why = meta.get("message") or meta.get("error")
    raise _CallFailed(
        f"the server refused the call: {reply.status_code}, {why}", status=reply.status_code
    )


class _Conversation:
    """What is said and heard while a call is up."""

    def __init__(self, peer: WebRTCPeer, speech: Int16Array, listen: float, report: Report) -> None:
        self._peer = peer
        self._speech = speech if peer.media.audio_out else speech[:, :0]
        self._report = report
        self._seconds = self._speech.shape[1] / SAMPLE_RATE + listen
        self._recorded = np.zeros((1, round((self._seconds + 1) * SAMPLE_RATE)), np.int16)
        self._position: int | None = None
        self._closed: Closed | None = None

    async def run(self, out: Path | None) -> dict[str, Any]:
        """Speak, and record from the moment the first sample is handed over."""
        peer = self._peer
        async with create_task_group() as tg:
            if peer.media.audio_in and peer.media.audio_out:
                with move_on_after(1):
                    await hear_live(peer)  # the line is up both ways
            self._began = anyio.current_time()
            tg.start_soon(self._read_messages)
            tg.start_soon(self._show_progress)
            with move_on_after(self._seconds) as patience:
                tg.start_soon(self._watch, patience)
                if self._speech.size:
                    await peer.audio_out.send(self._speech)
                    self._began = anyio.current_time()
                if peer.media.audio_in:
                    await self._record()
                await anyio.sleep_forever()
            tg.cancel_scope.cancel()
        if self._closed is not None and self._closed.reason is not CloseReason.HUNG_UP:
            raise _CallFailed(f"the connection broke: {self._closed.message}")
        return await self._summarise(out)

    async def _record(self) -> None:
        try:
            async for frame in self._peer.audio_in:
                if self._position is None:
                    passed = anyio.current_time() - self._began
                    self._position = max(0, round(passed * SAMPLE_RATE))
                mono = mix_channels(frame.samples, 1)
                end = self._position + mono.shape[1]
                room = self._recorded[:, self._position : end]
                room[:] = mono[:, : room.shape[1]]
                self._position = end
        except anyio.BrokenResourceError:
            pass  # _watch() knows why

    async def _watch(self, patience: anyio.CancelScope) -> None:
        self._closed = await self._peer.wait_closed()
        patience.cancel()

    async def _read_messages(self) -> None:
        try:
            async for text in self._peer.messages:
                self._report({"event": "message", "text": text})
        except anyio.BrokenResourceError:
            pass

    async def _show_progress(self) -> None:
        while True:
            await anyio.sleep(0.25)
            played = 0
            if self._peer.media.audio_out:
                played = self._peer.audio_out.statistics().played
            spoken = min(played, self._speech.shape[1]) / SAMPLE_RATE
            heard = (self._position or 0) / SAMPLE_RATE
            self._report({"event": "progress", "played": spoken, "heard": heard})

    async def _summarise(self, out: Path | None) -> dict[str, Any]:
        reports = await self._peer.transport_statistics()
        trips = [r.get("roundTripTime") for r in reports.values()]
        summary: dict[str, Any] = {
            "ended": self._closed is not None,
            "said_seconds": self._speech.shape[1] / SAMPLE_RATE,
            "network_round_trip": next((trip for trip in trips if trip), None),
        }
        if not self._peer.media.audio_in:
            return summary
        inbound = [r for r in reports.values() if r["type"] == "inbound-rtp"]
        heard = self._recorded[:, : self._position or 0]
        if out is not None:
            _write_wav(out, heard)
        return {
            **summary,
            "heard_seconds": heard.shape[1] / SAMPLE_RATE,
            "frames": sum(report["packetsReceived"] for report in inbound),
            "lost": sum(report["packetsLost"] for report in inbound)
            + self._peer.audio_in.statistics().dropped,
            **_measure(self._speech[0], heard[0]),
        }


async def hear_live(peer: WebRTCPeer) -> None:
    """Pass over what came before now, so that what is heard next is what is just being said."""
    await peer.audio_in.receive()
    while peer.audio_in.statistics().buffered:
        await peer.audio_in.receive()


def _measure(said: Any, heard: Any) -> dict[str, Any]:
    """How late what came back is: as an echo, and as an answer."""
    loud = np.flatnonzero(np.abs(heard.astype(np.int32)) > _LOUD)
    later = loud[loud >= said.size]
    echo = compare(said, heard, SAMPLE_RATE) if said.size and heard.size else None
    is_echo = echo is not None and echo.correlation >= _ECHO
    return {
        "latency": echo.lag if echo is not None and is_echo else None,
        "correlation": 0.0 if echo is None else echo.correlation,
        "first_sound": float(loud[0]) / SAMPLE_RATE if loud.size else None,
        "answer_after": float(later[0] - said.size) / SAMPLE_RATE
        if later.size and said.size and not is_echo
        else None,
    }


def _read_speech(path: Path | None) -> Int16Array:
    if path is None:
        return np.zeros((1, 0), np.int16)
    try:
        with wave.open(str(path)) as file:
            rate, channels, width = file.getframerate(), file.getnchannels(), file.getsampwidth()
            data = file.readframes(file.getnframes())
    except OSError as exc:
        raise _CallFailed(f"{path} cannot be read as WAV: {_words(exc)}") from exc
    except (EOFError, wave.Error) as exc:
        why = f"{_words(exc)}; wanted is PCM of 16 bits"
        raise _CallFailed(f"{path} cannot be read as WAV: {why}") from exc
    if width != 2:
        raise _CallFailed(f"{path} has samples of {8 * width} bits; it must be WAV of 16 bits")
    samples = mix_channels(np.frombuffer(data, "<i2").reshape(-1, channels).T.astype(np.int16), 1)
    if rate == SAMPLE_RATE:
        return samples
    try:
        resampler = StreamResampler(rate, SAMPLE_RATE, 1)
        return np.concatenate([resampler.push(samples), resampler.flush()], axis=1)
    except (UnsupportedFormat, ValueError) as exc:
        raise _CallFailed(f"{path} cannot be resampled: {exc}") from exc


def _check_writable(path: Path | None) -> None:
    """Before the call: nobody wants to learn it when the call is over."""
    if path is None:
        return
    try:
        new = not path.exists()
        path.open("ab").close()
        if new:
            path.unlink()
    except OSError as exc:
        raise _CallFailed(f"{path} cannot be written: {_words(exc)}") from exc


def _words(error: Exception) -> str:
    """An error without numbers that only programs know."""
    if isinstance(error, EOFError):
        return "it ends too soon"
    text = (error.strerror if isinstance(error, OSError) else None) or str(error)
    return re.sub(r"^\[Errno -?\d+\] ", "", text) or type(error).__name__


def _write_wav(path: Path, samples: Int16Array) -> None:
    try:
        with path.open("wb") as opened, wave.open(opened, "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(SAMPLE_RATE)
            file.writeframes(samples.tobytes())
    except OSError as exc:
        raise _CallFailed(f"{path} cannot be written: {_words(exc)}") from exc


def main() -> None:
    """``URL OUT.wav``"""
    url, out = sys.argv[1:]
    anyio.run(call, url, Path(out), backend="trio")


if __name__ == "__main__":
    main()
