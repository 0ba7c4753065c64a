"""The page in Firefox, with Firefox's WebRTC, layout and fake devices.

Screenshots are in the folder that ``FASTRTC_SCREENSHOTS`` names, or in ``tmp_path``.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from fastrtc_anyio import CloseReason, Slider, VideoStreamHandler
from fastrtc_anyio._media.frames import Int16Array
from fastrtc_anyio._peers.webrtc import local_addresses
from tests.kit.backends import on_asyncio, on_trio
from tests.kit.calls import make_stream, only_session, serve, wait_ended
from tests.kit.handlers import TalkativeEcho
from tests.kit.measure import typical_snr
from tests.kit.waiting import wait_until

from .firefox import FAKE_TONE, FirefoxPage, check_firefox, open_firefox
from .pages import connect
from .pictures import make_picture
from .test_chromium_video import STATS, wait_look

pytestmark = [pytest.mark.interop, pytest.mark.timeout(120)]


NUMBER = 42
PEAK = """(() => {
  const { node } = call.analysers.out;
  const levels = new Float32Array(node.frequencyBinCount);
  node.getFloatFrequencyData(levels);
  return (levels.indexOf(Math.max(...levels)) * call.audioContext.sampleRate) / node.fftSize;
})()"""
"""Loudest frequency of the received audio, Hz, to within one bin of the analyser."""


class Listener(TalkativeEcho):
    """Stores the received frames."""

    heard: list[tuple[int, Int16Array]]

    async def start_up(self) -> None:
        self.heard = []
        await super().start_up()

    async def receive(self, frame: Any) -> None:
        self.heard.append(frame)
        await super().receive(frame)


@pytest.fixture
async def firefox() -> AsyncGenerator[FirefoxPage, None]:
    if not local_addresses():
        pytest.skip("Firefox does not connect over the loopback interface")
    async with open_firefox(check_firefox()) as page:
        yield page


@on_asyncio
async def test_call(firefox: FirefoxPage, pictures: Path) -> None:
    stream = make_stream(Listener, additional_inputs=[Slider("Volume", 0, 10, value=5)])
    async with serve(stream) as url:
        await firefox.open(url)
        await firefox.look(pictures / "firefox-idle.png", height=1150)
        await connect(firefox)
        session = only_session(stream)
        (handler,) = set(stream.handlers.values())
        assert isinstance(handler, Listener)

        await firefox.wait_for("call.level('out') > 0.3", "sound")
        await wait_until(lambda: len(handler.heard) > 75, "a second and a half of sound")
        await firefox.wait_for(f"Math.abs({PEAK} - {FAKE_TONE}) < 50", "the tone")
        energy = (await firefox.evaluate(STATS))["heard"]
        await firefox.focus("input-volume")
        await firefox.press("ArrowRight", "ArrowRight")
        await wait_until(lambda: handler.latest_args[1:] == [7], "the slider")
        await firefox.focus("text")
        await firefox.press(*"hello", "Enter")
        await firefox.wait_for_text("entries", "you said hello")
        await firefox.look(pictures / "firefox-call.png", height=1150)
        await firefox.look(pictures / "firefox-call-phone.png", width=450, height=844)

        await firefox.click("connect")
        await firefox.wait_for_text("status", "Call ended")
        assert await wait_ended(stream, session) is CloseReason.HUNG_UP
        assert firefox.complaints == []
    rate = handler.heard[0][0]
    said = np.concatenate([samples for _, samples in handler.heard], axis=1)[0]
    snr = typical_snr(said, FAKE_TONE, rate)
    print(f"{FAKE_TONE} Hz was heard with {snr:.1f} dB, an energy of {energy:.4f} came back")
    assert snr > 20
    assert energy > 0.001


@on_trio
async def test_vp8_video_in_both_directions(firefox: FirefoxPage, pictures: Path) -> None:
    seen: list[NDArray[np.uint8]] = []

    def exchange(frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
        seen.append(frame)
        return make_picture(NUMBER)

    stream = make_stream(VideoStreamHandler(exchange), modality="video")
    async with serve(stream) as url:
        await firefox.open(url)
        await connect(firefox)
        session = only_session(stream)
        await wait_look(
            firefox,
            "remote",
            lambda look: look.resembles() and look.number == NUMBER,
            "the picture",
        )
        stats = await firefox.evaluate(STATS)
        await firefox.look(pictures / "firefox-video.png")
        await firefox.click("connect")
        assert await wait_ended(stream, session) is CloseReason.HUNG_UP
        assert firefox.complaints == []
    assert {stats["sent"], stats["received"]} == {"video/VP8"}
    print(f"{len(seen)} pictures of {seen[-1].shape} came, {stats['shown']} were shown")
    assert seen[-1].max() > 50  # not black
