"""Calls from libwebrtc, the WebRTC stack of Chromium and of most mobile applications."""

from __future__ import annotations

from typing import Any

import anyio
import numpy as np
import pytest
from numpy.typing import NDArray

from fastrtc_anyio import CloseReason, Limits, VideoStreamHandler
from fastrtc_anyio._media.frames import Int16Array
from tests.kit.backends import on_trio
from tests.kit.calls import make_stream, only_session, serve, wait_ended
from tests.kit.handlers import TalkativeEcho
from tests.kit.measure import typical_snr
from tests.kit.packets import PATHS, begin_near_the_wrap, choose_path
from tests.kit.waiting import SECONDS

from .node import LOUD, NodeCaller, call_from_node, open_caller
from .pictures import HEIGHT, WIDTH, Look, make_picture
from .reports import Reports, check_reports

pytestmark = pytest.mark.interop

TONE = 440


def strongest_frequency(samples: Any, rate: int) -> float:
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(samples.size)))
    return float(np.argmax(spectrum) * rate / samples.size)


def check_tone(samples: Int16Array, frequency: int, rate: int) -> None:
    loud = np.flatnonzero(np.abs(samples.astype(np.int32)) > LOUD)
    middle = samples[loud[0] + rate // 5 : loud[-1] - rate // 20]
    assert middle.size > rate // 2
    # A lost frame widens the peak but does not move it.
    assert abs(strongest_frequency(middle, rate) - frequency) < 5
    snr = typical_snr(samples, frequency, rate)
    print(f"{frequency} Hz came back with {snr:.1f} dB")
    assert snr > 20


async def test_call_with_audio_messages_and_trickled_candidates(node: str) -> None:
    stream = make_stream(TalkativeEcho)
    async with serve(stream) as url, open_caller(node, url, tones=[TONE]) as caller:
        offer = (await caller.wait_for("answer"))["offer"]
        assert "a=candidate" not in offer
        assert (await caller.wait_for("candidate"))["status"] == 200
        connected = await caller.wait_for("state", state="connected")
        print(f"connected after {connected['seconds']:.3f} s")
        session = only_session(stream)

        samples, rate = await caller.hear(1.2)
        assert len(samples) == 1
        check_tone(samples[0], TONE, rate)

        await caller.wait_for("channel", state="open")
        await caller.order("send", text="größer 🎙")
        assert (await caller.wait_for("message"))["data"] == "you said größer 🎙"

        await caller.order("hang-up")
        await caller.wait_for("hung-up")
        assert await wait_ended(stream, session) is CloseReason.HUNG_UP


@on_trio
@pytest.mark.parametrize("path", PATHS)
async def test_sound_and_statistics_are_right_beyond_the_wrap_of_sequence_numbers(
    node: str, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    choose_path(monkeypatch, path)
    begin_near_the_wrap(monkeypatch)
    stream = make_stream(TalkativeEcho)
    async with serve(stream) as url, call_from_node(node, url, tones=[TONE]) as caller:
        samples, rate = await caller.hear(1.2)
        check_tone(samples[0], TONE, rate)

        async def get_stats() -> Reports:
            await caller.order("stats")
            reports: Reports = (await caller.wait_for("stats"))["reports"]
            return reports

        await check_reports(get_stats)


async def test_killed_caller_is_reported_as_vanished(node: str) -> None:
    stream = make_stream(TalkativeEcho, limits=Limits(liveness=3))
    async with serve(stream) as url, call_from_node(node, url) as caller:
        session = only_session(stream)
        await caller.hear(0.2)
        caller.kill()
        # aiortc alone takes about half a minute to notice.
        assert await wait_ended(stream, session) is CloseReason.VANISHED


async def test_stereo_channels_stay_separate(node: str) -> None:
    stream = make_stream(lambda: TalkativeEcho(expected_layout="stereo"))
    tones = [300, 700]
    async with serve(stream) as url, call_from_node(node, url, tones=tones, stereo=True) as caller:
        answer = (await caller.wait_for("answer"))["sdp"]
        (fmtp,) = [line for line in answer.splitlines() if line.startswith("a=fmtp:")]
        assert ";stereo=1" in fmtp.replace(" ", ";")
        samples, rate = await caller.hear(1.2)
        assert len(samples) == 2
        for channel, tone in zip(samples, tones, strict=True):
            check_tone(channel, tone, rate)


@pytest.mark.parametrize("codec", ["PCMU", "PCMA", "G722"])
async def test_caller_with_one_codec(node: str, codec: str) -> None:
    stream = make_stream(TalkativeEcho)
    async with (
        serve(stream) as url,
        call_from_node(node, url, tones=[TONE], codec=codec) as caller,
    ):
        samples, rate = await caller.hear(1.2)
        check_tone(samples[0], TONE, rate)
        await caller.order("codecs")
        codecs = await caller.wait_for("codecs")
        assert {codecs["sent"], codecs["received"]} == {f"audio/{codec}"}


@pytest.mark.parametrize("sound", [False, True])
async def test_video_function_processes_pictures(node: str, sound: bool) -> None:
    def mirror(frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
        return 255 - frame[:, ::-1]

    stream = make_stream(VideoStreamHandler(mirror), modality="video")
    tones = [TONE] if sound else []  # the stream has no audio
    async with (
        serve(stream) as url,
        call_from_node(node, url, tones=tones, video=True) as caller,
    ):
        for number in (5, 42):
            await caller.show(make_picture(number))
            began = anyio.current_time()
            count = await wait_mirrored(caller, number)
            print(f"picture {number} came back after {anyio.current_time() - began:.3f} s")
            await wait_mirrored(caller, number, count + 20)


async def wait_mirrored(caller: NodeCaller, number: int, least: int = 1) -> int:
    """Wait for picture ``number`` and ``least`` received pictures; returns the number received."""
    with anyio.fail_after(SECONDS):
        while True:
            picture, count = await caller.look()
            if picture is not None and count >= least:
                look = Look.of(picture).mirrored().inverted()
                if look.number == number and look.resembles():
                    assert picture.shape == (HEIGHT, WIDTH, 3)
                    return count
            await anyio.sleep(0.01)


async def test_unsupported_codec_is_rejected(node: str) -> None:
    stream = make_stream(TalkativeEcho)
    async with serve(stream) as url, open_caller(node, url, codec="ILBC") as caller:
        refused = await caller.wait_for("refused")
        assert refused["status"] == 400
        assert refused["reply"]["status"] == "failed"
        assert not stream.sessions


async def test_full_server_rejects_call_until_a_slot_is_free(node: str) -> None:
    stream = make_stream(TalkativeEcho, concurrency_limit=1)
    async with serve(stream) as url, call_from_node(node, url, id="first") as first:
        async with open_caller(node, url, id="second") as second:
            refused = await second.wait_for("refused")
            assert refused["status"] == 503
            assert refused["reply"]["meta"]["error"] == "concurrency_limit_reached"
        session = only_session(stream)
        await first.order("hang-up")
        assert await wait_ended(stream, session) is CloseReason.HUNG_UP
        async with call_from_node(node, url, id="third") as third:
            await third.hear(0.2)
