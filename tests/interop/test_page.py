"""What the page does for a person: a conversation, inputs and outputs, coming back, stereo.

Pictures of the page are in the folder that ``FASTRTC_SCREENSHOTS`` names, or in each test's
``tmp_path``.
"""

from __future__ import annotations

import base64
import os
import sys
import wave
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import numpy as np
import pytest
from numpy.typing import NDArray
from starlette.applications import Starlette

from fastrtc_anyio import (
    AdditionalOutputs,
    Chatbot,
    Checkbox,
    Choice,
    CloseReason,
    CloseStream,
    EnergyVad,
    ReplyInterrupted,
    ReplyOnPause,
    Slider,
    Stream,
    Textbox,
    TurnEvent,
)
from fastrtc_anyio.server.launch import open_server
from fastrtc_anyio.server.routes import page_document, page_route
from fastrtc_anyio.testing.signals import tone
from tests.unit.handlers import AsyncEcho, Quiet

from .calls import TalkativeEcho, make_stream, only_session, serve, wait_ended, wait_until
from .chromium import Browser, Page, open_browser
from .conftest import RATE

pytestmark = [pytest.mark.interop, pytest.mark.timeout(120)]

on_trio = pytest.mark.parametrize("anyio_backend", ["trio"], indirect=True)
"""For what the backend has no part in."""

QUESTIONS = """{
  window.questions = 0;
  const ask = MediaDevices.prototype.getUserMedia;
  MediaDevices.prototype.getUserMedia = function (constraints) {
    questions += 1;
    return ask.call(this, constraints);
  };
}"""
STATUSES = """addEventListener("DOMContentLoaded", () => {
  window.statuses = [];
  const status = document.getElementById("status");
  new MutationObserver(() => statuses.push(status.textContent))
    .observe(status, { childList: true, characterData: true, subtree: true });
});"""
# What goes out beside what comes in, by the same clock: two channels of float32 in base64.
RECORD = """new Promise((done) => {
  const context = call.audioContext;
  const merger = context.createChannelMerger(2);
  const recorder = context.createScriptProcessor(4096, 2, 1);
  %s
  merger.connect(recorder).connect(context.destination);
  const chunks = [[], []];
  let samples = 0;
  recorder.onaudioprocess = ({ inputBuffer }) => {
    chunks.forEach((chunk, i) => chunk.push(inputBuffer.getChannelData(i).slice()));
    samples += inputBuffer.length;
    if (samples < context.sampleRate * %g) return;
    recorder.onaudioprocess = null;
    merger.disconnect();
    const text = (parts) => {
      const bytes = parts.flatMap((part) => [...new Uint8Array(part.buffer)]);
      return btoa(bytes.reduce((text, byte) => text + String.fromCharCode(byte), ""));
    };
    done([context.sampleRate, ...chunks.map(text)]);
  };
})"""
PITCHES = (400.0, 1500.0)
"""Hz, left and right."""
BOTH_WAYS = """
  call.analysers.in.source.connect(merger, 0, 0);
  call.analysers.out.source.connect(merger, 0, 1);
"""
BOTH_SIDES = """
  const splitter = context.createChannelSplitter(2);
  call.analysers.out.source.connect(splitter);
  splitter.connect(merger, 0, 0);
  splitter.connect(merger, 1, 1);
"""


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Where pictures of the page go."""
    folder = Path(os.environ.get("FASTRTC_SCREENSHOTS") or tmp_path)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


async def connect(page: Page) -> None:
    began = anyio.current_time()
    await page.click("connect")
    await page.wait_for_text("connection", "Connected")
    print(f"connected after {anyio.current_time() - began:.2f} s")


async def record(page: Page, what: str, seconds: float) -> tuple[int, NDArray[np.float32]]:
    """Sound of the page: its rate, and two channels."""
    rate, *sides = await page.evaluate(RECORD % (what, seconds))
    return int(rate), np.stack([np.frombuffer(base64.b64decode(s), np.float32) for s in sides])


def write_wav(path: Path, samples: NDArray[np.int16]) -> Path:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(samples.shape[0])
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes(samples.T.tobytes())
    return path


def read_speech(path: Path) -> NDArray[np.int16]:
    with wave.open(str(path)) as file:
        return np.frombuffer(file.readframes(file.getnframes()), np.int16)[np.newaxis]


async def test_what_is_said_comes_back(browser: Browser) -> None:
    """The sound that returns is the sound that went out, a fraction of a second later."""
    async with serve(make_stream(AsyncEcho)) as url:
        page = await browser.open_page(url)
        await connect(page)
        await page.wait_for("call.level('out') > 0.3", "sound")
        rate, (said, heard) = await record(page, BOTH_WAYS, 4)
        assert page.complaints == []
    assert (heard**2).mean() > 1e-4
    # Piece by piece: the browser's jitter buffer stretches and shortens what it plays.
    size = rate // 4
    alike, lags = [], []
    for start in range(rate, heard.size - size, size):
        piece = heard[start : start + size]
        if (piece**2).mean() < 1e-4:  # a pause
            continue
        products = np.correlate(said[start - rate : start + size], piece, "valid")
        energies = np.convolve(said[start - rate : start + size] ** 2, np.ones(size), "valid")
        likeness = products / np.sqrt(energies * (piece**2).sum() + 1e-9)
        alike.append(float(likeness.max()))
        lags.append(1 - int(likeness.argmax()) / rate)
    print(f"correlation {np.median(alike):.3f} after {np.median(lags) * 1000:.0f} ms: {alike}")
    assert len(alike) > 4
    assert np.median(alike) > 0.7


@on_trio
async def test_left_and_right_are_kept_apart(chromium: str, tmp_path: Path) -> None:
    sides = np.concatenate([tone(pitch, RATE, 10.0) for pitch in PITCHES])
    microphone = write_wav(tmp_path / "stereo.wav", sides)
    raw = {"echoCancellation": False, "noiseSuppression": False, "autoGainControl": False}
    stream = make_stream(
        lambda: AsyncEcho(expected_layout="stereo"),
        track_constraints={"audio": {**raw, "channelCount": 2}},
    )
    async with open_browser(chromium, microphone, None) as browser, serve(stream) as url:
        page = await browser.open_page(f"{url}/?stereo")
        await connect(page)
        await page.wait_for("call.level('out') > 0.3", "sound")
        await anyio.sleep(1)  # the beginning is over
        rate, heard = await record(page, BOTH_SIDES, 2)
    spectrum = np.abs(np.fft.rfft(heard * np.hanning(heard.shape[1])))
    places = [round(pitch * heard.shape[1] / rate) for pitch in PITCHES]
    power = np.array([[side[at - 3 : at + 4].max() for at in places] for side in spectrum])
    crosstalk = 20 * np.log10([power[0, 0] / power[0, 1], power[1, 1] / power[1, 0]])
    print(f"kept apart by {crosstalk.min():.0f} dB")
    assert crosstalk.min() > 25


async def test_a_conversation(chromium: str, speech: Path, tmp_path: Path, pictures: Path) -> None:
    """The voice of the microphone, which says the same every few seconds, interrupts the reply."""
    said = read_speech(speech)[:, : 2 * RATE]
    silence = np.zeros((1, 4 * RATE), np.int16)
    microphone = write_wav(tmp_path / "conversation.wav", np.concatenate([said, silence], axis=1))
    events: list[TurnEvent] = []
    given: list[Any] = []
    chat = Chatbot("Conversation")

    async def answer(_audio: Any, *inputs: Any) -> AsyncIterator[Any]:
        given.append(inputs)
        history = [*inputs[-1], {"role": "user", "content": "When does the next train leave?"}]
        yield AdditionalOutputs(history)
        await anyio.sleep(0.5)
        text = "At ten past four, from platform two. It is on time today."
        yield AdditionalOutputs([*history, {"role": "assistant", "content": text}])
        yield 24_000, tone(300.0, 24_000, 20.0)

    stream = make_stream(
        lambda: ReplyOnPause(answer, model=EnergyVad(), on_event=events.append),
        additional_inputs=[
            Slider("Temperature", 0, 2, value=0.7, step=0.1),
            Textbox("Your name", placeholder="How you want to be called"),
            Choice("Voice", ["Ada", "Bo"]),
            Checkbox("Short answers"),
            chat,
        ],
        additional_outputs=[chat],
        additional_outputs_handler=lambda _old, new: new,
        ui_args={"title": "Timetable", "subtitle": "Ask when your train leaves."},
    )
    async with open_browser(chromium, microphone, None) as browser, serve(stream) as url:
        page = await browser.open_page(url, STATUSES)
        await page.look(pictures / "idle.png")
        await page.look(pictures / "idle-dark.png", dark=True)
        await page.look(pictures / "idle-phone.png", width=390, height=844)
        await page.look(pictures / "idle-again.png", height=1400)
        await connect(page)
        await page.wait_for_text("status", "Answering")
        await page.wait_for("call.level('out') > 0.3", "a reply")
        await page.wait_for_text("output-conversation", "At ten past four")
        await page.look(pictures / "answering.png", height=1500)
        await wait_until(lambda: any(isinstance(e, ReplyInterrupted) for e in events), "barge-in")
        await page.wait_for_text("status", "You are talking")
        await page.wait_for("call.level('out') < 0.05", "the silence of a reply cut off")
        await page.look(pictures / "talking.png", height=1500)
        await page.look(pictures / "talking-phone.png", width=390, height=844)
        await page.look(pictures / "talking-phone-dark.png", width=390, height=844, dark=True)
        await wait_until(lambda: len(given) >= 2, "a second reply")
        statuses = await page.evaluate("statuses")
        assert page.complaints == []
    print(statuses)
    turns = [s for s in statuses if s in ("You are talking", "Thinking", "Answering")]
    assert turns[:4] == ["You are talking", "Thinking", "Answering", "You are talking"]
    interrupted = next(e for e in events if isinstance(e, ReplyInterrupted))
    assert 0 < interrupted.played.seconds < 10
    assert given[0] == (0.7, "", "Ada", False, [])
    roles = [message["role"] for message in given[1][-1]]
    assert roles == ["user", "assistant"]


@on_trio
async def test_a_greeting_that_is_over(chromium: str, tmp_path: Path) -> None:
    """Then it is the person's turn, which nobody but the silence tells."""

    async def greet() -> AsyncIterator[Any]:
        yield 24_000, tone(300.0, 24_000, 1.0)

    async def answer(_audio: Any) -> AsyncIterator[Any]:
        yield 24_000, tone(500.0, 24_000, 1.0)

    silence = write_wav(tmp_path / "silence.wav", np.zeros((1, RATE), np.int16))
    stream = make_stream(lambda: ReplyOnPause(answer, greet, model=EnergyVad()))
    async with open_browser(chromium, silence, None) as browser, serve(stream) as url:
        page = await browser.open_page(url, STATUSES)
        await connect(page)
        await page.wait_for_text("status", "Listening")
        statuses = await page.evaluate("statuses")
        assert statuses[-2:] == ["Answering", "Listening"]


@on_trio
async def test_the_speaker_is_chosen(browser: Browser) -> None:
    async with serve(make_stream()) as url:
        page = await browser.open_page(url)
        await connect(page)
        await page.focus("speaker")
        await page.press("ArrowDown")
        speaker = "document.getElementById('speaker').value"
        await page.wait_for(
            f"{speaker} && document.getElementById('audio').sinkId === {speaker}", "the speaker"
        )
        assert await page.text("alert") == ""


async def test_inputs_reach_the_handler_while_it_runs(browser: Browser, pictures: Path) -> None:
    """By the keyboard alone."""
    stream = make_stream(
        Quiet,
        additional_inputs=[
            Slider("Volume", 0, 10, value=5),
            Textbox("Name"),
            Choice("Voice", ["Ada", "Bo"]),
            Checkbox("Loud"),
        ],
        additional_outputs=[Textbox("Name"), Textbox("Answer")],
        additional_outputs_handler=lambda _name, _answer, values: values,
    )
    async with serve(stream) as url:
        page = await browser.open_page(url)
        await connect(page)
        session = only_session(stream)
        (handler,) = set(stream.handlers.values())

        def latest() -> list[Any]:
            return handler.latest_args[1:]

        await wait_until(lambda: latest() == [5, "", "Ada", False], "the inputs at first")
        await page.focus("input-volume")
        await page.press("ArrowRight")
        await page.press("ArrowRight")
        await wait_until(lambda: latest()[0] == 7, "the slider")
        await page.press("Tab")
        await page.type("Kim")
        await wait_until(lambda: latest()[1] == "Kim", "the text")
        await page.press("Tab")
        await page.press("ArrowDown")
        await wait_until(lambda: latest()[2] == "Bo", "the choice")
        await page.press("Tab")
        await page.press(" ")
        await wait_until(lambda: latest()[3] is True, "the checkbox")

        session.send_outputs(AdditionalOutputs(("Alex", {"a": [1, None]})))
        await page.wait_for_text("output-answer", '"a": [')
        assert await page.evaluate("document.getElementById('input-name').value") == "Alex"
        handler.reset()
        await handler.fetch_args()
        await wait_until(lambda: latest() == [7, "Alex", "Bo", True], "an answer to send_input")
        await page.look(pictures / "inputs-phone.png", width=390, height=1500)
        assert page.complaints == []


@asynccontextmanager
async def serve_at(stream: Stream, port: int) -> AsyncGenerator[str, None]:
    app = Starlette(routes=[page_route()])
    stream.mount(app)
    async with open_server(app, port=port) as url:
        yield url


async def test_a_server_that_is_restarted(browser: Browser, pictures: Path) -> None:
    """The page comes back to it by itself, and nobody is asked for the microphone again."""
    async with serve_at(make_stream(), 0) as url:
        page = await browser.open_page(url, QUESTIONS)
        await connect(page)
    await page.wait_for_text("status", "Reconnecting")
    await page.wait_for("call.attempt >= 3", "attempts")
    await page.look(pictures / "reconnecting.png")
    stream = make_stream()
    async with serve_at(stream, int(url.rpartition(":")[2])):
        await page.wait_for_text("connection", "Connected")
        await page.wait_for("call.level('in') > 0.3 && call.level('out') > 0.3", "sound")
        assert await page.evaluate("questions") == 1
        session = only_session(stream)
        await page.click("connect")
        assert await wait_ended(stream, session) is CloseReason.HUNG_UP
        await page.wait_for_text("status", "Call ended")
        assert page.complaints == []


@on_trio
async def test_a_server_that_is_killed(browser: Browser) -> None:
    """It says nothing of its end: the page notices, and looks for another."""
    program = "from tests.interop.calls import make_stream; make_stream().launch(port=0)"
    async with await anyio.open_process([sys.executable, "-c", program], stderr=None) as process:
        assert process.stdout is not None
        with anyio.fail_after(20):
            said = (await process.stdout.receive()).decode()
        url = next(word for word in said.split() if word.startswith("http"))
        page = await browser.open_page(url, QUESTIONS)
        await connect(page)
        process.kill()
        began = anyio.current_time()
        await page.wait_for_text("connection", "Reconnecting")
        print(f"noticed after {anyio.current_time() - began:.1f} s")
    async with serve_at(make_stream(), int(url.rpartition(":")[2])):
        await page.wait_for_text("connection", "Connected")
        await page.wait_for("call.level('out') > 0.3", "sound")
        assert await page.evaluate("questions") == 1


@on_trio
async def test_a_lost_call_comes_back_though_its_place_is_still_taken(browser: Browser) -> None:
    stream = make_stream(concurrency_limit=1)
    async with serve(stream) as url:
        page = await browser.open_page(url, QUESTIONS)
        await connect(page)
        lost = only_session(stream)
        # As if the network had gone: the server hears nothing of the end.
        await page.evaluate("{ call.pc.close = () => {}; call.cutOff(); }")
        await page.wait_for("call.attempt >= 2", "attempts")
        assert only_session(stream) is lost
        stream.update_connection(lost.id, "closed")
        await page.wait_for_text("connection", "Connected")
        assert only_session(stream) is not lost
        assert await page.evaluate("questions") == 1


@on_trio
async def test_a_camera_turned_off_while_a_call_is_lost_stays_off(browser: Browser) -> None:
    stream = make_stream(lambda picture: picture, modality="video")
    async with serve(stream) as url:
        page = await browser.open_page(url, QUESTIONS)
        await connect(page)
        await page.evaluate("{ RETRIES_MS.fill(1e6); call.cutOff(); }")
        await page.wait_for_text("status", "Reconnecting")
        await page.click("camera-switch")
        await page.evaluate("dispatchEvent(new Event('online'))")
        await page.wait_for_text("connection", "Connected")
        assert await page.evaluate("call.sources.video") is None
        await page.click("camera-switch")
        await page.wait_for("call.sources.video?.active", "the camera")
        assert page.complaints == []


@on_trio
async def test_a_call_that_was_ended_stays_so(browser: Browser) -> None:
    class Brief(Quiet):
        async def emit(self) -> Any:
            return CloseStream("Goodbye!")

    stream = make_stream(Brief)
    async with serve(stream) as url:
        page = await browser.open_page(url)
        await page.click("connect")
        await page.wait_for_text("hint", "The server ended the call: Goodbye!.")
        assert await page.text("status") == "Call ended"
        assert await page.evaluate("call") is None


@on_trio
async def test_a_person_at_the_keyboard(browser: Browser) -> None:
    stream = make_stream(TalkativeEcho)
    async with serve(stream) as url:
        page = await browser.open_page(url)
        await page.press("Tab")
        assert await page.evaluate("document.activeElement.id") == "connect"
        await page.press("Enter")
        await page.wait_for_text("connection", "Connected")
        await page.wait_for("!document.getElementById('text').disabled", "the data channel")
        order = []
        for _ in range(5):
            await page.press("Tab")
            order.append(await page.evaluate("document.activeElement.id"))
        assert order == ["microphone", "mute", "speaker", "text", "send"]
        await page.focus("text")
        await page.type("hello")
        await page.press("Enter")
        await page.wait_for_text("messages", "you said hello")
        assert await page.evaluate("document.getElementById('text').value") == ""


@on_trio
@pytest.mark.parametrize(
    ("error", "told"),
    [
        ("NotAllowedError", "The microphone is blocked. Allow it for this page"),
        ("NotFoundError", "No microphone was found. Plug one in"),
        ("NotReadableError", "Another program may be using it."),
    ],
)
async def test_no_microphone(browser: Browser, pictures: Path, error: str, told: str) -> None:
    script = f"""{{
      const refuse = () => Promise.reject(new DOMException("no", "{error}"));
      MediaDevices.prototype.getUserMedia = refuse;
      MediaDevices.prototype.enumerateDevices = async () => [];
    }}"""
    async with serve(make_stream()) as url:
        page = await browser.open_page(url, script)
        await page.click("connect")
        await page.wait_for_text("alert", told)
        assert await page.text("status") == "Not connected"
        await page.look(pictures / f"{error}.png")
        await page.look(pictures / f"{error}-phone.png", width=390, height=844)


@on_trio
async def test_a_page_that_is_not_secure(browser: Browser) -> None:
    """It says so before anybody presses anything."""
    script = "Object.defineProperty(navigator, 'mediaDevices', { value: undefined });"
    async with serve(make_stream()) as url:
        page = await browser.open_page(url, script)
        await page.wait_for_text("alert", "open this page by https")
        await page.click("connect")
        await page.wait_for_text("status", "Not connected")


def test_the_page_is_light() -> None:
    size = len(page_document().encode())
    print(f"{size} bytes")
    assert size < 100_000
