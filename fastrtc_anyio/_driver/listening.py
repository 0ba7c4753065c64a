"""Listening to the user: a client's audio, cut into hops, with the probability that each is speech.

Theory of operation. Most conversations of a server are idle most of the time: no user speaks. For
the detectors of this package, one thread of the process therefore listens for all of its
conversations. In each round it takes the audio that has arrived for each, converts it, and calls
the detector once for all of their next windows. While a conversation is idle, the thread keeps its
silent hops back, which change nothing, and passes them to the conversation once a second, or
together with the first hop of speech. The event loop wakes for those only. While the user speaks or
a reply is played, audio is processed when it arrives, and each hop is passed on at once.

The thread passes on all hops of a conversation in order, idle or not, so none can be lost or
repeated when that changes. The turn machine stays on the event loop.

A detector of the application may do anything, so its sessions call it themselves. The same holds
for sessions whose transport runs on the event loop.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from typing import NoReturn, Protocol, TypeAlias, TypeGuard, cast, runtime_checkable

import anyio
import numpy as np
from anyio import EndOfStream
from anyio.lowlevel import cancel_shielded_checkpoint, checkpoint_if_cancelled

from fastrtc_anyio._core.host import Host, Lock, collect_posts
from fastrtc_anyio._core.shared_thread import SharedThread
from fastrtc_anyio._media.convert import AudioConverter
from fastrtc_anyio._media.frames import AudioFrame, Int16Array
from fastrtc_anyio.speech.energy import EnergyVad
from fastrtc_anyio.speech.silero import SileroVad
from fastrtc_anyio.speech.vad import Hops, Vad, VadStream

Hop: TypeAlias = tuple[Int16Array, Int16Array]
"""A hop of audio at the handler's rate, and its window for the detector."""
Heard: TypeAlias = tuple[Int16Array, float]
"""A hop of audio at the handler's rate, and the probability that it is speech."""

_ROUND_S = 0.032
"""Seconds between two rounds: one window of Silero."""
_IDLE_ROUND_S = 0.128
"""Seconds between two rounds if all conversations are idle. The first hop of speech ends that, and
it takes 0.2 s of speech to begin a turn."""
_BATCH = 16
"""Maximum conversations in a call of a detector. More are not faster, and take the thread longer,
which other threads may wait for."""
_HELD_S = 1.0
"""Seconds of silence that the thread keeps back."""
_BACKLOG_S = 0.5
"""Maximum seconds of one conversation's audio that are processed at once."""


class SharedVad(Vad, Protocol):
    """A detector that processes the windows of several speakers in one call."""

    def probabilities(
        self, streams: Sequence[VadStream], windows: Sequence[Int16Array]
    ) -> list[float]:
        """Process the next window of each speaker."""
        ...


@runtime_checkable
class DrainableAudio(Protocol):
    """Audio from the client that any thread may read."""

    def set_notify(self, notify: Callable[[], object] | None) -> None:
        """Set the function to call after each arrival and at the end."""
        ...

    def drain(self, limit: float, silence: bool) -> list[AudioFrame]:
        """Remove and return the frames that have arrived; raise EndOfStream at the end."""
        ...


class Listener:
    """A client's audio, cut into the windows of a detector.

    Attributes:
        vad: the detector.
        stream: the detector's state for this client.
    """

    def __init__(self, sample_rate: int, vad: Vad) -> None:
        self.vad = vad
        self.stream = vad.new_stream()
        self._convert = AudioConverter(sample_rate, 1)
        self._hops = Hops(sample_rate, vad)

    def feed(self, frame: AudioFrame) -> list[Hop]:
        """Process the next frame of any format, and return the hops that are complete."""
        return self._hops.push(self._convert(frame))

    def close(self) -> None:
        """Free the filters."""
        self._convert.reset()
        self._hops.close()


class SharedListener:
    """A listener that the shared thread runs.

    Attributes:
        idle: whether silence changes nothing in the conversation.
        fills_gaps: whether to take a gap in the client's audio for silence while it lasts.
        waiting: whether audio has arrived that must not wait for the next round.
    """

    def __init__(
        self,
        thread: SharedThread[SharedListener],
        audio: DrainableAudio,
        listener: Listener,
        speech_probability: float,
    ) -> None:
        self.idle = False
        self.fills_gaps = False
        self.waiting = False
        self.listener = listener
        self._thread = thread
        self._audio = audio
        self._speech_probability = speech_probability
        self._most_held = _HELD_S * listener.vad.sample_rate / listener.vad.window
        self._host = Host()
        # Between the thread and the event loop.
        self._lock = Lock()
        self._held: list[Heard] = []
        self._due = False
        self._ended = False
        self._error: Exception | None = None
        self._change: anyio.Event | None = None

    async def receive(self) -> list[Heard]:
        """Wait for hops, one or more; of an idle conversation, for speech or a second of hops.

        Raises:
            anyio.EndOfStream: the connection has ended and every hop was returned.
            Exception: the audio could not be processed.
        """
        await checkpoint_if_cancelled()
        waited = False
        while True:
            with self._lock:
                heard = self._take()
                change = self._change = None if heard else anyio.Event()
            if change is None:
                break
            await change.wait()
            waited = True
        if not waited:
            await cancel_shielded_checkpoint()
        return heard

    def _take(self) -> list[Heard]:
        if not self._held and self._ended:
            self._raise_end()
        if not (self._due or self._ended) and self.idle:
            return []
        heard, self._held, self._due = self._held, [], False
        return heard

    def _raise_end(self) -> NoReturn:
        error, self._error = self._error, None
        try:
            raise error or EndOfStream
        finally:
            del error  # no reference cycle through the traceback

    def notify(self) -> None:
        """Note that audio has arrived. Any thread may call this."""
        if not self.idle:
            self.waiting = True
            self._thread.wake()

    def collect(self) -> list[Hop]:
        """Thread: process the audio that has arrived, and return the hops that are complete."""
        self.waiting = False  # before reading: a frame that arrives meanwhile sets it again
        if self._ended or len(self._held) >= 2 * self._most_held:
            # The event loop is blocked: audio waits in the input, which is bounded.
            return []
        try:
            frames = self._audio.drain(_BACKLOG_S, self.fills_gaps)
            hops = [hop for frame in _joined(frames) for hop in self.listener.feed(frame)]
        except EndOfStream:
            self.end()
            return []
        except BaseException as exc:
            self.end(exc)
            return []
        if sum(frame.duration for frame in frames) >= _BACKLOG_S:
            self.waiting = True
            self._thread.wake()
        return hops

    def deliver(self, heard: list[Heard]) -> None:
        """Thread: pass the next hops to the conversation, or keep them back."""
        with self._lock:
            self._held += heard
            self._due = (
                self._due
                or len(self._held) >= self._most_held
                or any(probability >= self._speech_probability for _, probability in heard)
            )
            if self._due or not self.idle:
                self._wake()

    def end(self, error: BaseException | None = None) -> None:
        """Thread: stop listening, because of an error or because the connection has ended."""
        self._thread.remove(self)
        if not (error is None or isinstance(error, Exception)):
            cause, error = error, RuntimeError(f"{type(error).__name__} was raised while listening")
            error.__cause__ = cause  # it would end the event loop
        with self._lock:
            self._ended, self._error = True, error
            self._wake()

    def _wake(self) -> None:
        change, self._change = self._change, None
        if change is not None:
            self._host.post(change.set)


def _joined(frames: list[AudioFrame]) -> list[AudioFrame]:
    """Join frames of the same format: one long frame is converted faster than several."""
    if len(frames) < 2:
        return frames
    (rate, first), *others = frames
    if any(other != rate or s.shape[0] != first.shape[0] for other, s in others):
        return frames
    return [AudioFrame(rate, np.concatenate([frame.samples for frame in frames], axis=1))]


def serve(members: Sequence[SharedListener]) -> None:
    """Process the audio of conversations. Errors end the conversations that they concern."""
    with collect_posts():
        for begin in range(0, len(members), _BATCH):
            groups: dict[Vad, list[tuple[SharedListener, list[Hop]]]] = {}
            for member in members[begin : begin + _BATCH]:
                if hops := member.collect():
                    groups.setdefault(member.listener.vad, []).append((member, hops))
            for vad, group in groups.items():
                _detect(cast(SharedVad, vad), group)


def round_period(members: Sequence[SharedListener]) -> float:
    """Return the seconds from one round to the next."""
    return _IDLE_ROUND_S if all(member.idle for member in members) else _ROUND_S


def _detect(vad: SharedVad, group: list[tuple[SharedListener, list[Hop]]]) -> None:
    """Pass each member its hops with their probabilities, or the error of the detector."""
    try:
        heard = _compute(vad, group)
    except BaseException as exc:
        if len(group) == 1:
            group[0][0].end(exc)
        else:
            # Find the members that it fails for. A detector may have taken some of the windows
            # already, and takes them again: a small error, and no hop is lost.
            for one in group:
                _detect(vad, [one])
        return
    for (member, _), passed in zip(group, heard, strict=True):
        member.deliver(passed)


def _compute(vad: SharedVad, group: list[tuple[SharedListener, list[Hop]]]) -> list[list[Heard]]:
    heard: list[list[Heard]] = [[] for _ in group]
    for place in range(max(len(hops) for _, hops in group)):
        chosen = [i for i, (_, hops) in enumerate(group) if place < len(hops)]
        probabilities = vad.probabilities(
            [group[i][0].listener.stream for i in chosen],
            [group[i][1][place][1] for i in chosen],
        )
        for i, probability in zip(chosen, probabilities, strict=True):
            heard[i].append((group[i][1][place][0], probability))
    return heard


_SHARED: tuple[type[Vad], ...] = (SileroVad, EnergyVad)
_thread = SharedThread("fastrtc-listening", serve, round_period)


def can_share(audio: object, vad: Vad) -> TypeGuard[DrainableAudio]:
    """Whether the shared thread can listen to this audio with this detector."""
    # Not isinstance: a subclass of the application may do anything.
    return type(vad) in _SHARED and isinstance(audio, DrainableAudio)


@contextmanager
def open_shared_listener(
    audio: DrainableAudio, sample_rate: int, vad: Vad, speech_probability: float
) -> Generator[SharedListener, None, None]:
    """Let the shared thread listen while the block runs. :func:`can_share` must be true.

    Raises:
        RuntimeError: the process is out of threads.
    """
    shared = SharedListener(_thread, audio, Listener(sample_rate, vad), speech_probability)
    _thread.add(shared)
    audio.set_notify(shared.notify)
    try:
        yield shared
    finally:
        audio.set_notify(None)
        _thread.remove(shared)
