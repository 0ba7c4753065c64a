"""Place one call to a stream over WebRTC: play speech, record and measure the response."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypedDict
from urllib.parse import urlsplit

import anyio
import httpx
import numpy as np
from anyio import create_task_group, move_on_after

from fastrtc_anyio._core.groups import collapse_groups
from fastrtc_anyio._media.frames import Int16Array, mix_channels
from fastrtc_anyio._media.media_plan import MediaPlan
from fastrtc_anyio._peers.portal import Portal, open_portal
from fastrtc_anyio._peers.webrtc import WebRTCPeer, local_addresses
from fastrtc_anyio._signaling.ice import RtcConfiguration
from fastrtc_anyio._signaling.requests import SessionDescription
from fastrtc_anyio.errors import Closed, CloseReason, PeerError

from .inputs import InputError, choose_inputs
from .measure import compare
from .remote_stream import CallFailed, RemoteStream
from .wav import WavError, check_writable, read_wav, write_wav

SAMPLE_RATE = 48_000
SPEECH = Path(__file__).with_name("speech.wav")
"""A sentence in English."""
_CONNECT_SECONDS = 30.0
_LIVENESS = 4.0
"""Seconds without any packet after which the connection is lost."""
_LOSSES = 3
"""Lost connections after which the call is repeated."""
_PAUSES = (0.3, 1.0, 2.0, 4.0, 8.0)
"""Seconds before each attempt to call again."""
_ECHO = 0.5  # correlation from which the response counts as an echo
_LOUD = 500  # amplitude above which a sample counts as sound


@dataclass(frozen=True)
class CallOptions:
    """Options of a call."""

    speech: Path
    listen: float
    """Seconds to listen after the speech."""
    headers: Mapping[str, str]
    out: Path | None
    """File for the recording."""
    messages: Sequence[str] = ()
    inputs: Sequence[str] = ()
    """``name=value`` in place of the default of an input."""


class CallReport(TypedDict, total=False):
    """Measurements of a call; times are in seconds."""

    url: str
    ok: bool
    error: str
    status: int  # HTTP
    connect_seconds: float
    network_round_trip: float | None
    connections_lost: int  # before this call, which repeats a lost one
    ended: bool  # by the server
    ended_because: str
    said_seconds: float
    heard_seconds: float
    frames: int
    lost: int
    correlation: float  # 1 if the response is the same sound
    latency: float | None  # of an echo
    first_sound: float | None  # after the beginning of the speech
    answer_after: float | None  # after the end of the speech, unless it is an echo
    out: str


class CallMonitor(Protocol):
    """Observer of a call: the time to connect, seconds played and recorded, messages, losses."""

    def connected(self, seconds: float) -> None: ...
    def progress(self, said: float, heard: float) -> None: ...
    def message(self, text: str) -> None: ...
    def lost(self, text: str) -> None: ...


async def place_call(url: str, options: CallOptions, monitor: CallMonitor) -> CallReport:
    """Call the stream at ``url``, which is the URL of its page.

    A call whose connection is lost is repeated from its beginning, in a session that continues the
    lost one.

    Raises:
        CallFailed: the call was refused, did not connect or broke; or a WAV file is unusable.
    """
    try:
        speech = read_wav(options.speech, SAMPLE_RATE)
        if options.out is not None:
            check_writable(options.out)
        async with open_portal() as portal, httpx.AsyncClient(headers=options.headers) as http:
            server = RemoteStream(http, url.rstrip("/"))
            caller = _Caller(portal, url, server, speech, options, monitor)
            return await caller.call()
    except (InputError, WavError) as exc:
        raise CallFailed(str(exc)) from exc


class _ConnectionLost(Exception):
    """A connected call has ended without the will of the server."""


class _Caller:
    """Calls a stream, and calls again when the connection is lost."""

    def __init__(
        self,
        portal: Portal,
        url: str,
        server: RemoteStream,
        speech: Int16Array,
        options: CallOptions,
        monitor: CallMonitor,
    ) -> None:
        self._portal = portal
        self._url = url
        self._server = server
        self._speech = speech
        self._options = options
        self._monitor = monitor

    async def call(self) -> CallReport:
        peer, losses = await self._connect(), 0
        while True:
            try:
                return {**await self._talk(peer), "connections_lost": losses}
            except _ConnectionLost as exc:
                losses += 1
                if losses > _LOSSES:
                    text = f"the connection was lost {losses} times: {exc}"
                    raise CallFailed(text) from None
                self._monitor.lost(f"the connection is lost: {exc}; calling again")
            finally:
                with anyio.CancelScope(shield=True):
                    await peer.aclose()
            peer = await self._connect_again()

    async def _talk(self, peer: WebRTCPeer) -> CallReport:
        for text in self._options.messages:
            peer.messages.send_nowait(text)
        listen = self._options.listen
        call = _Conversation(peer, self._server, self._speech, listen, self._monitor)
        return await call.run(self._options.out)

    async def _connect_again(self) -> WebRTCPeer:
        """Connect after a loss: the server may be back in a moment, or be full until then."""
        wait, failed = 0.0, ""
        for pause in _PAUSES:
            await anyio.sleep(max(pause, wait))
            try:
                return await self._connect()
            except CallFailed as exc:
                if not exc.is_passing:
                    raise
                wait, failed = exc.retry_after, str(exc)
        text = f"the connection was lost, and {len(_PAUSES)} attempts to call again failed"
        raise CallFailed(f"{text}: {failed}")

    async def _connect(self) -> WebRTCPeer:
        config = await self._server.request_config()  # for each call: TURN credentials expire
        self._server.inputs = choose_inputs(config, self._options.inputs)
        peer = _make_peer(self._portal, self._url, config)
        try:
            began = anyio.current_time()
            try:
                offer = await peer.offer()
                answer = await self._server.send_offer(offer.sdp)
                await peer.accept(SessionDescription("answer", answer))
                with anyio.fail_after(_CONNECT_SECONDS):
                    await peer.wait_connected()
            except TimeoutError:
                text = f"no connection within {_CONNECT_SECONDS:g} s"
                raise CallFailed(text, is_passing=True) from None
            except PeerError as exc:
                raise CallFailed(f"no connection: {exc}", is_passing=True) from exc
            self._monitor.connected(anyio.current_time() - began)
            await self._server.send_inputs()
        except BaseException:
            with anyio.CancelScope(shield=True):
                await peer.aclose()
            raise
        return peer


def _make_peer(portal: Portal, url: str, config: Mapping[str, object]) -> WebRTCPeer:
    modality, mode = config.get("modality", "audio"), config.get("mode", "send-receive")
    if modality == "video":
        raise CallFailed("the stream has no audio")
    addresses = local_addresses()
    if urlsplit(url).hostname in ("127.0.0.1", "localhost", "::1") or not addresses:
        addresses = ("127.0.0.1", *addresses)
    asked = config.get("rtc_configuration")
    asked = asked if isinstance(asked, dict) else {}
    wanted = {name: asked.get(name) for name in ("iceServers", "iceTransportPolicy")}
    try:
        server = MediaPlan.of(modality, mode)  # type: ignore[arg-type]  # it checks them
        configuration = RtcConfiguration.parse({**wanted, "addresses": addresses})
    except ValueError as exc:
        raise CallFailed(f"the server's configuration is invalid: {exc}") from exc
    media = MediaPlan(server.audio_out, server.audio_in, server.video_out, server.video_in)
    return WebRTCPeer(
        portal,
        media=media,
        sample_rate=SAMPLE_RATE,
        configuration=configuration,
        liveness_s=_LIVENESS,
    )


async def discard_backlog(peer: WebRTCPeer) -> None:
    """Wait up to 1 s for audio, which then flows in both directions, and empty its queue."""
    with move_on_after(1):
        await peer.audio_in.receive()
        while peer.audio_in.statistics().buffered:
            await peer.audio_in.receive()


class _Conversation:
    """One connected call."""

    def __init__(
        self,
        peer: WebRTCPeer,
        server: RemoteStream,
        speech: Int16Array,
        listen: float,
        monitor: CallMonitor,
    ) -> None:
        self._peer = peer
        self._server = server
        self._speech = speech if peer.media.audio_out else speech[:, :0]
        self._monitor = monitor
        self._seconds = self._speech.shape[1] / SAMPLE_RATE + listen
        self._recorded = np.zeros((1, round((self._seconds + 1) * SAMPLE_RATE)), np.int16)
        self._position: int | None = None
        self._closed: Closed | None = None

    async def run(self, out: Path | None) -> CallReport:
        """Play the speech, and record from its first sample on.

        Raises:
            _ConnectionLost: the connection did not last.
        """
        try:
            with collapse_groups():
                await self._talk()
        except anyio.BrokenResourceError:
            self._closed = await self._peer.wait_closed()
        if self._closed is not None and self._closed.reason is not CloseReason.HUNG_UP:
            raise _ConnectionLost(self._closed.message)
        return await self._measure(out)

    async def _talk(self) -> None:
        peer = self._peer
        async with create_task_group() as tg:
            if peer.media.audio_in and peer.media.audio_out:
                await discard_backlog(peer)
            self._began = anyio.current_time()
            tg.start_soon(self._read_messages)
            tg.start_soon(self._report_progress)
            with move_on_after(self._seconds) as call_time:
                tg.start_soon(self._watch, call_time)
                if self._speech.size:
                    await peer.audio_out.send((SAMPLE_RATE, self._speech))
                    self._began = anyio.current_time()
                if peer.media.audio_in:
                    await self._record()
                await anyio.sleep_forever()
            tg.cancel_scope.cancel()

    async def _record(self) -> None:
        with suppress(anyio.BrokenResourceError):  # _watch() has the reason
            async for frame in self._peer.audio_in:
                if self._position is None:
                    passed = anyio.current_time() - self._began
                    self._position = max(0, round(passed * SAMPLE_RATE))
                mono = mix_channels(frame.samples, 1)
                end = self._position + mono.shape[1]
                room = self._recorded[:, self._position : end]
                room[:] = mono[:, : room.shape[1]]
                self._position = end

    async def _watch(self, call_time: anyio.CancelScope) -> None:
        self._closed = await self._peer.wait_closed()
        call_time.cancel()

    async def _read_messages(self) -> None:
        with suppress(anyio.BrokenResourceError):
            async for text in self._peer.messages:
                if self._server.inputs and _is_request_for_inputs(text):
                    await self._server.send_inputs()
                else:
                    self._monitor.message(text)

    async def _report_progress(self) -> None:
        while True:
            await anyio.sleep(0.25)
            played = 0
            if self._peer.media.audio_out:
                played = self._peer.audio_out.statistics().played
            said = min(played, self._speech.shape[1]) / SAMPLE_RATE
            self._monitor.progress(said, (self._position or 0) / SAMPLE_RATE)

    async def _measure(self, out: Path | None) -> CallReport:
        reports = await self._peer.transport_statistics()
        trips = [r.get("roundTripTime") for r in reports.values()]
        result: CallReport = {
            "ended": self._closed is not None,
            "said_seconds": self._speech.shape[1] / SAMPLE_RATE,
            "network_round_trip": next(filter(None, trips), None),
        }
        if not self._peer.media.audio_in:
            return result
        inbound = [r for r in reports.values() if r["type"] == "inbound-rtp"]
        heard = self._recorded[:, : self._position or 0]
        if out is not None:
            write_wav(out, heard, SAMPLE_RATE)
        return {
            **result,
            **_compare_response(self._speech[0], heard[0]),
            "heard_seconds": heard.shape[1] / SAMPLE_RATE,
            "frames": sum(report["packetsReceived"] for report in inbound),
            "lost": sum(report["packetsLost"] for report in inbound)
            + self._peer.audio_in.statistics().dropped,
        }


def _is_request_for_inputs(text: str) -> bool:
    try:
        message = json.loads(text)
    except ValueError:
        return False
    return isinstance(message, dict) and message.get("type") == "send_input"


def _compare_response(said: Int16Array, heard: Int16Array) -> CallReport:
    """Measure the delay of a response as an echo and as an answer. Samples have shape ``(n,)``."""
    loud = np.flatnonzero(np.abs(heard.astype(np.int32)) > _LOUD)
    later = loud[loud >= said.size]
    found = compare(said, heard, SAMPLE_RATE)
    is_echo = found.correlation >= _ECHO
    answered = later.size and said.size and not is_echo
    return {
        "correlation": found.correlation,
        "latency": found.lag if is_echo else None,
        "first_sound": float(loud[0]) / SAMPLE_RATE if loud.size else None,
        "answer_after": float(later[0] - said.size) / SAMPLE_RATE if answered else None,
    }
