"""Defects of FastRTC 0.0.34. A docstring states FastRTC's behaviour, which would fail the test.

Tests with blocked threads or a network are in ``real_time/test_defects.py``, tests of turn taking
in ``test_talking.py``, D1 in ``tests/server/test_websocket.py`` and D10 (an error leaves the peer
connected but dead) in ``tests/session/test_session.py``.
"""

from __future__ import annotations

import inspect
import io
import math
import subprocess
import sys
import threading
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import anyio
import av
import numpy as np
import pytest

from fastrtc_anyio import (
    AudioFrame,
    CloseStream,
    EmitType,
    Limits,
    Stream,
    StreamNotOpen,
    UnknownSession,
    VideoStreamHandler,
    audio_to_bytes,
    audio_to_float32,
    audio_to_int16,
)
from fastrtc_anyio._core.host import Host
from fastrtc_anyio._core.threads import hold_virtual_clock
from fastrtc_anyio._media.av_frames import from_av, to_av
from fastrtc_anyio._media.encode import create_encoder
from fastrtc_anyio._peers.streams.audio import AudioOutput, BufferOptions
from fastrtc_anyio._peers.streams.link import Link
from fastrtc_anyio._peers.webrtc.sending import PlayoutTrack
from fastrtc_anyio.testing import open_call, tone, tone_snr
from tests.kit.backends import on_asyncio
from tests.kit.handlers import AsyncEcho, Echo, Quiet, SyncQuiet

RATE = 24_000


async def test_d02_none_from_emit_queues_nothing_and_does_not_delay_audio() -> None:
    """FastRTC: ``emit`` returning ``None`` adds 7,800 queue entries a second, and delays audio."""

    class Greeter(Quiet):
        nothings = 0

        async def emit(self) -> EmitType:
            self.nothings += 1
            if self.nothings == 250:  # after five seconds of silence
                return RATE, np.full(RATE, 1000, np.int16)
            return None

    async with open_call(Greeter()) as call:
        await anyio.sleep(7)
        counted = call.session.statistics().audio_out
    assert counted is not None
    assert (counted.sent, counted.played, counted.buffered) == (RATE, RATE, 0)
    begin = np.flatnonzero(call.heard[0])[0] / RATE
    assert begin == pytest.approx(249 * 0.02, abs=0.05)


class Counted(Echo):
    """A synchronous echo that may end its call."""

    end: str = ""

    def emit(self) -> EmitType:
        if self.end == "CloseStream":
            return CloseStream()
        if self.end == "error":
            raise ValueError(self.end)
        return super().emit()


class AsyncCounted(AsyncEcho):
    """An async echo that may end its call."""

    end: str = ""

    async def emit(self) -> EmitType:
        if self.end == "CloseStream":
            return CloseStream()
        if self.end == "error":
            raise ValueError(self.end)
        return await super().emit()


@pytest.mark.parametrize(
    "end", ["hang up", "CloseStream", "error", "time limit", "no connection", "cancelled"]
)
@pytest.mark.parametrize("kind", [Counted, AsyncCounted])
async def test_d04_shutdown_is_called_once_after_every_end(kind: Any, end: str) -> None:
    """FastRTC: ``shutdown`` is never called for WebSockets and telephones."""
    handler = kind()
    handler.end = end
    with anyio.CancelScope() as scope:
        async with open_call(
            handler,
            limits=Limits(time_limit=1 if end == "time limit" else None, connect=1),
            connect=end != "no connection",
            raise_errors=False,
        ) as call:
            await anyio.sleep(0.5)
            if end == "hang up":
                call.client.hang_up()
            elif end == "cancelled":
                scope.cancel()
            await call.ended.wait()
    assert handler.calls.count("shutdown") == 1
    assert handler.calls[-1] == "shutdown"


@pytest.mark.parametrize("wrapped", [True, False])
async def test_d05_shared_function_is_not_wrapped_again_per_call(wrapped: bool) -> None:
    """FastRTC: a shared callable is wrapped once more for every connection."""
    depths = []

    def show(image: Any) -> Any:
        depths.append(len(inspect.stack()))
        return image

    handler = VideoStreamHandler(show)
    for _ in range(5):
        made = (lambda: handler.copy()) if wrapped else show
        async with open_call(made, modality="video") as call:
            call.client.send_video(np.zeros((16, 16, 3), np.uint8))
            await call.client.receive_video()
    assert handler.callable is show
    assert len(depths) == 5
    assert len(set(depths)) == 1


class Idle(SyncQuiet):
    """Always emits None."""

    def emit(self) -> None:
        self.calls.append("emit")


class AsyncIdle(Quiet):
    """Always emits None, from a coroutine."""

    async def emit(self) -> None:
        self.calls.append("emit")


@pytest.mark.parametrize("kind", [Idle, AsyncIdle])
async def test_d06_idle_handler_does_not_spin(kind: Any) -> None:
    """FastRTC: an idle handler costs 6,500-9,500 ``emit`` calls a second, 53-86 % of a core."""
    handler = kind()
    async with open_call(handler):
        await anyio.sleep(2)
    assert 90 <= handler.calls.count("emit") <= 102


async def test_d06_waiting_emit_is_called_once() -> None:
    """FastRTC: an idle handler costs 6,500-9,500 ``emit`` calls a second, 53-86 % of a core."""

    class Waiting(Quiet):
        async def emit(self) -> EmitType:
            self.calls.append("emit")
            return await super().emit()

    handler = Waiting()
    async with open_call(handler):
        await anyio.sleep(120)
    assert handler.calls == ["emit", "shutdown"]


@pytest.mark.parametrize("dtype", [np.float32, np.int16])
def test_d07_audio_to_bytes_preserves_the_sound(dtype: Any) -> None:
    """FastRTC: ``audio_to_bytes`` of float32 is noise."""
    sound: Any = tone(440, RATE, 1.0)
    if dtype is np.float32:
        sound = audio_to_float32(sound)
    with av.open(io.BytesIO(audio_to_bytes((RATE, sound))), "r") as file:
        frames = [frame.to_ndarray()[0] for frame in file.decode(audio=0)]
    decoded = audio_to_int16(np.concatenate(frames).astype(np.float32))
    assert tone_snr(decoded[RATE // 5 : RATE * 4 // 5], 440, RATE) > 30


async def test_d11_unknown_id_raises_and_leaves_no_entry() -> None:
    """FastRTC: ``output_stream("unknown")`` hangs and creates a permanent entry.

    ``tests/session/test_outputs.py`` has the same for an open stream, which waits for a time.
    """
    stream = Stream(Echo(), modality="audio")
    before = _size(stream)
    for number in range(100):
        with pytest.raises(StreamNotOpen):
            stream.output_stream(f"unknown {number}")
        with pytest.raises(UnknownSession):
            await stream.fetch_latest_output(f"unknown {number}")
        with pytest.raises(UnknownSession):
            stream.set_input(f"unknown {number}", "a")
    assert stream.handlers == {}
    assert stream.sessions == {}
    assert _size(stream) == before


def _size(thing: Any) -> int:
    """Total entries in the containers of an object."""
    return sum(len(value) for value in vars(thing).values() if hasattr(value, "__len__"))


@pytest.mark.parametrize("kind", [Echo, AsyncEcho])
async def test_d12_client_without_data_channel_is_served(kind: Any) -> None:
    """FastRTC: a call without a data channel never starts."""
    handler = kind()
    async with open_call(handler, channel=False) as call:
        await call.speak(tone(440, 48_000, 0.5))
        await anyio.sleep(0.1)
        assert np.count_nonzero(call.heard) > 0.4 * RATE
    assert handler.calls == ["start_up", "shutdown"]


async def test_d17_loud_audio_saturates() -> None:
    """FastRTC: float to int16 wraps around instead of clipping."""
    loud = np.array([-3.0, -1.5, -1.0, 0.0, 1.0, 1.5, 3.0, 1e30], np.float32)
    limits = [-32768] * 3 + [0] + [32767] * 4
    assert audio_to_int16(loud).tolist() == [max(-32767, value) for value in limits]

    class Loud(Quiet):
        async def emit(self) -> EmitType:
            if "emit" in self.calls:
                return await super().emit()
            self.calls.append("emit")
            return RATE, np.repeat(loud, 60)

    async with open_call(Loud()) as call:
        await anyio.sleep(0.2)
    begin = np.flatnonzero(call.heard[0])[0]
    assert call.heard[0][begin : begin + 480 : 60].tolist() == limits


@pytest.mark.parametrize("on_thread", [True, False])
async def test_d18_slow_emit_runs_once(on_thread: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """FastRTC: an ``emit`` slower than 60 s runs a second time concurrently."""
    release = threading.Event()
    running, most, calls = 0, 0, 0

    def enter() -> None:
        nonlocal running, most, calls
        running, calls = running + 1, calls + 1
        most = max(most, running)

    class Slow(SyncQuiet):
        def emit(self) -> None:
            nonlocal running
            enter()
            entered.set()
            release.wait(30)
            running -= 1

    class AsyncSlow(Quiet):
        async def emit(self) -> EmitType:
            nonlocal running
            enter()
            await anyio.sleep(1000)
            running -= 1
            return None

    # Do not hold virtual time for the thread: emit takes longer than a minute.
    entered = threading.Event()
    monkeypatch.setattr("fastrtc_anyio.testing.call._virtual_time", nullcontext)
    token = hold_virtual_clock.set(lambda _name: nullcontext())
    try:
        async with open_call(Slow() if on_thread else AsyncSlow()):
            while on_thread and not entered.is_set():
                await anyio.sleep(0.001)
            await anyio.sleep(70)
            assert (calls, most) == (1, 1)
            release.set()
    finally:
        release.set()
        hold_virtual_clock.reset(token)


@on_asyncio  # where the track lives
async def test_d19_rtp_clock_advances_during_silence() -> None:
    """FastRTC: the RTP clock stops during silence."""
    output = AudioOutput(Link(Host(), anyio.current_time), 48_000, 1, BufferOptions())
    encoder = create_encoder("opus", 48_000, 1)
    track = PlayoutTrack(output, encoder, lambda exc: None)
    began = anyio.current_time()
    sound = tone(440, 48_000, 0.1)
    await output.send((48_000, sound))
    stamps, times = [], []
    for number in range(200):
        if number == 100:
            await output.send((48_000, sound))
        packet = await track.recv()
        assert packet.pts is not None
        stamps.append(packet.pts)
        times.append(anyio.current_time() - began)
    assert stamps == [960 * number for number in range(200)]
    assert times == pytest.approx([stamp / 48_000 for stamp in stamps], abs=0.001)
    assert output.statistics().played == 2 * sound.shape[1]
    track.stop()


COUNT_IMPORTS = """
import sys
before = set(sys.modules)
import fastrtc_anyio
new = set(sys.modules) - before
from importlib.metadata import packages_distributions
top = {name.partition(".")[0] for name in new}
owners = packages_distributions()
found = {name for module in top for name in owners.get(module, ())}
print(len(new), *sorted(found | (top & {"asyncio", "ssl", "sqlite3", "multiprocessing"})))
"""


def test_d20_import_loads_only_anyio_and_numpy() -> None:
    """FastRTC: ``import fastrtc`` takes 5 s and 135 MB, and loads over 100 distributions."""
    done = subprocess.run(
        [sys.executable, "-c", COUNT_IMPORTS],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
        check=True,
    )
    modules, *distributions = done.stdout.split()
    assert set(distributions) <= {
        "anyio",
        "fastrtc-anyio",
        "idna",
        "numpy",
        "sniffio",
        "ssl",  # of older versions of anyio
        "typing_extensions",
    }
    assert {"anyio", "numpy"} <= set(distributions)
    assert int(modules) < 400


@pytest.mark.parametrize("rate", [8_000, 16_000, 22_050, 24_000, 44_100])
async def test_d21_resampling_is_continuous_across_frames(rate: int) -> None:
    """FastRTC: chunks are resampled independently, with an SNR of 27-41 dB."""
    got: list[Any] = []

    class Listener(Quiet):
        async def receive(self, frame: Any) -> None:
            got.append(frame[1])

    listener = Listener(input_sample_rate=rate)
    async with open_call(listener) as call:
        await call.speak(tone(440, 48_000, 1.0))
    samples = np.concatenate(got, axis=1)[0]
    assert tone_snr(samples[rate // 10 : -rate // 10], 440, rate) > 60


def test_d21_resample_method_keeps_its_state() -> None:
    """FastRTC: chunks are resampled independently, with an SNR of 27-41 dB."""
    handler = Echo(input_sample_rate=16_000)
    sound = tone(440, 48_000, 1.0)
    pieces = [
        from_av(resampled)[1]
        for begin in range(0, 48_000, 960)
        for resampled in handler.resample(to_av(AudioFrame(48_000, sound[:, begin : begin + 960])))
    ]
    samples = np.concatenate(pieces, axis=1)[0]
    assert math.isclose(samples.size, 16_000, rel_tol=0.02)
    assert tone_snr(samples[1600:-1600], 440, 16_000) > 60
