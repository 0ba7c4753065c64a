"""Whole sessions under any sequence of client actions, handler failures and limits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import anyio
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from fastrtc_anyio import (
    AudioFrame,
    CloseReason,
    CloseStream,
    EmitType,
    Limits,
    PeerError,
    SessionState,
)
from fastrtc_anyio.testing import open_call
from tests.kit.handlers import Quiet


class InjectedError(Exception):
    pass


@dataclass
class Script:
    """Plan of a handler: the call at which it fails or closes, and the duration of each call."""

    fail_in: str | None
    fail_at: int
    delay: float
    close_at: int | None


class Scripted(Quiet):
    def __init__(self, script: Script) -> None:
        super().__init__()
        self.script = script
        self.frames = 0
        self.counts: dict[str, int] = {}

    async def _step(self, name: str) -> int:
        self.counts[name] = self.counts.get(name, 0) + 1
        await anyio.sleep(self.script.delay)
        if name == self.script.fail_in and self.counts[name] >= self.script.fail_at:
            raise InjectedError(name)
        return self.counts[name]

    async def start_up(self) -> None:
        await self._step("start_up")

    async def receive(self, frame: Any) -> None:
        self.frames += 1
        await self._step("receive")

    async def emit(self) -> EmitType:
        count = await self._step("emit")
        audio = (16_000, np.full(count * 37 % 2000, 500, np.int16))
        return (audio, CloseStream()) if count == self.script.close_at else audio

    async def shutdown(self) -> None:
        await super().shutdown()
        await self._step("shutdown")


scripts = st.builds(
    Script,
    fail_in=st.sampled_from([None, "start_up", "receive", "emit", "shutdown"]),
    fail_at=st.integers(1, 10),
    delay=st.sampled_from([0.0, 0.001, 0.02, 0.3]),
    close_at=st.none() | st.integers(1, 20),
)
actions = st.lists(
    st.one_of(
        st.tuples(st.just("audio"), st.integers(0, 5000)),
        st.tuples(st.just("message"), st.text(max_size=5)),
        st.tuples(st.just("wait"), st.floats(0, 2)),
        st.tuples(st.just("connect"), st.booleans()),
        st.tuples(st.just("hang up"), st.sampled_from([CloseReason.HUNG_UP, CloseReason.VANISHED])),
        st.tuples(st.just("cancel"), st.none()),
    ),
    max_size=12,
)


@settings(max_examples=80)
@given(scripts, actions, st.none() | st.floats(0.1, 3))
async def test_session_ends_and_accounts_for_all_media_after_any_actions(
    script: Script, steps: list[tuple[str, Any]], time_limit: float | None
) -> None:
    handler = Scripted(script)
    limits = Limits(time_limit=time_limit, connect=2)
    with anyio.CancelScope() as scope:
        async with open_call(
            handler, limits=limits, connect=False, channel=False, raise_errors=False
        ) as call:
            for action, value in steps:
                match action:
                    case "audio":
                        call.client.send_audio(AudioFrame(48_000, np.ones((2, value), np.int16)))
                    case "message":
                        call.client.send_message(value)
                    case "wait":
                        await anyio.sleep(value)
                    case "connect":
                        call.client.connect(channel=value)
                    case "hang up":
                        call.client.hang_up(value)
                    case _:
                        scope.cancel()
                        await anyio.lowlevel.checkpoint()
            began = anyio.current_time()
            call.client.hang_up()
            await call.ended.wait()
            assert anyio.current_time() - began <= limits.shutdown + limits.close + 0.1

    assert call.session.state is SessionState.CLOSED
    assert call.session.closed is not None
    assert handler.calls == ["shutdown"]
    error = call.session.error
    if isinstance(error, InjectedError):
        assert str(error) == script.fail_in != "shutdown"
    else:
        assert error is None or isinstance(error, PeerError)
    heard = call.peer.audio_in.statistics()
    assert heard.dropped + heard.buffered <= heard.received
    out = call.peer.audio_out.statistics()
    assert out.sent == out.played + out.flushed + out.buffered


@settings(max_examples=40)
@given(st.lists(st.integers(1, 4000), min_size=1, max_size=20), st.sampled_from([8_000, 22_050]))
async def test_handler_receives_same_audio_for_any_chunking(sizes: list[int], rate: int) -> None:
    audio = np.random.default_rng(1).integers(-9000, 9000, (1, sum(sizes)), np.int16)
    whole = await _received(audio, [sum(sizes)], rate)
    parts = await _received(audio, sizes, rate)
    assert np.array_equal(whole, parts)


async def _received(audio: Any, sizes: list[int], rate: int) -> Any:
    got: list[Any] = []

    class Listener(Quiet):
        async def receive(self, frame: Any) -> None:
            got.append(frame[1])

    async with open_call(Listener(input_sample_rate=rate)) as call:
        start = 0
        for size in sizes:
            call.client.send_audio(AudioFrame(48_000, audio[:, start : start + size]))
            start += size
            await anyio.sleep(0.01)
        await anyio.sleep(0.1)
    return np.concatenate(got, axis=1) if got else np.empty((1, 0))
