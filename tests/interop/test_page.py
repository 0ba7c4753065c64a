"""The page in Chromium: conversations, inputs and outputs, reconnection, security, accessibility.

Screenshots are in the folder that ``FASTRTC_SCREENSHOTS`` names, or in each test's ``tmp_path``.
"""

from __future__ import annotations

import base64
import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import numpy as np
import pytest
from anyio.lowlevel import checkpoint
from numpy.typing import NDArray
from starlette.applications import Starlette
from starlette.responses import HTMLResponse
from starlette.routing import Route

from fastrtc_anyio import (
    AdditionalOutputs,
    Chatbot,
    Checkbox,
    Choice,
    CloseReason,
    CloseStream,
    EnergyVad,
    Limits,
    NotAllowed,
    ReplyInterrupted,
    ReplyOnPause,
    Slider,
    Textbox,
    TurnEvent,
)
from fastrtc_anyio._sessions.service import SessionService
from fastrtc_anyio.server import require_token
from fastrtc_anyio.server.launch import open_server
from fastrtc_anyio.server.page.document import page_document
from fastrtc_anyio.testing.signals import tone
from tests.kit.backends import on_trio
from tests.kit.calls import make_stream, only_session, serve, wait_ended
from tests.kit.handlers import AsyncEcho, Quiet, TalkativeEcho
from tests.kit.network import open_network
from tests.kit.proxy import open_proxy
from tests.kit.waiting import wait_until

from .chromium import Browser, Page, open_browser
from .conftest import RATE
from .likeness import read_wav, write_wav
from .pages import COUNT_QUESTIONS, connect, unfold

pytestmark = [pytest.mark.interop, pytest.mark.timeout(120)]

STATUSES = """addEventListener("DOMContentLoaded", () => {
  window.statuses = [];
  const status = document.getElementById("status");
  new MutationObserver(() => statuses.push(status.textContent))
    .observe(status, { childList: true, characterData: true, subtree: true });
});"""
# Sent and received audio by the same clock: two channels of float32 in base64.
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
"""Pitch of the left and the right channel, Hz."""
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


async def record(page: Page, what: str, seconds: float) -> tuple[int, NDArray[np.float32]]:
    """Record two channels of the page's audio; returns their rate and samples."""
    rate, *sides = await page.evaluate(RECORD % (what, seconds))
    return int(rate), np.stack([np.frombuffer(base64.b64decode(s), np.float32) for s in sides])


async def test_echo_matches_the_microphone(browser: Browser) -> None:
    async with serve(make_stream(AsyncEcho)) as url:
        page = await browser.open_page(url)
        await connect(page)
        await page.wait_for("call.level('out') > 0.3", "sound")
        rate, (said, heard) = await record(page, BOTH_WAYS, 4)
        assert page.complaints == []
    assert (heard**2).mean() > 1e-4
    # Compare short pieces, because the browser's jitter buffer stretches the sound.
    size = rate // 4
    points = 1 << (rate + size - 1).bit_length()  # long enough to ignore the wrapped part
    alike, lags = [], []
    for start in range(rate, heard.size - size, size):
        piece = heard[start : start + size]
        if (piece**2).mean() < 1e-4:  # a pause
            continue
        before = said[start - rate : start + size].astype(float)
        spectrum = np.fft.rfft(before, points) * np.conj(np.fft.rfft(piece, points))
        sums = np.concatenate([[0.0], np.cumsum(before**2)])
        energies = sums[size:] - sums[:-size]
        products = np.fft.irfft(spectrum, points)[: energies.size]
        likeness = products / np.sqrt(energies * (piece**2).sum() + 1e-9)
        alike.append(float(likeness.max()))
        lags.append(1 - int(likeness.argmax()) / rate)
    print(f"correlation {np.median(alike):.3f} after {np.median(lags) * 1000:.0f} ms: {alike}")
    assert len(alike) > 4
    assert np.median(alike) > 0.7


@on_trio
@pytest.mark.parametrize(
    "handler",
    [
        pytest.param(AsyncEcho(expected_layout="stereo"), id="handler"),
        pytest.param(lambda: AsyncEcho(expected_layout="stereo"), id="factory"),
    ],
)
async def test_stereo_handler_keeps_channels_separate(
    chromium: str, handler: Any, tmp_path: Path
) -> None:
    sides = np.concatenate([tone(pitch, RATE, 10.0) for pitch in PITCHES])
    microphone = write_wav(tmp_path / "stereo.wav", sides)
    stream = make_stream(handler)
    async with open_browser(chromium, microphone, None) as browser, serve(stream) as url:
        page = await browser.open_page(url)
        await connect(page)
        settings = "call.sources.audio.getTracks()[0].getSettings()"
        await page.wait_for(f"{settings}.channelCount === 2", "a stereo microphone")
        await page.wait_for("call.level('out') > 0.3", "sound")
        await anyio.sleep(1)  # skip the start
        rate, heard = await record(page, BOTH_SIDES, 2)
    spectrum = np.abs(np.fft.rfft(heard * np.hanning(heard.shape[1])))
    places = [round(pitch * heard.shape[1] / rate) for pitch in PITCHES]
    power = np.array([[side[at - 3 : at + 4].max() for at in places] for side in spectrum])
    crosstalk = 20 * np.log10([power[0, 0] / power[0, 1], power[1, 1] / power[1, 0]])
    print(f"crosstalk {-crosstalk.min():.0f} dB")
    assert crosstalk.min() > 25


async def test_conversation_with_inputs_outputs_and_barge_in(
    chromium: str, speech: Path, tmp_path: Path, pictures: Path
) -> None:
    """The microphone repeats a sentence every few seconds, which interrupts the reply."""
    said = read_wav(speech)[np.newaxis, : 2 * RATE]
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
        await page.wait_for_text("chat", "At ten past four")
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
async def test_status_changes_to_listening_after_greeting(chromium: str, tmp_path: Path) -> None:
    """The page detects the end of the greeting by its silence."""

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
async def test_speaker_can_be_selected(browser: Browser) -> None:
    async with serve(make_stream(TalkativeEcho)) as url:
        page = await browser.open_page(url)
        await connect(page)
        await unfold(page, "devices")
        await page.focus("speaker")
        await page.press("ArrowDown")
        speaker = "document.getElementById('speaker').value"
        await page.wait_for(
            f"{speaker} && document.getElementById('audio').sinkId === {speaker}", "the speaker"
        )
        assert await page.text("alert") == ""


async def test_inputs_changed_by_keyboard_reach_the_handler(
    browser: Browser, pictures: Path
) -> None:
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

        await wait_until(lambda: latest() == [5, "", "Ada", False], "the initial inputs")
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


@on_trio
@pytest.mark.parametrize("slash", ["", "/"])
async def test_call_inputs_and_outputs_pass_a_proxy_that_strips_a_prefix(
    browser: Browser, slash: str
) -> None:
    stream = make_stream(
        TalkativeEcho,
        additional_inputs=[Slider("Volume", 0, 10, value=5)],
        additional_outputs=[Textbox("Answer")],
    )
    async with serve(stream) as upstream, open_proxy(upstream, "/outer/voice") as url:
        page = await browser.open_page(url + slash)
        await connect(page)
        session = only_session(stream)
        (handler,) = set(stream.handlers.values())
        await wait_until(lambda: handler.latest_args[1:] == [5], "the initial inputs")
        await page.focus("input-volume")
        await page.press("ArrowRight")
        await wait_until(lambda: handler.latest_args[1:] == [6], "the slider")
        session.send_outputs(AdditionalOutputs("through the proxy"))
        await page.wait_for_text("output-answer", "through the proxy")
        await page.click("connect")
        assert await wait_ended(stream, session) is CloseReason.HUNG_UP
        assert page.complaints == []


@on_trio
async def test_submitted_inputs_reach_the_handler_together(browser: Browser) -> None:
    stream = make_stream(
        Quiet,
        additional_inputs=[Slider("Volume", 0, 10, value=5), Textbox("Name")],
        ui_args={"send_input_on": "submit"},
    )
    async with serve(stream) as url:
        page = await browser.open_page(url)
        await connect(page)
        (handler,) = set(stream.handlers.values())
        seen: list[list[Any]] = []

        async def submit() -> None:
            before = list(handler.latest_args[1:])
            await page.press("Enter")
            await wait_until(lambda: handler.latest_args[1:] != before, "the inputs")
            seen.append(list(handler.latest_args[1:]))

        await wait_until(lambda: handler.latest_args[1:] == [5, ""], "the initial inputs")
        await page.focus("input-volume")
        await page.press("ArrowRight")
        await page.press("Tab")
        await page.type("Kim")
        assert handler.latest_args[1:] == [5, ""]
        await submit()  # in the text field
        await page.type("my")
        await page.press("Tab")
        await submit()  # on the button
        assert seen == [[6, "Kim"], [6, "Kimmy"]]
        assert page.complaints == []


async def test_page_reconnects_to_restarted_server(browser: Browser, pictures: Path) -> None:
    """The page reconnects without another permission prompt."""
    async with serve(make_stream(TalkativeEcho)) as url:
        page = await browser.open_page(url, COUNT_QUESTIONS)
        await connect(page)
    await page.wait_for_text("status", "Reconnecting")
    await page.wait_for("call.attempt >= 3", "attempts")
    await page.look(pictures / "reconnecting.png")
    stream = make_stream(TalkativeEcho)
    async with serve(stream, int(url.rpartition(":")[2])):
        await page.wait_for_text("connection", "Connected")
        await page.wait_for("call.level('in') > 0.3 && call.level('out') > 0.3", "sound")
        assert await page.evaluate("questions.length") == 1
        session = only_session(stream)
        await page.click("connect")
        assert await wait_ended(stream, session) is CloseReason.HUNG_UP
        await page.wait_for_text("status", "Call ended")
        assert page.complaints == []


async def test_call_goes_on_in_its_session_after_a_change_of_network(
    browser: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    """First through a NAT, then directly: the page restarts ICE when the first path fails."""
    with open_network() as network:
        handle = SessionService.handle_request

        async def behind_nat(service: SessionService, body: Any, **options: Any) -> Any:
            if network.outage:
                return await handle(service, body, **options)
            if body["type"] == "ice-candidate":
                return {"status": "success"}
            body = body | {"sdp": network.hide_client(body["sdp"])}
            answer = await handle(service, body, **options)
            return answer | {"sdp": network.hide_server(answer["sdp"])}

        monkeypatch.setattr(SessionService, "handle_request", behind_nat)
        stream = make_stream(TalkativeEcho)
        async with serve(stream) as url:
            page = await browser.open_page(url, STATUSES)
            await connect(page)
            await page.wait_for("call.level('out') > 0.3", "sound")
            session = only_session(stream)
            network.outage = True
            began = anyio.current_time()
            await page.wait_for_text("connection", "Reconnecting")
            await page.wait_for_text("connection", "Connected")
            await page.wait_for("call.level('out') > 0.3", "sound")
            print(f"heard again after {anyio.current_time() - began:.1f} s")
            assert only_session(stream) is session
            assert "Connection interrupted" in await page.evaluate("statuses")
            # A better network: the call goes on meanwhile.
            ufrag = r"call.pc.remoteDescription.sdp.match(/a=ice-ufrag:(\S+)/)[1]"
            before = await page.evaluate(ufrag)
            await page.evaluate("dispatchEvent(new Event('online'))")
            await page.wait_for(f"{ufrag} !== '{before}'", "the restart")
            await page.wait_for("!call.recovery.running", "the end of the restart")
            await page.wait_for("call.level('out') > 0.3", "sound")
            assert only_session(stream) is session
            await page.click("connect")
            assert await wait_ended(stream, session) is CloseReason.HUNG_UP
            assert page.complaints == []


@on_trio
async def test_page_notices_killed_server_and_reconnects(browser: Browser) -> None:
    program = "from tests.kit.calls import make_stream; make_stream().launch(port=0)"
    async with await anyio.open_process([sys.executable, "-c", program], stderr=None) as process:
        assert process.stdout is not None
        with anyio.fail_after(20):
            said = (await process.stdout.receive()).decode()
        url = next(word for word in said.split() if word.startswith("http"))
        page = await browser.open_page(url, COUNT_QUESTIONS)
        await connect(page)
        process.kill()
        began = anyio.current_time()
        await page.wait_for_text("connection", "Reconnecting")
        print(f"noticed after {anyio.current_time() - began:.1f} s")
    async with serve(make_stream(TalkativeEcho), int(url.rpartition(":")[2])):
        await page.wait_for_text("connection", "Connected")
        await page.wait_for("call.level('out') > 0.3", "sound")
        assert await page.evaluate("questions.length") == 1


@on_trio
async def test_lost_call_reconnects_when_its_slot_is_free(browser: Browser) -> None:
    limits = Limits(resume=None)  # so that the page cannot end the lost session
    stream = make_stream(TalkativeEcho, concurrency_limit=1, limits=limits)
    async with serve(stream) as url:
        page = await browser.open_page(url, COUNT_QUESTIONS)
        await connect(page)
        lost = only_session(stream)
        # Simulate a lost network: the server gets no sign of the end.
        await page.evaluate("{ call.pc.close = () => {}; call.cutOff(); }")
        await page.wait_for("call.attempt >= 2", "attempts")
        assert only_session(stream) is lost
        stream.update_connection(lost.id, "closed")
        await page.wait_for_text("connection", "Connected")
        assert only_session(stream) is not lost
        assert await page.evaluate("questions.length") == 1


@on_trio
async def test_lost_call_frees_its_slot_when_the_page_calls_again(browser: Browser) -> None:
    stream = make_stream(TalkativeEcho, concurrency_limit=1)
    async with serve(stream) as url:
        page = await browser.open_page(url, COUNT_QUESTIONS)
        await connect(page)
        lost = only_session(stream)
        await page.evaluate("{ call.pc.close = () => {}; call.cutOff(); }")
        await page.wait_for_text("connection", "Connected")
        assert only_session(stream) is not lost
        assert str(lost.closed) == "hung_up: the client continues in another session"
        assert await page.evaluate("[call.attempt, questions.length]") == [1, 1]


@on_trio
async def test_camera_turned_off_during_reconnection_stays_off(browser: Browser) -> None:
    stream = make_stream(lambda picture: picture, modality="video")
    async with serve(stream) as url:
        page = await browser.open_page(url, COUNT_QUESTIONS)
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
async def test_ended_call_does_not_reconnect(browser: Browser) -> None:
    class Brief(Quiet):
        async def emit(self) -> Any:
            return CloseStream("Goodbye!")

    stream = make_stream(Brief)
    async with serve(stream) as url:
        page = await browser.open_page(url)
        await page.click("connect")
        await page.wait_for_text("hint", "Goodbye!")
        assert await page.text("status") == "Call ended"
        assert await page.evaluate("call") is None


@on_trio
async def test_page_is_operable_by_keyboard(browser: Browser) -> None:
    stream = make_stream(TalkativeEcho)
    async with serve(stream) as url:
        page = await browser.open_page(url)
        await page.press("Tab")
        assert await page.evaluate("document.activeElement.id") == "connect"
        await page.press("Enter")
        await page.wait_for_text("connection", "Connected")
        await page.wait_for("!document.getElementById('text').disabled", "the data channel")
        order = []
        for _ in range(4):
            await page.press("Tab")
            order.append(await page.evaluate("document.activeElement.id"))
            assert (
                await page.evaluate("getComputedStyle(document.activeElement).outlineWidth")
                == "3px"
            )
        assert order == ["devices-title", "text", "send", "details-title"]
        await page.focus("mute")
        await page.press(" ")
        assert (await page.text("hint")).startswith("You are muted.")
        await page.press("Enter")
        assert await page.text("mute") == "Mute"
        await page.evaluate("setAlert('No trains today')")
        await page.press("Escape")
        assert await page.text("alert") == ""
        await page.focus("text")
        await page.type("hello")
        await page.press("Enter")
        await page.wait_for_text("entries", "you said hello")
        assert await page.evaluate("document.getElementById('text').value") == ""


MARKUP = '<img src="x" onerror="window.pwned = true"><b>bold</b>'
VIOLATIONS = """{
  window.violations = [];
  addEventListener("securitypolicyviolation", ({ effectiveDirective, sourceFile, blockedURI }) => {
    violations.push([effectiveDirective, sourceFile, blockedURI].join(" "));
  });
}"""
INJECTION = """(async () => {
  const script = document.createElement("script");
  const image = document.createElement("img");
  for (const attempt of [
    () => script.append("window.pwned = true"),
    () => document.body.append(script),
    () => image.setAttribute("onerror", "window.pwned = true"),
    () => { image.src = "/nowhere.png"; },
    () => document.body.append(image),
    () => { document.body.innerHTML += "<img src=x onerror='window.pwned = true'>"; },
  ]) {
    try { attempt(); } catch { /* refused at once */ }
  }
  const outside = await fetch("http://127.0.0.2:9/").then(() => "", (error) => error.name);
  await new Promise((done) => setTimeout(done, 100));
  return outside;
})()"""


@on_trio
async def test_content_security_policy_holds(browser: Browser) -> None:
    """A call violates no rule, markup is displayed as text, and injected code does not run."""
    chat = Chatbot(f"Chat {MARKUP}", name="chat")
    stream = make_stream(
        TalkativeEcho,
        additional_inputs=[
            Slider(f"Slider {MARKUP}", 0, 2, name="slider"),
            Textbox(f"Text {MARKUP}", name="text", placeholder=MARKUP),
            Choice(f"Choice {MARKUP}", [MARKUP, "b"], name="choice"),
            Checkbox(f"Box {MARKUP}", name="box"),
        ],
        additional_outputs=[chat, Textbox(f"Output {MARKUP}", name="output")],
        ui_args={"title": f"Title {MARKUP}", "subtitle": f"Subtitle {MARKUP}"},
    )
    async with serve(stream) as url:
        page = await browser.open_page(url, VIOLATIONS)
        await connect(page)
        await page.wait_for("call.level('out') > 0.3", "sound")
        said = [{"role": MARKUP, "content": MARKUP}, {"role": "user", "content": MARKUP}]
        only_session(stream).send_outputs(AdditionalOutputs(said, MARKUP))
        await page.wait_for_text("output-output", MARKUP)
        await page.focus("text")
        await page.type(MARKUP)
        await page.press("Enter")
        await page.wait_for_text("entries", f"you said {MARKUP}")
        for element, label in (("title", "Title"), ("subtitle", "Subtitle"), ("inputs", "Slider")):
            assert f"{label} {MARKUP}" in await page.text(element)
        assert MARKUP in await page.text("chat")
        await page.click("mute")
        await page.click("connect")
        await page.wait_for_text("status", "Call ended")
        assert await page.evaluate("document.querySelectorAll('main :is(img, b)').length") == 0
        assert await page.evaluate("violations") == []
        assert page.complaints == []

        assert await page.evaluate(INJECTION) == "TypeError"
        assert await page.evaluate("window.pwned") is None
        broken = {violation.partition(" ")[0] for violation in await page.evaluate("violations")}
        assert {"require-trusted-types-for", "connect-src", "img-src"} <= broken


@on_trio
async def test_page_works_in_an_iframe_of_another_origin(browser: Browser) -> None:
    """The server must allow the outer page, and that page the microphone."""

    async def around(_request: Any) -> HTMLResponse:
        await checkpoint()
        frame = f'<iframe src="{url}" allow="microphone" width="900" height="800"></iframe>'
        return HTMLResponse(f"<title>Another site</title>{frame}")

    stream = make_stream(TalkativeEcho)
    site = Starlette(routes=[Route("/", around)])
    async with open_server(site) as other, serve(stream, framed_by=[other]) as url:
        page = await browser.open_page(other)
        await page.press("Tab")
        await page.press("Enter")
        await wait_until(lambda: bool(stream.sessions), "a call")
        session = only_session(stream)
        await wait_until(lambda: session.audio_in.statistics().received > 50, "sound")
        assert page.complaints == []


@on_trio
async def test_token_is_requested_or_taken_from_the_address(
    browser: Browser, pictures: Path
) -> None:
    """The page sends the token with every request."""
    stream = make_stream(
        Quiet,
        authenticate=require_token("open sesame".replace(" ", "-")),
        additional_inputs=[Checkbox("Loud")],
        additional_outputs=[Textbox("Answer")],
    )
    async with serve(stream) as url:
        page = await browser.open_page(url, VIOLATIONS)
        await page.wait_for_text("hint", "Authentication required: log in")
        assert await page.evaluate("document.activeElement.id") == "token"
        assert not await page.evaluate("document.getElementById('connect').checkVisibility()")
        await page.look(pictures / "token.png")
        await page.look(pictures / "token-phone-dark.png", width=390, height=844, dark=True)
        for wrong in ("sesame", "größe"):
            await page.type(wrong)
            await page.press("Enter")
            await page.wait_for_text("alert", "rejected this token")
        await page.look(pictures / "token-wrong.png")
        await page.type("open-sesame")
        await page.press("Enter")
        await page.wait_for("document.activeElement.id === 'connect'", "the way in")
        assert await page.text("alert") == ""
        await page.press("Enter")
        await page.wait_for_text("connection", "Connected")
        (handler,) = set(stream.handlers.values())
        await wait_until(lambda: handler.latest_args[1:] == [False], "the inputs")
        only_session(stream).send_outputs(AdditionalOutputs("Hello"))
        await page.wait_for_text("output-answer", "Hello")
        await page.click("connect")
        await page.reload()
        assert await page.text("connect") == "Connect"  # the page has stored the token

        other = await browser.open_page(f"{url}/?a=b#token=open-sesame")
        assert await other.text("connect") == "Connect"
        assert await other.evaluate("location.href") == f"{url}/?a=b"
        assert await page.evaluate("violations") == []


@on_trio
async def test_denied_user_sees_reason_before_and_after_connecting(browser: Browser) -> None:
    known = True

    async def authenticate(_connection: Any) -> bool:
        await checkpoint()
        if known:
            return True
        raise NotAllowed("you have had enough for today")

    async with serve(make_stream(authenticate=authenticate)) as url:
        page = await browser.open_page(url)
        known = False
        await page.click("connect")
        alert = "Access denied: you have had enough for today"
        await page.wait_for_text("alert", alert)
        assert await page.text("status") == "Not connected"
        await page.reload()
        await page.wait_for_text("alert", alert)


AXE = Path(__file__).with_name("node_modules") / "axe-core" / "axe.min.js"
CHECK = """axe.run().then(({ violations }) => violations.map(({ id, help, nodes }) =>
  `${id}: ${help}: ${nodes.map(({ target, any }) => [target, any[0]?.message]).join(" | ")}`))"""

ANIMATIONS = """Promise.all(document.getAnimations().filter(
  (animation) => animation.effect.getTiming().iterations !== Infinity).map((a) => a.finished))"""
WIDTH = "document.documentElement.scrollWidth"


async def check_accessible(page: Page) -> None:
    """Check the rules of WCAG 2.2 AA and axe in both colour schemes, narrow and wide."""
    if await page.evaluate("typeof axe") == "undefined":
        assert AXE.exists(), "axe-core is missing: npm --prefix tests/interop ci"
        await page.evaluate(await anyio.Path(AXE).read_text("utf-8") + "; undefined")
    for dark in (False, True):
        for width in (1000, 320):
            await page.resize(width, 900, dark=dark)
            await page.evaluate(ANIMATIONS)
            assert await page.evaluate(CHECK) == [], (dark, width)
            assert await page.evaluate(WIDTH) <= width


class Announcer(AsyncEcho):
    """Sends a log message, a warning and an error when the call begins."""

    async def start_up(self) -> None:
        for kind in ("log", "warning", "error"):
            await self.send_message(json.dumps({"type": kind, "data": f"{kind}: no trains"}))


@on_trio
async def test_page_is_accessible_during_a_call(browser: Browser, pictures: Path) -> None:
    """axe finds no violation in any state, and the layout fits large text."""
    chat = Chatbot("Conversation")
    stream = make_stream(
        Announcer,
        modality="audio",
        additional_inputs=[
            Slider("Temperature", 0, 2),
            Textbox("Name"),
            Textbox("Instructions", lines=3),
            Choice("Voice", ["Ada", "Bo"]),
            Checkbox("Loud"),
        ],
        additional_outputs=[chat, Textbox("Facts")],
        ui_args={"title": "Timetable", "subtitle": "Ask when your train leaves."},
    )
    async with serve(stream) as url:
        page = await browser.open_page(url)
        await check_accessible(page)
        await connect(page)
        said = [{"role": "user", "content": "When?"}, {"role": "assistant", "content": "At four."}]
        session = only_session(stream)
        session.send_outputs(AdditionalOutputs(said, {"platform": 2}))
        await unfold(page, "devices", "details")
        await page.wait_for_text("messages", "error: no trains")
        await page.wait_for_text("output-facts", "platform")
        await page.click("mute")
        await check_accessible(page)
        await page.look(pictures / "narrow-dark.png", width=320, height=1700, dark=True)
        await page.evaluate("document.documentElement.style.fontSize = '200%'")
        for width in (320, 1280):
            await page.resize(width, 900)
            assert await page.evaluate(WIDTH) <= width
        await page.look(pictures / "large-letters.png", width=1280, height=1700)
        await page.look(pictures / "large-letters-narrow.png", width=320, height=1700)


@on_trio
@pytest.mark.parametrize("state", ["locked", "video", "error"])
async def test_other_states_of_the_page_are_accessible(browser: Browser, state: str) -> None:
    states: dict[str, dict[str, Any]] = {
        "locked": {"authenticate": require_token("secret")},
        "video": {"handler": lambda picture: picture, "modality": "video"},
        "error": {},
    }
    options = states[state]
    no_devices = "Object.defineProperty(navigator, 'mediaDevices', { value: undefined });"
    async with serve(make_stream(**options)) as url:
        page = await browser.open_page(url, no_devices if state == "error" else "")
        if state == "video":
            await connect(page)
        await check_accessible(page)


@on_trio
@pytest.mark.parametrize(
    ("error", "alert"),
    [
        ("NotAllowedError", "The microphone is blocked. Allow it for this page"),
        ("NotFoundError", "No microphone was found. Plug one in"),
        ("NotReadableError", "Another program may be using it."),
    ],
)
async def test_microphone_error_shows_alert(
    browser: Browser, pictures: Path, error: str, alert: str
) -> None:
    script = f"""{{
      const refuse = () => Promise.reject(new DOMException("no", "{error}"));
      MediaDevices.prototype.getUserMedia = refuse;
      MediaDevices.prototype.enumerateDevices = async () => [];
    }}"""
    async with serve(make_stream(TalkativeEcho)) as url:
        page = await browser.open_page(url, script)
        await page.click("connect")
        await page.wait_for_text("alert", alert)
        assert await page.text("status") == "Not connected"
        await page.look(pictures / f"{error}.png")
        await page.look(pictures / f"{error}-phone.png", width=390, height=844)


@on_trio
async def test_insecure_page_shows_alert_on_load(browser: Browser) -> None:
    script = "Object.defineProperty(navigator, 'mediaDevices', { value: undefined });"
    async with serve(make_stream(TalkativeEcho)) as url:
        page = await browser.open_page(url, script)
        await page.wait_for_text("alert", "open this page over https")
        await page.click("connect")
        await page.wait_for_text("status", "Not connected")


def test_page_is_smaller_than_105_kb() -> None:
    size = len(page_document().encode())
    print(f"{size} bytes")
    assert size < 105_000
