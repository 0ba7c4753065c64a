"""Handlers that fail: each copy has one fault in one method."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import suppress
from itertools import cycle
from typing import Any

import anyio
import numpy as np
from anyio import CancelScope

from fastrtc_anyio import (
    AsyncAudioVideoStreamHandler,
    EnergyVad,
    ReplyOnPause,
    Session,
    StreamHandler,
)

from .ledger import LEDGER, Counted

SHUTDOWN = 1.0
"""``Limits.shutdown`` of the server, in seconds."""
_PERSISTS = 2 * SHUTDOWN
"""Seconds for which a handler swallows its cancellation, or a thread does not return."""
_SPIN = 0.02
"""Seconds of one spin. All calls wait meanwhile for the event loop, or, up to 5 ms each time that
the loop needs it, for Python's lock. Longer spins would delay the control call."""
_SPINS = 10
"""Spins of one session, one in each 0.1 s."""
_FRAMES = 5

_FRAME = np.zeros((1, 480), np.int16)
RUBBISH: list[Any] = [
    object(),
    "text",
    17,
    b"bytes",
    (24_000,),
    (24_000, "text"),
    (24_000, None),
    (-1, _FRAME),
    (0, _FRAME),
    (10**9, _FRAME),
    (24_000.5, _FRAME),
    (24_000, np.zeros((1, 0), np.int16)),
    (24_000, np.zeros((3, 3, 3), np.int16)),
    (24_000, np.full(480, np.nan)),
    (24_000, np.zeros(480, complex)),
    (24_000, np.array(["a", "b"])),
    (24_000, _FRAME, "stereo", 4, 5),
    {"type": "offer"},
    np.zeros((0, 0, 3), np.uint8),
    np.zeros((4, 4), np.uint8),
    np.zeros((10, 10, 7), np.float32),
    lambda: None,
    ValueError("returned, not raised"),
]
ERRORS: list[Callable[[], BaseException]] = [
    lambda: ValueError("soak"),
    lambda: KeyError("soak"),
    lambda: OSError(5, "soak"),
    lambda: TimeoutError("soak"),
    lambda: anyio.EndOfStream(),
    lambda: anyio.ClosedResourceError(),
    lambda: ExceptionGroup("soak", [ValueError("one"), OSError("two")]),
    lambda: RecursionError("soak"),
    lambda: MemoryError("soak"),
]
EXITS: list[type[BaseException]] = [SystemExit, GeneratorExit]
"""KeyboardInterrupt on the event loop is Ctrl-C, and ends the server."""
THREAD_EXITS: list[type[BaseException]] = [SystemExit, KeyboardInterrupt]

_ASYNC_FAULTS = ("raises", "exits", "hangs", "swallows", "spins", "rubbish")
_SYNC_FAULTS = ("raises", "exits", "hangs", "spins", "rubbish")
_ASYNC_METHODS = (
    "start_up",
    "receive",
    "emit",
    "video_receive",
    "video_emit",
    "on_message",
    "shutdown",
)
_SYNC_METHODS = ("start_up", "receive", "emit", "shutdown")


def shuffled(*parts: tuple[str, ...], seed: int) -> Any:
    """Cycle through all combinations, in an order that the seed decides."""
    combinations: list[tuple[str, ...]] = [()]
    for part in parts:
        combinations = [(*found, one) for found in combinations for one in part]
    random.Random(seed).shuffle(combinations)
    return cycle(combinations)


_async = shuffled(_ASYNC_METHODS, _ASYNC_FAULTS, seed=1)
_sync = shuffled(_SYNC_METHODS, _SYNC_FAULTS, seed=2)
_replies = shuffled(_ASYNC_FAULTS, seed=3)
_plain_replies = shuffled(_SYNC_FAULTS, seed=5)
_functions = shuffled(_ASYNC_FAULTS, seed=4)
_errors, _rubbish = cycle(ERRORS), cycle(RUBBISH)
_exits, _thread_exits = cycle(EXITS), cycle(THREAD_EXITS)


async def fail(fault: str) -> Any:
    """Fail, or return rubbish."""
    match fault:
        case "raises":
            raise next(_errors)()
        case "exits":
            raise next(_exits)()
        case "hangs":
            await anyio.sleep_forever()
        case "swallows":
            await _swallow()
        case "spins":
            _spin()
    return next(_rubbish)


def fail_on_thread(fault: str) -> Any:
    """Do the same on a thread."""
    match fault:
        case "raises":
            raise next(_errors)()
        case "exits":
            raise next(_thread_exits)()
        case "hangs" | "swallows":
            threading.Event().wait(_PERSISTS)
        case "spins":
            _spin()
    return next(_rubbish)


async def _swallow() -> None:
    """Swallow the cancellation, and return some time after it."""
    with suppress(BaseException):
        await anyio.sleep_forever()
    with CancelScope(shield=True):
        await anyio.sleep(_PERSISTS)


def _spin() -> None:
    end = time.perf_counter() + _SPIN
    while time.perf_counter() < end:
        pass


class _Plan:
    """The fault of one handler: which method fails, and when."""

    def __init__(self, method: str, fault: str) -> None:
        self.method, self.fault = method, fault
        self._calls = 0

    @property
    def label(self) -> str:
        return f"{self.method} {self.fault}"

    def is_due(self, method: str) -> bool:
        """Whether this call fails. Methods that are called for each frame begin well."""
        if method != self.method:
            return False
        self._calls += 1
        if method in ("start_up", "on_message", "shutdown"):
            return True
        if self.fault != "spins":
            return self._calls > _FRAMES
        spins, rest = divmod(self._calls, _FRAMES)
        return rest == 0 and spins <= _SPINS


class FaultyAsync(Counted, AsyncAudioVideoStreamHandler):
    """An async handler of audio and video; one method of each copy fails."""

    def __init__(self) -> None:
        super().__init__(output_sample_rate=24_000)
        self.plan = _Plan("", "")
        self.audio: list[Any] = []
        self.pictures: list[Any] = []

    def copy(self) -> FaultyAsync:
        new = FaultyAsync()
        new.plan = _Plan(*next(_async))
        return new.open(f"async {new.plan.label}")

    async def _fail_if_due(self, method: str) -> Any:
        if self.plan.is_due(method):
            return await fail(self.plan.fault)
        return None

    async def start_up(self) -> Any:
        return await self._fail_if_due("start_up")

    async def receive(self, frame: Any) -> Any:
        self.audio[:] = [frame]
        return await self._fail_if_due("receive")

    async def emit(self) -> Any:
        found = await self._fail_if_due("emit")
        if found is not None and self.plan.fault == "rubbish":
            return found
        return self.audio.pop() if self.audio else None

    async def video_receive(self, frame: Any) -> Any:
        self.pictures[:] = [frame]
        return await self._fail_if_due("video_receive")

    async def video_emit(self) -> Any:
        found = await self._fail_if_due("video_emit")
        if found is not None and self.plan.fault == "rubbish":
            return found
        await anyio.sleep(0.02)
        return self.pictures.pop() if self.pictures else np.zeros((64, 64, 3), np.uint8)

    async def on_message(self, message: str) -> Any:
        return await self._fail_if_due("on_message")

    async def shutdown(self) -> Any:
        self.close()
        return await self._fail_if_due("shutdown")


class FaultySync(Counted, StreamHandler):
    """A plain handler of audio; one method of each copy fails."""

    def __init__(self) -> None:
        super().__init__(output_sample_rate=24_000)
        self.plan = _Plan("", "")
        self.audio: list[Any] = []

    def copy(self) -> FaultySync:
        new = FaultySync()
        new.plan = _Plan(*next(_sync))
        return new.open(f"plain {new.plan.label}")

    def _fail_if_due(self, method: str) -> Any:
        return fail_on_thread(self.plan.fault) if self.plan.is_due(method) else None

    def start_up(self) -> Any:
        return self._fail_if_due("start_up")

    def receive(self, frame: Any) -> Any:
        self.audio[:] = [frame]
        return self._fail_if_due("receive")

    def emit(self) -> Any:
        found = self._fail_if_due("emit")
        if found is not None and self.plan.fault == "rubbish":
            return found
        return self.audio.pop() if self.audio else None

    def shutdown(self) -> Any:
        self.close()
        return self._fail_if_due("shutdown")


class FaultyCopy(StreamHandler):
    """A handler that cannot be copied."""

    def receive(self, frame: Any) -> None: ...

    def emit(self) -> None: ...

    def copy(self) -> Any:
        found: Any = next(_copies)
        LEDGER.count(f"copy {'raises' if found is None else 'rubbish'}")
        if found is None:
            raise next(_errors)()
        return found


_copies = cycle([None, object(), None, 17])


async def faulty_reply(audio: Any) -> AsyncGenerator[Any, None]:
    """Say something, fail, and go on."""
    (fault,) = next(_replies)
    LEDGER.count(f"async reply {fault}")
    yield (24_000, _FRAME)
    yield await fail(fault)
    yield (24_000, _FRAME)


def faulty_plain_reply(audio: Any) -> Generator[Any, None, None]:
    """Do the same on a thread."""
    (fault,) = next(_plain_replies)
    LEDGER.count(f"plain reply {fault}")
    yield (24_000, _FRAME)
    yield fail_on_thread(fault)
    yield (24_000, _FRAME)


class FaultyReply(Counted, ReplyOnPause):
    """A conversation whose replies fail."""

    def copy(self) -> FaultyReply:
        return make_faulty_reply().open()

    def shutdown(self) -> None:
        self.close()
        super().shutdown()


_reply_functions = cycle([faulty_reply, faulty_plain_reply])


def make_faulty_reply() -> FaultyReply:
    """Make a conversation with the next function."""
    function: Any = next(_reply_functions)
    return FaultyReply(function, model=EnergyVad())


async def faulty_function(session: Session) -> Any:
    """Echo a few frames, and fail."""
    (fault,) = next(_functions)
    label = f"session function {fault}"
    LEDGER.count(label)
    LEDGER.note(label, session)
    count = 0
    async for frame in session.audio_in:
        await session.audio_out.send(frame)
        count += 1
        if count % _FRAMES == 0:
            found = await fail(fault)
            if fault == "rubbish":
                await session.audio_out.send(found)
        if count > _FRAMES * _SPINS:
            return
