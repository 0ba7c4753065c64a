"""The conversation on the page in Chromium: transcript, captions, response time, keys, retries.

Screenshots are in the folder that ``FASTRTC_SCREENSHOTS`` names, or in each test's ``tmp_path``.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastrtc_anyio import (
    AdditionalOutputs,
    Chatbot,
    EnergyVad,
    ReplyOnPause,
    get_current_context,
    note_speech,
)
from tests.kit.backends import on_trio
from tests.kit.calls import make_stream, only_session, serve
from tests.kit.conversations import words
from tests.kit.handlers import Quiet, TalkativeEcho

from .chromium import Browser, Page
from .pages import connect, unfold
from .test_page import MARKUP, STATUSES, VIOLATIONS, WIDTH, check_accessible

pytestmark = [pytest.mark.interop, pytest.mark.timeout(120)]

PLACE = """(() => {
  const [call, conversation] = ["call", "conversation"].map(
    (id) => document.getElementById(id).getBoundingClientRect());
  if (conversation.top === call.top && conversation.left > call.right) return "beside";
  const isNear = conversation.top > call.bottom && conversation.top < innerHeight / 2;
  return isNear ? "below" : "elsewhere";
})()"""
"""Place of the conversation in relation to the call."""
SIZES = {"": (1280, 900), "-phone": (390, 844)}
TITLE = {"title": "Timetable", "subtitle": "Ask when your train leaves."}
CONVERSATION = [
    (
        "Hello, can you help me with my trip on Friday?",
        ["Of course.", "Where do you want to go?"],
        2.4,
    ),
    (
        "To Vienna, and I want to be there by noon.",
        [
            "There is a direct train at ten past seven from platform two.",
            "It takes four hours and ten minutes, and there is a restaurant car on board.",
        ],
        9.0,
    ),
    (
        "Is there a later one?",
        [
            "Yes, at eight fifteen.",
            "You change once, in Linz, and arrive in Vienna at eleven fifty.",
        ],
        7.0,
    ),
]


def babble(seconds: float) -> tuple[int, Any]:
    """Sound that grows and fades as speech does."""
    rate, samples = words(seconds)
    at = np.arange(samples.shape[1]) / rate
    loudness = abs(np.sin(7 * at) * np.sin(2.3 * at + 1)) ** 0.5 * 0.9 + 0.1
    return rate, (samples * loudness).astype(np.int16)


class Agent(ReplyOnPause):
    """Follows a script of utterances and replies, and ignores what the user says."""

    def __init__(self) -> None:
        super().__init__(self.answer, model=EnergyVad())
        self.turns = iter(CONVERSATION)

    async def answer(self, _audio: Any) -> AsyncIterator[Any]:
        said, sentences, seconds = next(self.turns, CONVERSATION[-1])
        get_current_context().session.send_transcript("user", said)
        length = sum(map(len, sentences))
        for sentence in sentences:
            part = seconds * len(sentence) / length
            note_speech(sentence, part)
            yield babble(part)

    def copy(self) -> Agent:
        return Agent()


async def look(page: Page, folder: Path, name: str, *, dark: bool | None = None) -> None:
    """Take screenshots on a wide screen and on a phone, in both colour schemes."""
    for size, (width, height) in SIZES.items():
        for scheme in ("", "-dark"):
            path = folder / f"{name}{size}{scheme}.png"
            await page.look(path, width=width, height=height, dark=bool(scheme))
    await page.resize(1280, 900)


async def test_conversation_shows_captions_interruptions_and_response_times(
    talker: Browser, pictures: Path
) -> None:
    async with serve(make_stream(Agent, ui_args=TITLE)) as url:
        page = await talker.open_page(url, STATUSES)
        await look(page, pictures, "talk-idle")
        await connect(page)
        await page.wait_for_text("entries", CONVERSATION[0][0])
        await page.wait_for_text("entries", "Of course. Where do you want to go?")
        await page.wait_for_text("entries", "s after your last word")
        await page.wait_for_text("entries", "direct train")
        await look(page, pictures, "talk-answering")
        await page.wait_for_text("entries", "Interrupted")
        await look(page, pictures, "talk-interrupted")
        await page.resize(1280, 900)
        assert await page.evaluate(PLACE) == "beside"
        await page.resize(390, 844)
        assert await page.evaluate(PLACE) == "below"
        await page.resize(1280, 900)
        await page.wait_for_text("entries", "You change once")
        await page.look(pictures / "page.png", width=1280, height=800)
        copied = await page.evaluate("conversation.asText()")
        entries = await page.evaluate(
            "[...document.querySelectorAll('.entry')].map((e) => e.innerText)"
        )
        assert page.complaints == []
    print(copied, entries)
    lines = copied.splitlines()
    assert lines[:2] == [
        f"You: {CONVERSATION[0][0]}",
        f"Assistant: {' '.join(CONVERSATION[0][1])}",
    ]
    assert lines[3].startswith("Assistant: There is a direct train")
    assert lines[3].endswith(" [interrupted]")
    assert "Not heard" in entries[3]


class Messenger(Quiet):
    """Sends messages that a test names."""

    messages: list[Any] = []  # noqa: RUF012

    async def start_up(self) -> None:
        for message in self.messages:
            await self.send_message(message if isinstance(message, str) else json.dumps(message))


def transcript(text: Any, role: Any = "assistant", **data: Any) -> dict[str, Any]:
    return {"type": "transcript", "data": {"role": role, "text": text, **data}}


@on_trio
async def test_captions_follow_the_sound_by_words(browser: Browser) -> None:
    """The caption's clock is the argument of `advance`: it waits for sound, for 3 s in total."""
    steps = """(() => {
      const caption = new Caption();
      const shown = () => caption.text.slice(0, caption.heard);
      const seen = [];
      caption.begin("One. Two three four.", "Two three four.", 3);
      seen.push(shown());
      for (const [seconds, sounding] of %s) {
        caption.advance(seconds, sounding);
        seen.push(shown());
      }
      return seen;
    })()"""
    async with serve(make_stream(Quiet)) as url:
        page = await browser.open_page(url)
        sound = json.dumps([[0.1, True], [1, True], [1, False], [1, True], [1, True]])
        assert await page.evaluate(steps % sound) == [
            "One. ",
            "One. Two",
            "One. Two three",
            "One. Two three",
            "One. Two three four.",
            "One. Two three four.",
        ]
        silence = json.dumps([[1, False], [2, False], [1.5, False]])
        assert (await page.evaluate(steps % silence))[-2:] == ["One. ", "One. Two three"]
        cuts = await page.evaluate(
            "[wordEnd('abc def', 1), wordEnd('あ'.repeat(40), 3), wordEnd('😀'.repeat(40), 3)]"
        )
        assert cuts == [3, 3, 4]


@on_trio
async def test_response_time_runs_from_the_last_loud_moment_to_the_first_sound(
    browser: Browser,
) -> None:
    """Levels of 10 s: background, speech until 4 s, a reply from 5.2 s on."""
    measure = """((background, turns, stall) => {
      const seen = [];
      const response = new ResponseTime((ms) => seen.push(Math.round(ms)));
      for (let at = 0; at < 10000; at += 50) {
        if (turns[at]) response.turn(turns[at]);
        if (stall && at > 4600 && at < 5000) continue;
        response.note(at, at > 1000 && at <= 4000 ? 0.7 : background, at >= 5200 ? 0.5 : 0);
      }
      return seen;
    })"""
    async with serve(make_stream(Quiet)) as url:
        page = await browser.open_page(url)

        async def run(background: float, turns: dict[int, str], stall: str = "false") -> Any:
            return await page.evaluate(f"{measure}({background}, {json.dumps(turns)}, {stall})")

        assert await run(0, {4500: "pause_detected"}) == [1200]
        assert await run(0.2, {4500: "pause_detected"}) == [1200]
        assert await run(0, {4500: "pause_detected", 4800: "started_talking"}) == []
        assert await run(0, {}) == []  # a greeting
        assert await run(0, {6000: "pause_detected"}) == []  # sound all the time
        assert await run(0, {4500: "pause_detected"}, "true") == []  # a page in the background


@on_trio
async def test_hostile_texts_cannot_break_the_conversation(browser: Browser) -> None:
    Messenger.messages = [
        transcript(MARKUP, MARKUP, id=MARKUP),
        transcript("constructor says", "constructor", id="__proto__"),
        transcript("no number", final=False, id="a", sentence="no number", seconds="NaN"),
        transcript("minus", final=False, id={"b": 1}, sentence={"c": 2}, seconds=-1e308),
        transcript("x" * 50_000, "user", id=["d"]),
        transcript(None, "user"),
        {"type": "transcript", "data": None},
        {"type": "transcript"},
        {"type": "log", "data": "toString"},
        {"type": "hasOwnProperty", "data": {"text": 7}},
        "null",
        "[]",
        *(transcript(f"entry {i}", "user") for i in range(300)),
        transcript("the last one", "user"),
    ]
    async with serve(make_stream(Messenger)) as url:
        page = await browser.open_page(url, VIOLATIONS)
        await page.click("connect")
        await page.wait_for_text("entries", "the last one")
        # The session's queue of messages is bounded, too, so not all of them arrive.
        assert await page.evaluate("document.querySelectorAll('.entry').length") <= 200
        assert await page.evaluate("document.querySelectorAll('main :is(img, b)').length") == 0
        assert await page.evaluate("conversation.byId.size") <= 200
        assert await page.evaluate("violations") == []
        assert page.complaints == []
        for width in (320, 1280):
            await page.resize(width, 900)
            assert await page.evaluate(WIDTH) <= width


@on_trio
async def test_direction_of_a_text_is_that_of_its_script(browser: Browser, pictures: Path) -> None:
    texts = [
        "At ten.",
        "\u05d1\u05e2\u05e9\u05e8.",
        "\u0641\u064a \u0627\u0644\u0639\u0627\u0634\u0631\u0629.",
    ]
    Messenger.messages = [transcript(text, who) for who in ("user", "tool") for text in texts]
    # Whether the full stop is on the right of the first letter.
    on_the_right = """[...document.querySelectorAll('.entry .said')].map((node) => {
      const text = node.firstChild;
      const place = (at) => {
        const range = document.createRange();
        range.setStart(text, at);
        range.setEnd(text, at + 1);
        return range.getBoundingClientRect().left;
      };
      return place(text.length - 1) > place(0);
    })"""
    async with serve(make_stream(Messenger, ui_args={"title": texts[1]})) as url:
        page = await browser.open_page(url)
        await connect(page)
        await page.wait_for("document.querySelectorAll('.entry').length === 6", "all texts")
        assert await page.evaluate(on_the_right) == [True, False, False] * 2
        await page.look(pictures / "talk-right-to-left.png")


@on_trio
async def test_volume_is_kept_when_the_page_is_loaded_again(browser: Browser) -> None:
    state = """[document.getElementById('volume').value, document.getElementById('audio').volume,
      document.getElementById('volume').getAttribute('aria-valuetext')]"""
    async with serve(make_stream(TalkativeEcho)) as url:
        page = await browser.open_page(url)
        assert await page.evaluate(state) == ["100", 1, "100 %"]
        await page.evaluate(
            "document.getElementById('volume').value = 40;"
            "document.getElementById('volume').dispatchEvent(new Event('input'))"
        )
        await page.reload()
        assert await page.evaluate(state) == ["40", 0.4, "40 %"]
        for stored in ("loud", "-1", "1e9"):
            await page.evaluate(f"localStorage.setItem(VOLUME_KEY, '{stored}')")
            await page.reload()
            assert await page.evaluate(state) == ["100", 1, "100 %"]
        await page.evaluate("localStorage.clear()")


@on_trio
async def test_chatbot_is_the_conversation_and_repeats_no_transcript(
    browser: Browser, pictures: Path
) -> None:
    chat = Chatbot("Travel desk")
    Messenger.messages = [transcript("When does it leave", "user", id="said-1")]
    stream = make_stream(
        Messenger, additional_outputs=[chat], additional_outputs_handler=lambda _old, new: new
    )
    shown = "[...document.querySelectorAll('.entry .said')].filter((p) => p.checkVisibility())"
    async with serve(stream) as url:
        page = await browser.open_page(url)
        assert not await page.evaluate("document.getElementById('conversation').checkVisibility()")
        await connect(page)
        await page.wait_for_text("entries", "When does it leave")
        session = only_session(stream)
        said = [
            {"role": "user", "content": "When does it leave?"},
            {"role": "assistant", "content": "At ten past seven. From platform two."},
        ]
        session.send_outputs(AdditionalOutputs(said))
        await page.wait_for_text("chat", "platform two")
        await page.evaluate(
            "conversation.take({ id: 'reply-1', role: 'assistant', text: 'At ten past seven.',"
            " sentence: 'At ten past seven.', seconds: 2, final: false })"
        )
        assert await page.evaluate(f"{shown}.map((p) => p.innerText)") == [
            "When does it leave?",
            "At ten past seven. From platform two.",
        ]
        session.send_transcript("user", "Thank you!")
        await page.wait_for_text("entries", "Thank you!")
        assert (await page.evaluate("conversation.asText()")).splitlines() == [
            "You: When does it leave?",
            "Assistant: At ten past seven. From platform two.",
            "You: Thank you!",
        ]
        assert await page.text("conversation-title") == "Travel desk"
        await look(page, pictures, "talk-chatbot")
        assert page.complaints == []


EMPTY = "document.getElementById('transcript').checkVisibility()"


async def hold(page: Page, kind: str, key: str, code: str) -> None:
    text = {"text": key} if kind == "keyDown" else {}
    await page.command("Input.dispatchKeyEvent", type=kind, key=key, code=code, **text)


@on_trio
async def test_keys_mute_and_push_to_talk(browser: Browser, pictures: Path) -> None:
    async def press(key: str, code: str) -> None:
        await hold(page, "keyDown", key, code)
        await hold(page, "keyUp", key, code)

    enabled = "call.sources.audio.getTracks()[0].enabled"
    async with serve(make_stream(TalkativeEcho)) as url:
        page = await browser.open_page(url)
        await press("m", "KeyM")
        assert await page.text("connect") == "Connect"
        await connect(page)
        assert not await page.evaluate(EMPTY)  # an echo has no conversation
        await press("m", "KeyM")
        assert await page.evaluate(enabled) is False
        assert await page.text("hint") == "You are muted. Hold Space to talk."
        await hold(page, "keyDown", " ", "Space")  # the focus is on the button that was clicked
        assert await page.evaluate(enabled) is True
        assert await page.evaluate("document.activeElement.id") == "connect"
        await look(page, pictures, "talk-held")
        await hold(page, "keyUp", " ", "Space")
        assert await page.evaluate(enabled) is False
        await hold(page, "keyDown", " ", "Space")
        await page.evaluate("dispatchEvent(new Event('blur'))")
        assert await page.evaluate(enabled) is False
        await hold(page, "keyUp", " ", "Space")
        assert await page.text("connection") == "Connected"
        await press("m", "KeyM")
        assert await page.evaluate(enabled) is True

        await page.wait_for("!document.getElementById('text').disabled", "the data channel")
        await page.focus("text")
        await page.press("Tab")
        await press("m", "KeyM")  # on the button Send
        assert await page.text("mute") == "Muted"
        await page.focus("mute")
        await page.press(" ")  # a control that has the focus by Tab
        assert await page.text("mute") == "Mute"
        await page.focus("text")
        await press("m", "KeyM")
        assert await page.evaluate("document.getElementById('text').value") == "m"
        assert await page.text("mute") == "Mute"
        await page.evaluate("document.activeElement.blur()")
        await page.evaluate("document.getElementById('shortcuts').checked = false")
        await press("m", "KeyM")
        assert await page.text("mute") == "Mute"


CLOCK = """{
  window.ahead = 0;
  const now = performance.now.bind(performance);
  performance.now = () => now() + ahead;
  window.refusals = 0;
  window.busy = true;
  const real = window.fetch;
  window.fetch = (url, options) => {
    if (!busy || !String(url).endsWith("webrtc/offer")) return real(url, options);
    refusals += 1;
    const body = { status: "failed", meta: { error: "concurrency_limit_reached", limit: 4 } };
    return Promise.resolve(new Response(JSON.stringify(body),
      { status: 503, headers: { "Retry-After": "30", "Content-Type": "application/json" } }));
  };
}"""


@on_trio
async def test_busy_server_is_called_again_after_its_retry_after(
    browser: Browser, pictures: Path
) -> None:
    async with serve(make_stream(TalkativeEcho)) as url:
        page = await browser.open_page(url, CLOCK)
        await page.click("connect")
        await page.wait_for_text("status", "All lines are busy")
        await page.wait_for_text("hint", "It takes 4 calls at a time. Trying again in 3")
        await look(page, pictures, "talk-busy")
        await check_accessible(page)
        await page.evaluate("ahead += 20000")
        await page.wait_for_text("hint", "Trying again in 1")
        assert await page.evaluate("refusals") == 1
        await page.evaluate("dispatchEvent(new Event('online'))")
        await page.evaluate("ahead += 15000")
        await page.wait_for("refusals === 2", "another call")
        await page.evaluate("busy = false; ahead += 40000")
        await page.wait_for_text("connection", "Connected")
        await page.wait_for("call.level('out') > 0.3", "sound")
        assert page.complaints == []

        seconds = await page.evaluate(
            "['7', '0', '9999', 'soon', null].map((value) =>"
            " retryAfter(new Response('', { headers: value ? { 'Retry-After': value } : {} }))"
            " ?? null)"
        )
        assert seconds == [7, 1, 120, None, None]


@on_trio
async def test_conversation_is_accessible_and_can_be_copied(
    browser: Browser, pictures: Path
) -> None:
    Messenger.messages = [
        transcript("When does it leave?", "user", id="said-1"),
        transcript("At ten. From two.", id="reply-1", final=False, sentence="At ten. From two."),
        transcript("At ten.", id="reply-1", final=True, interrupted=True),
        transcript(
            "Platform two, at ten.", id="reply-2", final=False, sentence="two, at ten.", seconds=1e6
        ),
        transcript("searching the timetable", "tool"),
    ]
    async with serve(make_stream(Messenger, ui_args=TITLE)) as url:
        page = await browser.open_page(url)
        await connect(page)
        await page.wait_for_text("entries", "searching the timetable")
        await check_accessible(page)
        await page.evaluate("setAlert('The handler has met an error.')")
        await page.evaluate("warn('The model is slow.')")
        await unfold(page, "devices", "details")
        await check_accessible(page)
        await look(page, pictures, "talk-error")
        await page.resize(1280, 900)
        await page.evaluate(
            "Object.defineProperty(navigator, 'clipboard', { value:"
            " { writeText: async (text) => { window.copied = text; } } })"
        )
        await page.click("copy")
        await page.wait_for_text("copy", "Copied")
        assert (await page.evaluate("copied")).splitlines() == [
            "You: When does it leave?",
            "Assistant: At ten. [interrupted]",
            "Assistant: Platform two,",
            "tool: searching the timetable",
        ]
        await page.evaluate("document.getElementById('volume').value = 40")
        await page.evaluate("document.getElementById('volume').dispatchEvent(new Event('input'))")
        assert await page.evaluate("document.getElementById('audio').volume") == 0.4
        await page.click("connect")
        await page.wait_for_text("status", "Call ended")
        assert "When does it leave?" in await page.text("entries")
        await connect(page)
        await page.wait_for_text("entries", "New call at")
