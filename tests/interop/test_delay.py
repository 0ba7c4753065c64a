"""The delay of an echo from the microphone of Chromium to what it plays.

It includes the time within the browser: capture, encoder, jitter buffer and decoder. It is printed,
for each second and with that of the jitter buffer, as a busy machine delays sound for longer.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.kit.backends import on_trio
from tests.kit.calls import make_stream, serve
from tests.kit.handlers import AsyncEcho

from .chromium import open_browser
from .conftest import RATE
from .likeness import write_wav

pytestmark = pytest.mark.interop

_RECORD = """
(() => {
  const context = new AudioContext({ sampleRate: 48000 });
  const merger = context.createChannelMerger(2);
  [call.pc.getSenders()[0].track, call.pc.getReceivers()[0].track].forEach((track, i) => {
    context.createMediaStreamSource(new MediaStream([track])).connect(merger, 0, i);
  });
  const recorder = context.createScriptProcessor(4096, 2, 1);
  window.recorded = [[], []];
  window.buffered = [];
  recorder.onaudioprocess = ({ inputBuffer }) => {
    recorded.forEach((samples, i) => samples.push(...inputBuffer.getChannelData(i)));
  };
  merger.connect(recorder).connect(context.destination);
  setInterval(async () => {
    const reports = [...(await call.pc.getStats()).values()];
    const { jitterBufferDelay, jitterBufferEmittedCount } = reports.find(
      (report) => report.type === "inbound-rtp" && report.kind === "audio");
    buffered.push([jitterBufferDelay, jitterBufferEmittedCount]);
  }, 1000);
  return context.resume();
})()
"""
"""Record the microphone and the sound from the server, both on the clock of one audio context."""
_SECONDS = 12


def write_noise(path: Path) -> Path:
    """Write bursts of noise for a microphone: unlike speech, no part of it is like another."""
    generator = np.random.default_rng(1)
    samples = np.zeros(60 * RATE)
    size = int(0.06 * RATE)
    for begin in np.cumsum(generator.uniform(0.25, 0.45, 120)):
        burst = generator.standard_normal(size) * np.hanning(size) * 3000
        samples[int(begin * RATE) :][:size] += burst
    return write_wav(path, samples.astype(np.int16)[np.newaxis])


def find_delay(spoken: NDArray[np.float64], heard: NDArray[np.float64]) -> tuple[int, float]:
    """Return the samples from a piece to its echo, and how much they resemble, 0 to 1."""
    products = np.abs(np.correlate(heard, spoken))
    delay = int(np.argmax(products))
    echo = heard[delay : delay + spoken.size]
    return delay, float(products[delay] / (np.linalg.norm(spoken) * np.linalg.norm(echo)))


@on_trio
async def test_delay_from_spoken_to_heard(chromium: str, tmp_path: Path) -> None:
    microphone = write_noise(tmp_path / "noise.wav")
    async with (
        open_browser(chromium, microphone, None) as browser,
        serve(make_stream(AsyncEcho)) as url,
    ):
        page = await browser.open_page(url)
        await page.click("connect")
        await page.wait_for_text("connection", "Connected")
        await page.evaluate(_RECORD)
        length = _SECONDS * RATE
        await page.wait_for(f"recorded[1].length > {length}", "the recording")
        spoken, heard = np.array(
            await page.evaluate(f"recorded.map((samples) => samples.slice(0, {length}))")
        )
        buffered = np.diff(np.array(await page.evaluate("buffered"), np.float64), axis=0)
        found = [
            find_delay(spoken[begin : begin + RATE // 2], heard[begin : begin + RATE])
            for begin in range(RATE, length - RATE, RATE)
        ]
        delays = np.array([delay * 1000 / RATE for delay, _ in found])
        print(f"spoken to heard: {np.median(delays):.0f} ms, {delays.round().astype(int)}")
        of_buffer: NDArray[np.float64] = buffered[:, 0] / buffered[:, 1] * 1000.0
        print(
            f"in the jitter buffer: {np.median(of_buffer):.0f} ms, {of_buffer.round().astype(int)}"
        )
        assert np.median([likeness for _, likeness in found]) > 0.7
