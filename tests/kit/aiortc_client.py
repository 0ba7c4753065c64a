"""A WebRTC client made of plain aiortc, as a browser would be; it uses no code of this package.

It runs in a thread with a separate asyncio loop.
"""

from __future__ import annotations

import asyncio
import queue
import re
import threading
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator
from contextlib import asynccontextmanager, contextmanager
from fractions import Fraction
from functools import partial
from typing import Any, TypeVar

import aioice
import anyio
import anyio.to_thread
import numpy as np
from aiortc import (
    MediaStreamTrack,
    RTCConfiguration,
    RTCDataChannel,
    RTCPeerConnection,
    RTCRtpSender,
    RTCSessionDescription,
)
from aiortc.mediastreams import MediaStreamError
from aiortc.rtcconfiguration import RTCBundlePolicy
from av import AudioFrame as AvAudioFrame
from av import VideoFrame as AvVideoFrame

from fastrtc_anyio import AudioFrame

T = TypeVar("T")


class Microphone(MediaStreamTrack):
    """Sends a queued frame every 20 ms, or silence if the queue is empty."""

    kind = "audio"

    def __init__(self, sample_rate: int = 48_000, channels: int = 1) -> None:
        super().__init__()
        self.frames: queue.SimpleQueue[np.ndarray[Any, np.dtype[np.int16]]] = queue.SimpleQueue()
        self.sample_rate, self.channels = sample_rate, channels
        self._count = 0
        self._start: float | None = None

    async def recv(self) -> AvAudioFrame:
        loop = asyncio.get_running_loop()
        if self._start is None:
            self._start = loop.time()
        await asyncio.sleep(self._start + self._count * 0.02 - loop.time())
        size = self.sample_rate // 50
        try:
            samples = self.frames.get_nowait()
        except queue.Empty:
            samples = np.zeros((self.channels, size), np.int16)
        layout = "stereo" if self.channels == 2 else "mono"
        packed = np.ascontiguousarray(samples.T).reshape(1, -1)
        frame = AvAudioFrame.from_ndarray(packed, format="s16", layout=layout)
        frame.sample_rate = self.sample_rate
        frame.pts = self._count * size
        frame.time_base = Fraction(1, self.sample_rate)
        self._count += 1
        return frame


class Camera(MediaStreamTrack):
    """Sends the latest ``picture`` 30 times a second."""

    kind = "video"

    def __init__(self, width: int = 320, height: int = 240) -> None:
        super().__init__()
        self.picture: Any = np.zeros((height, width, 3), np.uint8)
        self._count = 0
        self._start: float | None = None

    async def recv(self) -> AvVideoFrame:
        loop = asyncio.get_running_loop()
        if self._start is None:
            self._start = loop.time()
        await asyncio.sleep(self._start + self._count / 30 - loop.time())
        frame = AvVideoFrame.from_ndarray(self.picture, format="bgr24")
        frame.pts = self._count * 3000
        frame.time_base = Fraction(1, 90_000)
        self._count += 1
        return frame


class AiortcClient:
    """One call. Methods that are not coroutines may be called from any thread."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        microphone: Microphone | None,
        camera: Camera | None = None,
    ) -> None:
        self._loop = loop
        self.microphone = microphone or Microphone()
        self.camera = camera or Camera()
        self.seen: list[AvVideoFrame] = []
        self.pc: RTCPeerConnection
        self.heard: queue.SimpleQueue[AudioFrame | None] = queue.SimpleQueue()
        self.inbox: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self.channel: RTCDataChannel | None = None
        self.answer: dict[str, Any] = {}
        self._unsent: list[str] = []
        self._described = ""
        self._restarted: Any = None
        self.connected = threading.Event()
        self.closed = threading.Event()
        self._tasks: set[asyncio.Task[Any]] = set()

    def run(self, function: Callable[..., Coroutine[Any, Any, T]], *args: Any) -> T:
        """Run a coroutine function on the client's loop, and block this thread until it returns."""
        return asyncio.run_coroutine_threadsafe(function(*args), self._loop).result(20)

    @property
    def channel_is_open(self) -> bool:
        return self.channel is not None and self.channel.readyState == "open"

    async def make_offer(
        self,
        codec: str | None,
        channel: bool,
        audio: bool | str = True,
        video: str | None = None,
        video_codec: str | None = None,
    ) -> str:
        """``audio`` and ``video`` may be directions, one for each section: sendonly+recvonly."""
        # Not the default, with which aiortc 1.16 cannot join the second section of a kind.
        policy = RTCBundlePolicy.MAX_COMPAT
        self.pc = pc = RTCPeerConnection(RTCConfiguration(iceServers=[], bundlePolicy=policy))
        directions = audio if isinstance(audio, str) else "sendrecv" if audio else ""
        self._add_sections("audio", directions, self.microphone, codec)
        self._add_sections("video", video or "", self.camera, video_codec)
        if channel:
            self.channel = pc.createDataChannel("text")
            self.channel.on("message", self.inbox.put)
            self.channel.on("open", self._flush)
        pc.on("track", self._on_track)
        pc.on("connectionstatechange", self._on_state)
        for transport in _transports(pc):
            _use_loopback(transport)
        await pc.setLocalDescription(await pc.createOffer())
        self._described = pc.localDescription.sdp
        return self._described

    def _add_sections(
        self, kind: str, directions: str, track: MediaStreamTrack, codec: str | None
    ) -> None:
        for direction in directions.split("+") if directions else []:
            source: Any = kind if direction == "recvonly" else track
            transceiver = self.pc.addTransceiver(source, direction)
            if codec is not None:
                wanted = f"{kind}/{codec}".lower()
                codecs = RTCRtpSender.getCapabilities(kind).codecs
                transceiver.setCodecPreferences([c for c in codecs if c.mimeType.lower() == wanted])

    async def accept(self, sdp: str) -> None:
        await self.pc.setRemoteDescription(RTCSessionDescription(sdp, "answer"))

    async def close(self) -> None:
        await self._close_restarted()
        await self.pc.close()

    async def vanish(self) -> None:
        """Close every socket without sending a DTLS alert."""
        for transport in _transports(self.pc):
            for protocol in transport.transport._connection._protocols:
                protocol.transport.abort()

    async def offer_restart(self) -> str:
        """Begin an ICE restart on new sockets, which aiortc cannot, and return its offer."""
        await self._close_restarted()
        new: Any = aioice.Connection(ice_controlling=True)
        self._restarted = new
        new.get_component_candidates = partial(_gather_on_loopback, new.get_component_candidates)
        await new.gather_candidates()
        for name in ("ufrag", "pwd"):
            value = new.local_username if name == "ufrag" else new.local_password
            self._described = re.sub(rf"a=ice-{name}:.*", f"a=ice-{name}:{value}", self._described)
        sdp = re.sub(r"a=(candidate:|end-of-candidates).*\r\n", "", self._described)
        lines = [f"a=candidate:{candidate.to_sdp()}\r\n" for candidate in new.local_candidates]
        return re.sub(r"(?m)^(m=.*\r\n)", rf"\1{''.join(lines)}", sdp, count=1)

    async def connect_restart(self, sdp: str) -> None:
        """Connect the new path with the answer to a restart."""
        new = self._restarted
        new.remote_username, *_ = re.findall(r"a=ice-ufrag:(\S+)", sdp)
        new.remote_password, *_ = re.findall(r"a=ice-pwd:(\S+)", sdp)
        for line in re.findall(r"a=candidate:(.*\S)", sdp):
            await new.add_remote_candidate(aioice.Candidate.from_sdp(line))
        await new.connect()

    async def accept_restart(self, sdp: str) -> None:
        """Apply the answer to a restart, and use the new path once it is connected."""
        (ice_transport,) = {transport.transport for transport in _transports(self.pc)}
        old, new = ice_transport._connection, self._restarted
        new._queue = old._queue
        await self.connect_restart(sdp)
        self._restarted = None
        ice_transport._recv, ice_transport._send = new.recv, new.send
        ice_transport._connection = new
        new._event_waiter, old._event_waiter = old._event_waiter, None
        old._queue = asyncio.Queue()
        await old.close()

    async def _close_restarted(self) -> None:
        """Close the sockets of a restart that is not used."""
        if self._restarted is not None:
            await self._restarted.close()

    # The interface of check_peer.

    def send_audio(self, frame: AudioFrame) -> None:
        self.microphone.frames.put(frame.samples)

    async def receive_audio(self) -> AudioFrame:
        frame = await anyio.to_thread.run_sync(self.heard.get, abandon_on_cancel=True)
        if frame is None:
            raise anyio.EndOfStream
        return frame

    def send_message(self, text: str) -> None:
        self._loop.call_soon_threadsafe(self._send, text)

    async def receive_message(self) -> str:
        text = await anyio.to_thread.run_sync(self.inbox.get, abandon_on_cancel=True)
        if text is None:
            raise anyio.EndOfStream
        return text

    def hang_up(self) -> None:
        asyncio.run_coroutine_threadsafe(self.close(), self._loop)

    def _send(self, text: str) -> None:
        self._unsent.append(text)
        self._flush()

    def _flush(self) -> None:
        assert self.channel is not None
        while self._unsent and self.channel.readyState == "open":
            self.channel.send(self._unsent.pop(0))

    def _on_track(self, track: MediaStreamTrack) -> None:
        listen = self._listen if track.kind == "audio" else self._watch
        task = self._loop.create_task(listen(track))
        self._tasks.add(task)

    async def _listen(self, track: MediaStreamTrack) -> None:
        try:
            while True:
                frame: Any = await track.recv()
                channels = len(frame.layout.channels)
                packed = frame.to_ndarray().reshape(-1, channels)
                self.heard.put(AudioFrame(frame.sample_rate, packed.T.copy()))
        except MediaStreamError:
            self.heard.put(None)

    async def _watch(self, track: MediaStreamTrack) -> None:
        try:
            while True:
                frame = await track.recv()
                assert isinstance(frame, AvVideoFrame)
                self.seen.append(frame)
        except MediaStreamError:
            pass

    def _on_state(self) -> None:
        if self.pc.connectionState == "connected":
            self.connected.set()
        if self.pc.connectionState in ("closed", "failed"):
            self.closed.set()
            self.inbox.put(None)


@contextmanager
def client_loop() -> Generator[asyncio.AbstractEventLoop, None, None]:
    """Run an asyncio loop in a thread."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="client", daemon=True)
    thread.start()
    try:
        yield loop
    finally:
        asyncio.run_coroutine_threadsafe(_end_tasks(), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()


async def _end_tasks() -> None:
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


@asynccontextmanager
async def open_client(
    microphone: Microphone | None = None, camera: Camera | None = None
) -> AsyncGenerator[AiortcClient, None]:
    """Open a client, and close it at the end."""
    with client_loop() as loop:
        client = AiortcClient(loop, microphone, camera)
        try:
            yield client
        finally:
            if hasattr(client, "pc"):
                with anyio.CancelScope(shield=True):
                    await anyio.to_thread.run_sync(client.run, client.close)


def _transports(pc: RTCPeerConnection) -> set[Any]:
    found = {t.sender.transport for t in pc.getTransceivers()}
    if pc.sctp is not None:
        found.add(pc.sctp.transport)
    return found


def _use_loopback(transport: Any) -> None:
    connection = transport.transport._connection
    gather = connection.get_component_candidates
    connection.get_component_candidates = partial(_gather_on_loopback, gather)


async def _gather_on_loopback(
    gather: Any, component: int, addresses: list[str], timeout: int = 5
) -> Any:
    return await gather(component, ["127.0.0.1"], timeout)
