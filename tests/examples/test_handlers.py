"""Each example that is a handler, in a call on virtual time."""

from __future__ import annotations

from typing import Any

import anyio
import numpy as np
import pytest

from fastrtc_anyio import CloseReason
from fastrtc_anyio.testing import open_call, speech_like, tone, tone_snr
from tests.kit.measure import typical_snr

from .loading import load


async def check_echo(handler: Any) -> None:
    async with open_call(handler) as call:
        await call.speak(tone(400, 48_000, 1.0))
        await anyio.sleep(0.2)
    assert np.count_nonzero(call.heard) > 0.95 * 24_000
    assert typical_snr(call.heard[0], 400, 24_000) > 40


async def test_echo() -> None:
    await check_echo(load("echo").Echo())


async def test_sync_echo() -> None:
    await check_echo(load("sync_echo").SyncEcho())


async def test_tone() -> None:
    example = load("tone")
    async with open_call(example.scale, mode="receive") as call:
        await call.ended.wait()
    assert call.session.closed is not None
    assert call.session.closed.reason is CloseReason.HANDLER_CLOSED
    rate = call.session.audio_out.sample_rate
    samples = call.heard[0]
    begin = np.flatnonzero(samples)[0]
    for index, frequency in enumerate(example.C_MAJOR):
        middle = begin + (2 * index + 1) * rate // 4  # of a note of half a second
        assert tone_snr(samples[middle - rate // 50 :][: rate // 25], frequency, rate) > 25
    end = np.flatnonzero(samples)[-1]
    assert (end - begin) / rate == pytest.approx(len(example.C_MAJOR) / 2, abs=0.01)


async def test_session_function() -> None:
    example = load("session_function")
    said = speech_like(48_000, 4.0)
    async with open_call(example.replay) as call:
        call.client.send_message("play")  # before anything was recorded
        await call.speak(said)
        assert not call.heard.any()
        call.client.send_message("play")
        await anyio.sleep(6)
        first = call.heard[0]
        call.client.send_message("play")
        await anyio.sleep(1)
        call.client.send_message("stop")
        reply = await call.client.receive_message()
        before = call.heard.shape[1]
        await anyio.sleep(5)
    begin = np.flatnonzero(first)[0] - np.flatnonzero(said[0])[0]
    np.testing.assert_array_equal(first[begin : begin + said.shape[1]], said[0])
    assert reply == "stopped after 1.00 s"
    assert not call.heard[0, before + 960 :].any()


async def test_session_function_keeps_last_ten_seconds() -> None:
    said = np.arange(12 * 50).repeat(960).astype(np.int16)[np.newaxis] + 1
    async with open_call(load("session_function").replay) as call:
        await call.speak(said)
        call.client.send_message("play")
        await anyio.sleep(11)
    heard = call.heard[0][call.heard[0] != 0]
    np.testing.assert_array_equal(heard[: 10 * 48_000], said[0, 2 * 48_000 :])
    assert heard.size < 10 * 48_000 + 240  # the last sound fades out


async def test_video_filter() -> None:
    picture = np.zeros((48, 64, 3), np.uint8)
    picture[10:20, 30:50] = 100
    async with open_call(load("video_filter").edges, modality="video") as call:
        call.client.send_video(picture)
        seen = (await call.client.receive_video()).to_ndarray("gray")
    outline = np.zeros((48, 64), bool)
    outline[[9, 19], 30:50] = True  # between two rows
    outline[10:20, [29, 49]] = True
    np.testing.assert_array_equal(seen >= 100, outline)
    assert not seen[~outline].any()


async def test_audio_video() -> None:
    example = load("audio_video")
    gray = np.full((100, 64, 3), 50, np.uint8)

    async def look(call: Any) -> Any:
        """Send a picture after the audio so far, and return the one that comes back."""
        await anyio.sleep(0.1)
        call.client.send_video(gray)
        return (await call.client.receive_video()).to_ndarray()

    async with open_call(example.Meter()) as call:
        quiet = await look(call)
        await call.speak(tone(400, 48_000, 1.0, amplitude=0.5))
        loud = await look(call)
        await anyio.sleep(0.2)
    np.testing.assert_array_equal(quiet, gray)
    bar = np.all(loud == example.GREEN, axis=2)
    assert bar[50:, : example.BAR_WIDTH].all()
    assert np.count_nonzero(bar) == 50 * example.BAR_WIDTH
    np.testing.assert_array_equal(loud[~bar], gray[~bar])
    assert typical_snr(call.heard[0], 400, 24_000) > 40


async def test_audio_video_drops_pictures_rather_than_delay_them() -> None:
    """The camera is faster than the display."""
    async with open_call(load("audio_video").Meter()) as call:
        for level in range(200):
            call.client.send_video(np.full((2, 20, 3), level, np.uint8))
            await anyio.sleep(0.005)
            while call.client.seen:
                late = level - int(call.client.seen.popleft().to_ndarray()[0, 19, 0])
                assert late <= 20  # 0.1 s
    statistics = call.session.statistics().video_in
    assert statistics is not None
    assert statistics.dropped > 100


async def test_virtual_time() -> None:
    await load("virtual_time").test_silence_is_reminded_once_then_ends_the_call(open_call)
