"""A complete call in memory: a real session with a test in place of the browser."""

from __future__ import annotations

import warnings
from collections.abc import AsyncGenerator, Iterable, Mapping
from contextlib import (
    AbstractAsyncContextManager,
    AbstractContextManager,
    asynccontextmanager,
    nullcontext,
)
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, TypeAlias

import anyio
import numpy as np
from anyio import create_task_group
from numpy.typing import NDArray

from fastrtc_anyio._core.groups import collapse_groups
from fastrtc_anyio._core.host import Host
from fastrtc_anyio._core.options import check_number, check_type, short_repr
from fastrtc_anyio._driver import HandlerDriver
from fastrtc_anyio._driver.factory import FunctionDriver, Handler, make_driver_factory
from fastrtc_anyio._media.convert import AudioConverter
from fastrtc_anyio._media.frames import FRAMES_PER_SECOND, AudioFrame, Int16Array
from fastrtc_anyio._media.media_plan import MediaNeeds, MediaPlan, Modality, Mode
from fastrtc_anyio._media.read import read_audio
from fastrtc_anyio._peers.asyncio_bridge import open_asyncio_bridge
from fastrtc_anyio._peers.memory import MemoryClient, MemoryPeer
from fastrtc_anyio._peers.streams.audio import BufferOptions
from fastrtc_anyio._signaling.messages import DIGITS, dump_json, encode_message, load_json
from fastrtc_anyio._wire.payload import MULAW_8K
from fastrtc_anyio.conversation import ReplyOnPause
from fastrtc_anyio.handlers import (
    AsyncAudioVideoStreamHandler,
    AudioVideoStreamHandler,
    StreamHandlerBase,
    VideoStreamHandler,
)
from fastrtc_anyio.limits import Limits
from fastrtc_anyio.observability._dispatch import Observers
from fastrtc_anyio.observability.observer import Observer
from fastrtc_anyio.resumption import Resumed
from fastrtc_anyio.session import Driver, Session
from fastrtc_anyio.speech.silero import SileroVad
from fastrtc_anyio.stream import Stream

from .link import EmulatedLink, LinkFaults
from .virtual_time import THREAD_LIMIT, virtual_time

__all__ = ["Call", "NoSpeechWarning", "OpenCall", "open_call"]

Samples: TypeAlias = Int16Array | NDArray[np.float32]

PHONE_RATE = MULAW_8K.sample_rate


class NoSpeechWarning(UserWarning):
    """A call that takes turns has ended without speech in the audio that the test sent."""


@dataclass
class Call:
    """A running call."""

    session: Session
    peer: MemoryPeer
    client: MemoryClient
    ended: anyio.Event
    """Set when the session has ended and released its resources."""

    phone: bool = False
    """Whether the client is a telephone."""
    _loudest: int = field(default=0, repr=False)
    _spoken_s: float = field(default=0.0, repr=False)

    async def speak(
        self, samples: Samples | tuple[int, Samples], sample_rate: int = 48_000
    ) -> None:
        """Send audio in real time, 20 ms every 20 ms, and return after the last frame.

        A telephone sends it with its own 8000 Hz, in mono.

        Args:
            samples: int16 or float32, shape ``(channels, n)`` or ``(n,)``; or a tuple of the sample
                rate and such an array, which :func:`spoken` returns.
            sample_rate: sample rate in Hz, without such a tuple.

        Raises:
            UnsupportedFormat: another type, dtype, shape or rate.
        """
        audio = read_audio(samples if isinstance(samples, tuple) else (sample_rate, samples))
        sample_rate, samples = audio
        self._spoken_s += samples.shape[1] / sample_rate
        self._loudest = max(self._loudest, int(np.abs(samples.astype(np.int32)).max(initial=0)))
        if self.phone:
            convert = AudioConverter(PHONE_RATE, 1, primed=True)
            samples, sample_rate = convert(AudioFrame(sample_rate, samples)), PHONE_RATE
        size = sample_rate // FRAMES_PER_SECOND
        due = anyio.current_time()
        for start in range(0, samples.shape[1], size):
            self.client.send_audio(AudioFrame(sample_rate, samples[:, start : start + size]))
            due += 1 / FRAMES_PER_SECOND
            await anyio.sleep_until(due)

    def press(self, keys: str) -> None:
        """Press keys of a telephone: one ``on_dtmf`` for each.

        Args:
            keys: characters of "0123456789*#ABCD".

        Raises:
            TypeError: ``keys`` is not a str.
            ValueError: for other characters.
        """
        check_type("keys", keys, str)
        if not keys or any(key not in DIGITS for key in keys):
            raise ValueError(f"keys must be characters of {DIGITS!r}; got {keys!r}")
        for key in keys:
            self.client.send_message(encode_message("dtmf", key))

    def send_message(self, message: str | Mapping[str, object]) -> None:
        """Send a message over the data channel: a text, or an object that becomes JSON.

        Raises:
            TypeError: the message is neither, or a value of the object has no JSON form.
        """
        if not isinstance(message, str | Mapping):
            raise TypeError(f"message must be a str or a mapping; got {short_repr(message)}")
        self.client.send_message(message if isinstance(message, str) else dump_json(message))

    async def receive_message(self, kind: str | None = None) -> dict[str, Any]:
        """Wait for a message of the session, a JSON object, and skip others.

        Args:
            kind: its ``"type"``, such as ``"transcript"``; by default, any.

        Raises:
            anyio.EndOfStream: the call has ended without such a message.
        """
        while True:
            text = await self.client.receive_message()
            try:
                message = load_json(text)
            except ValueError:
                continue
            if isinstance(message, dict) and kind in (None, message.get("type")):
                return message

    @property
    def heard(self) -> Int16Array:
        """Audio that the client has received so far, silence included: int16, shape
        ``(channels, n)``, at ``session.audio_out.sample_rate``."""
        pieces = self.client.heard
        channels = self.peer.audio_out.channels
        return np.concatenate([np.empty((channels, 0), np.int16), *pieces], axis=1)

    def _warn_of_silence(self, handler: ReplyOnPause) -> None:
        """Warn if turn taking found no speech in what the test sent."""
        if handler.speech_detected or not self._loudest or self.session.error is not None:
            return
        detector, reason = _describe_detector(handler)
        warnings.warn(
            f"{detector} detected no speech in {self._spoken_s:.1f} s of audio with a peak of "
            f"{self._loudest} of 32767, so there was no reply. {reason}",
            NoSpeechWarning,
            stacklevel=2,
        )


def _describe_detector(handler: ReplyOnPause) -> tuple[str, str]:
    """Name what detects speech for a handler, and say how a test reaches it."""
    if handler.determines_pauses:
        name = f"{type(handler).__name__}.determine_pause"
        return name, "It has not set state.started_talking"
    name = type(handler.model).__name__
    if isinstance(handler.model, SileroVad):
        return name, (
            "It does not take tones or noise for speech: send fastrtc_anyio.testing.spoken(), or "
            "take turns with model=EnergyVad()"
        )
    return name, (
        f"No probability of it was {handler.speech_probability:g} or more: send "
        "fastrtc_anyio.testing.spoken() or louder audio, or take turns with another model="
    )


class OpenCall(Protocol):
    """Type of :func:`open_call`, and of pytest's fixture with this name."""

    def __call__(
        self,
        handler: Handler,
        *,
        modality: Modality | None = None,
        mode: Mode = "send-receive",
        limits: Limits | None = None,
        connect: bool = True,
        channel: bool = True,
        phone: bool = False,
        live: bool | None = None,
        output_buffer_s: float | None = None,
        input_buffer_s: float = 1.0,
        uplink: LinkFaults | None = None,
        downlink: LinkFaults | None = None,
        inputs: tuple[object, ...] | None = None,
        identity: str | None = None,
        resumed_from: Resumed | None = None,
        raise_errors: bool = True,
        observers: Iterable[Observer] = (),
        thread_limit: float = THREAD_LIMIT,
    ) -> AbstractAsyncContextManager[Call]:
        """Call a handler; see :func:`open_call`."""
        ...


@asynccontextmanager
async def open_call(
    handler: Handler,
    *,
    modality: Modality | None = None,
    mode: Mode = "send-receive",
    limits: Limits | None = None,
    connect: bool = True,
    channel: bool = True,
    phone: bool = False,
    live: bool | None = None,
    output_buffer_s: float | None = None,
    input_buffer_s: float = 1.0,
    uplink: LinkFaults | None = None,
    downlink: LinkFaults | None = None,
    inputs: tuple[object, ...] | None = None,
    identity: str | None = None,
    resumed_from: Resumed | None = None,
    raise_errors: bool = True,
    observers: Iterable[Observer] = (),
    thread_limit: float = THREAD_LIMIT,
) -> AsyncGenerator[Call, None]:
    """Call a handler. Leaving the block hangs up and waits for the end of the session.

    Under trio's ``MockClock`` the whole call runs on virtual time. Synchronous handlers run on real
    threads, and the clock stops until they return.

    Args:
        handler: any handler that a ``Stream`` accepts. A handler object serves this call itself,
            without being copied.
        modality: as for ``Stream``; by default that of the handler's class, or audio.
        mode: as for ``Stream``.
        limits: deadlines of the session.
        connect: connect the client at once.
        channel: open its data channel at once.
        phone: call from a telephone: the handler's ``phone_mode`` is set, audio has 8000 Hz in both
            directions, and the client receives no messages.
        live: as for ``Stream``.
        output_buffer_s: seconds of audio that the handler may produce in advance.
        input_buffer_s: seconds of audio to buffer for a slow handler.
        uplink: faults of the link from the client.
        downlink: faults of the link to the client.
        inputs: inputs that the client set before the call.
        identity: the client's identity, as if ``authenticate`` had returned it.
        resumed_from: what the session continues, as if the client had called again.
        raise_errors: raise the handler's error; otherwise it is only in ``call.session.error``.
        observers: as for ``Stream``.
        thread_limit: on a virtual clock, maximum seconds of real time for one call of a synchronous
            method. Increase it for large models.

    Raises:
        Exception: the handler raised it.

    Warns:
        NoSpeechWarning: a :class:`~fastrtc_anyio.ReplyOnPause`, or ``session.utterances()``,
            detected no speech in the whole call, although :meth:`Call.speak` sent sound.
    """
    if isinstance(handler, Stream):
        raise TypeError(f"handler must not be a Stream: pass stream.handler; got {handler!r}")
    check_type("limits", limits, Limits, optional=True)
    check_type("uplink", uplink, LinkFaults, optional=True)
    check_type("downlink", downlink, LinkFaults, optional=True)
    check_number("thread_limit", thread_limit, above=0, unit="s", finite=False)
    if not isinstance(inputs, tuple | list | None):
        raise TypeError(f"inputs must be a tuple; got {short_repr(inputs)}")
    modality = modality or _modality_of(handler)
    media = MediaPlan.of(modality, mode)
    make_driver = make_driver_factory(handler, modality, mode)
    driver = HandlerDriver(handler) if isinstance(handler, StreamHandlerBase) else make_driver()
    if driver.handler is not None:
        driver.handler.phone_mode |= phone
        if inputs is not None:
            driver.handler.set_args(list(inputs))
    buffers = BufferOptions.choose(
        driver.needs.live if live is None else live, output_buffer_s, input_buffer_s
    )
    needs = replace(driver.needs, sample_rate=PHONE_RATE, channels=1) if phone else driver.needs
    peer = _make_peer(needs, media, buffers, uplink, downlink, phone)
    with collapse_groups(), _virtual_time(thread_limit):
        watched = Observers(observers)
        async with _open_session(peer, driver, limits, identity, raise_errors, watched) as call:
            call.session.resumed_from = resumed_from
            if connect:
                call.client.connect(channel=channel)
            call.phone = phone
            yield call
        turns = driver.turns if isinstance(driver, FunctionDriver) else driver.handler
        if isinstance(turns, ReplyOnPause):
            call._warn_of_silence(turns)


def _make_peer(
    needs: MediaNeeds,
    media: MediaPlan,
    buffers: BufferOptions,
    uplink: LinkFaults | None,
    downlink: LinkFaults | None,
    phone: bool,
) -> MemoryPeer:
    return MemoryPeer(
        media=media,
        sample_rate=needs.sample_rate,
        channels=needs.channels,
        fps=needs.fps,
        buffers=buffers,
        uplink=None if uplink is None else EmulatedLink(uplink),
        downlink=None if downlink is None else EmulatedLink(downlink),
        phone=phone,
    )


@asynccontextmanager
async def _open_session(
    peer: MemoryPeer,
    driver: Driver,
    limits: Limits | None,
    identity: str | None,
    raise_errors: bool,
    observers: Observers,
) -> AsyncGenerator[Call, None]:
    async with open_asyncio_bridge() as bridge, peer.open(), create_task_group() as tg:
        session = Session(peer, driver, limits=limits, identity=identity, asyncio_bridge=bridge)
        call = Call(session, peer, peer.client, anyio.Event())
        observers.admit(session)

        async def run() -> None:
            try:
                await session.run()
            except Exception:
                if raise_errors:
                    raise
            finally:
                call.ended.set()

        with nullcontext() if session.observation is None else session.observation.in_session():
            tg.start_soon(run)
        yield call
        peer.client.hang_up()
        await call.ended.wait()


def _modality_of(handler: object) -> Modality:
    kind = handler if isinstance(handler, type) else type(handler)
    if issubclass(kind, VideoStreamHandler):
        return "video"
    both = AudioVideoStreamHandler | AsyncAudioVideoStreamHandler
    return "audio-video" if issubclass(kind, both) else "audio"


def _virtual_time(thread_limit: float) -> AbstractContextManager[object]:
    """Stop trio's virtual clock, if there is one, while threads work."""
    if Host().asyncio_loop is None:
        import trio

        clock = trio.lowlevel.current_clock()
        if isinstance(clock, trio.testing.MockClock):
            return virtual_time(clock, thread_limit)
    return nullcontext()
