"""The page in Chromium, operated by its buttons, with speech on the fake microphone.

Screenshots are in each test's ``tmp_path``.
"""

from __future__ import annotations

import runpy
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import numpy as np
import pytest

from fastrtc_anyio import CloseReason, EnergyVad, ReplyOnPause, WebRTCError
from fastrtc_anyio.server import open_server
from tests.kit.backends import on_trio
from tests.kit.calls import make_stream, only_session, serve, wait_ended
from tests.kit.conversations import Log, words
from tests.kit.documentation import find_block
from tests.kit.handlers import Quiet, TalkativeEcho
from tests.kit.packets import PATHS, begin_near_the_wrap, choose_path
from tests.kit.waiting import wait_until

from .chromium import Browser, Page
from .pages import unfold
from .reports import Reports, check_reports

pytestmark = pytest.mark.interop


COUNTS = """
(async () => {
  const stats = [...(await call.pc.getStats()).values()];
  const audio = (type) => stats.find((s) => s.type === type && s.kind === "audio") ?? {};
  return {
    received: audio("inbound-rtp").packetsReceived ?? 0,
    heard: audio("inbound-rtp").totalAudioEnergy ?? 0,
    sent: audio("outbound-rtp").packetsSent ?? 0,
    spoken: audio("media-source").totalAudioEnergy ?? 0,
  };
})()
"""


class Listener(TalkativeEcho):
    """Records the peak level of the audio."""

    peak = 0

    async def receive(self, frame: Any) -> None:
        Listener.peak = max(Listener.peak, int(np.abs(frame[1].astype(np.int32)).max()))
        await super().receive(frame)


async def connect(page: Page) -> None:
    await page.click("connect")
    await page.wait_for_text("connection", "Connected")


async def check_sound(page: Page) -> None:
    """Check that packets and audio energy increase in both directions."""

    async def grow(counts: dict[str, float], packets: int, energy: float) -> dict[str, float]:
        with anyio.fail_after(20):
            while True:
                now: dict[str, float] = await page.evaluate(COUNTS)
                grown = {key: now[key] - counts[key] for key in now}
                if (
                    min(grown["received"], grown["sent"]) >= packets
                    and min(grown["heard"], grown["spoken"]) > energy
                ):
                    return now
                await anyio.sleep(0.05)

    begin: dict[str, float] = {"received": 0, "heard": 0, "sent": 0, "spoken": 0}
    first = await grow(begin, 25, 1e-4)
    print(await grow(first, 25, 1e-4))


async def test_call_and_second_call_after_reload(browser: Browser, tmp_path: Path) -> None:
    Listener.peak = 0
    stream = make_stream(Listener)
    async with serve(stream) as url:
        page = await browser.open_page(url)
        assert await page.text("status") == "Ready"
        await page.look(tmp_path / "idle.png")

        began = anyio.current_time()
        await connect(page)
        print(f"connected after {anyio.current_time() - began:.2f} s")
        session = only_session(stream)
        await check_sound(page)
        assert Listener.peak > 1000
        # The page computes the numbers from two reports, one second apart.
        await unfold(page, "details")
        await page.wait_for("document.getElementById('buffer').innerText.includes('ms')", "numbers")
        await page.look(tmp_path / "talking.png")
        await page.look(tmp_path / "talking-dark.png", dark=True)
        await page.look(tmp_path / "talking-phone.png", width=390, height=844)

        await page.click("connect")
        assert await wait_ended(stream, session) is CloseReason.HUNG_UP
        await page.wait_for_text("status", "Call ended")
        assert await page.evaluate("document.getElementById('audio').srcObject") is None

        await page.reload()
        await connect(page)
        session = only_session(stream)
        await check_sound(page)
        await page.reload()
        assert await wait_ended(stream, session) is CloseReason.HUNG_UP
        assert await page.text("status") == "Ready"
        assert page.complaints == []


@on_trio
@pytest.mark.parametrize("path", PATHS)
async def test_statistics_are_right_beyond_the_wrap_of_sequence_numbers(
    browser: Browser, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    choose_path(monkeypatch, path)
    begin_near_the_wrap(monkeypatch)
    async with serve(make_stream(TalkativeEcho)) as url:
        page = await browser.open_page(url)
        await connect(page)
        await check_sound(page)

        async def get_stats() -> Reports:
            reports: Reports = await page.evaluate(
                "(async () => [...(await call.pc.getStats()).values()])()"
            )
            return reports

        await check_reports(get_stats)


@on_trio
async def test_closing_the_tab_hangs_up(browser: Browser) -> None:
    stream = make_stream(TalkativeEcho)
    async with serve(stream) as url:
        page = await browser.open_page(url)
        await connect(page)
        session = only_session(stream)
        await page.close()
        assert await wait_ended(stream, session) is CloseReason.HUNG_UP


@on_trio
async def test_page_waits_for_a_server_that_restarts(browser: Browser) -> None:
    stream = make_stream(TalkativeEcho, drain_timeout=6)
    async with serve(stream) as url, anyio.create_task_group() as tasks:
        caller, other = await browser.open_page(url), await browser.open_page(url)
        await connect(caller)
        tasks.start_soon(stream.drain)

        await other.click("connect")
        await other.wait_for_text("status", "The server is restarting")
        await other.wait_for_text("hint", "Trying again in")
        await caller.wait_for_text("notice", "The server is restarting. This call ends in 3 s.")
        assert await caller.text("connection") == "Connected"
        await caller.wait_for_text("connection", "Reconnecting")
        assert await caller.text("hint") == "The server is restarting. Calling again."
        assert await caller.text("notice") == ""

    await other.wait_for_text("status", "The server does not answer")
    async with serve(make_stream(TalkativeEcho), int(url.rpartition(":")[2])):
        for page in (caller, other):
            await page.wait_for_text("connection", "Connected")
            await check_sound(page)
            assert await page.text("alert") == ""


@on_trio
async def test_page_calls_again_when_a_full_server_has_a_slot(
    browser: Browser, tmp_path: Path
) -> None:
    stream = make_stream(TalkativeEcho, concurrency_limit=1)
    async with serve(stream) as url:
        first, second = await browser.open_page(url), await browser.open_page(url)
        await connect(first)
        session = only_session(stream)

        await second.click("connect")
        await second.wait_for_text("status", "All lines are busy")
        await second.wait_for_text("hint", "It takes one call at a time. Trying again in")
        await second.click("connect")
        assert await second.text("status") == "Ready"
        assert await second.evaluate("call") is None

        await second.click("connect")
        await second.wait_for_text("status", "All lines are busy")

        await first.click("connect")
        assert await wait_ended(stream, session) is CloseReason.HUNG_UP
        await second.wait_for_text("connection", "Connected")
        await check_sound(second)
        assert await second.text("alert") == ""
        assert await first.text("alert") == ""


async def test_stopped_server_makes_page_reconnect_until_cancelled(
    browser: Browser, tmp_path: Path
) -> None:
    stream = make_stream(TalkativeEcho)
    async with serve(stream) as url:
        page = await browser.open_page(url)
        await connect(page)
        session = only_session(stream)
    assert session.closed is not None
    assert session.closed.reason is CloseReason.CANCELLED
    await page.wait_for_text("status", "Reconnecting")
    await page.look(tmp_path / "stopped.png")

    await page.click("connect")
    await page.wait_for_text("status", "Ready")
    await page.click("connect")
    await page.wait_for_text("alert", "The server does not answer.")
    await page.look(tmp_path / "no-server.png")


@on_trio
async def test_handler_errors_are_displayed(browser: Browser, tmp_path: Path) -> None:
    class Failing(Quiet):
        async def start_up(self) -> None:
            if errors[0] == "at once":
                raise WebRTCError("no credit")

        async def receive(self, frame: Any) -> None:
            self.calls.append("receive")
            if len(self.calls) > 25:
                raise errors[0]

    errors: list[Any]
    errors = ["at once"]
    stream = make_stream(Failing)
    async with serve(stream) as url:
        page = await browser.open_page(url)
        await page.click("connect")
        await page.wait_for_text("alert", "no credit")
        await page.wait_for_text("status", "Call ended")
        await page.look(tmp_path / "no-credit.png")

        errors = [WebRTCError("your credit is used up")]
        await page.click("connect")
        await page.wait_for_text("alert", "your credit is used up")
        await page.wait_for_text("status", "Call ended")

        errors = [ValueError("a secret")]
        await page.click("connect")
        await page.wait_for_text("alert", "The server has met an error, logged as ")
        await page.wait_for_text("status", "Call ended")
        assert "secret" not in str(await page.evaluate("document.body.innerText"))
        await wait_until(lambda: not stream.sessions, "the end of the session")


@on_trio
async def test_messages_are_displayed_as_text(browser: Browser, tmp_path: Path) -> None:
    class Chatty(Quiet):
        async def start_up(self) -> None:
            for message in (
                '{"type": "log", "data": "pause_detected"}',
                '{"type": "warning", "data": "slow", "message": "the model is slow"}',
                '{"type": "transcript", "data": {"text": "How are you?"}}',
                "plain text, " + "and long, " * 30,
                "<b>not bold</b>",
            ):
                await self.send_message(message)

    async with serve(make_stream(Chatty)) as url:
        page = await browser.open_page(url)
        await connect(page)
        await page.wait_for_text("entries", "<b>not bold</b>")
        assert "How are you?" in await page.text("entries")
        assert await page.text("notice") == "the model is slow"
        await unfold(page, "details")
        shown = await page.text("messages")
        assert "pause_detected" in shown
        assert "the model is slow" in shown
        assert await page.text("status") == "Thinking"
        assert await page.text("hint") == "The assistant prepares its answer."
        await page.look(tmp_path / "messages.png")
        await page.look(tmp_path / "messages-phone.png", width=390, height=844)
        await page.click("clear")
        assert await page.text("messages") == ""


@on_trio
async def test_stereo_and_mute(browser: Browser, tmp_path: Path) -> None:
    stream = make_stream(lambda: Listener(expected_layout="stereo"))
    async with serve(stream) as url:
        page = await browser.open_page(url)
        await connect(page)
        for side in ("local", "remote"):
            sdp = str(await page.evaluate(f"call.pc.{side}Description.sdp"))
            assert "stereo=1" in sdp
        assert only_session(stream).audio_out.channels == 2
        await check_sound(page)

        await page.click("mute")
        assert await page.text("mute") == "Muted"
        assert (await page.text("hint")).startswith("You are muted.")
        await anyio.sleep(0.2)  # earlier audio is still in transit
        Listener.peak = 0
        counts: dict[str, float] = await page.evaluate(COUNTS)
        with anyio.fail_after(20):
            while (await page.evaluate(COUNTS))["sent"] < counts["sent"] + 25:
                await anyio.sleep(0.05)
        assert Listener.peak < 50
        await page.look(tmp_path / "muted.png")
        await page.click("mute")
        await wait_until(lambda: Listener.peak > 1000, "sound after the mute")


MUTE = {
    "replaceTrack(null)": "call.pc.getSenders()[0].replaceTrack(null)",
    "a disabled track": "call.pc.getSenders()[0].track.enabled = false",
    "a stopped track": "call.pc.getSenders()[0].track.stop()",
}


@asynccontextmanager
async def open_conversation(browser: Browser) -> AsyncGenerator[tuple[Page, Log], None]:
    """A call in which the user has begun to speak, and hears half a second of words in reply."""
    log = Log()

    async def reply(audio: Any) -> Any:
        yield words(0.5)

    handler = ReplyOnPause(reply, model=EnergyVad(), on_event=log)
    async with serve(make_stream(handler)) as url:
        page = await browser.open_page(url)
        await connect(page)
        await wait_until(lambda: "UserStartedSpeaking" in log.kinds, "speech")
        yield page, log


async def wait_heard(page: Page, before: float, seconds: float) -> None:
    """Wait until the page has played more audio energy than ``before``."""
    with anyio.fail_after(seconds):
        while (await page.evaluate(COUNTS))["heard"] < before + 1e-4:
            await anyio.sleep(0.05)


@on_trio
@pytest.mark.parametrize("way", MUTE)
async def test_caller_who_mutes_while_speaking_hears_a_reply(browser: Browser, way: str) -> None:
    async with open_conversation(browser) as (page, log):
        before = (await page.evaluate(COUNTS))["heard"]
        await page.evaluate(f"{MUTE[way]}; 0")
        await wait_until(lambda: "ReplyStarted" in log.kinds, "the reply", seconds=5)
        await wait_heard(page, before, 10)


@on_trio
@pytest.mark.parametrize("frozen", [False, True], ids=["hidden", "frozen"])
async def test_caller_whose_page_is_in_the_background_hears_replies(
    talker: Browser, frozen: bool
) -> None:
    async with open_conversation(talker) as (page, log):
        before = (await page.evaluate(COUNTS))["heard"]
        front = await talker.open_page("about:blank")
        await front.command("Page.bringToFront")
        assert await page.evaluate("document.visibilityState") == "hidden"
        if frozen:
            await page.command("Page.setWebLifecycleState", state="frozen")
        replies = log.kinds.count("ReplyFinished") + 2
        await wait_until(
            lambda: log.kinds.count("ReplyFinished") >= replies, "the reply", seconds=20
        )
        await page.command("Page.setWebLifecycleState", state="active")
        await wait_heard(page, before, 20)


async def test_page_of_the_guide_calls(
    browser: Browser, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The page and the application of the guide, as written."""
    page = find_block("docs/guides/connections.md", "<!doctype html>")
    (tmp_path / "index.html").write_text(page.text)
    monkeypatch.chdir(tmp_path)
    program = find_block("docs/guides/connections.md", "FileResponse")
    (tmp_path / "app.py").write_text(program.text)
    names = runpy.run_path("app.py")
    async with open_server(names["app"]) as url:
        tab = await browser.open_page(url)
        await tab.click("start")
        await tab.wait_for("document.querySelector('audio').currentTime > 1", "sound")
        counts = only_session(names["stream"]).statistics().audio_in
        assert counts is not None
        assert counts.received > 0
        assert tab.complaints == []
