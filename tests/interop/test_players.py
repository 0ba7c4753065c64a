"""WHIP and WHEP with libwebrtc in Node and Chromium: clients that trickle and send ETags."""

from __future__ import annotations

import base64
from collections.abc import AsyncGenerator
from pathlib import Path

import numpy as np
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import FileResponse
from starlette.routing import Route

from fastrtc_anyio import AudioFrame, CloseReason, Session, Stream
from fastrtc_anyio._media.frames import Int16Array, as_int16
from fastrtc_anyio.server.launch import open_server
from fastrtc_anyio.testing.signals import tone
from tests.kit.backends import on_trio
from tests.kit.calls import make_stream, only_session, serve, wait_ended
from tests.kit.waiting import wait_until

from .chromium import Browser, Page
from .likeness import likeness, read_wav
from .node import HERE, open_caller
from .test_libwebrtc import check_tone

pytestmark = pytest.mark.interop

RATE = 48_000
TONE = 440


async def speak(session: Session) -> None:
    """Send a tone until the call ends."""
    while True:
        await session.audio_out.send(AudioFrame(RATE, tone(TONE, RATE, 1.0)))


async def test_libwebrtc_plays(node: str) -> None:
    """The player ignores the server's candidates; its trickled candidates connect the call."""
    stream = make_stream(speak)
    async with (
        serve(stream) as url,
        open_caller(node, f"{url}/whep", "whep_node.mjs", blind=True) as player,
    ):
        tag = (await player.wait_for("started"))["tag"]
        connected = await player.wait_for("state", state="connected")
        print(f"connected after {connected['seconds']:.3f} s")
        session = only_session(stream)
        samples, rate = await player.hear(1.2)
        check_tone(samples[0], TONE, rate)
        await player.order("statuses")
        statuses = await player.wait_for("statuses")
        assert statuses["post"] == 201
        assert set(statuses["patch"]) == {204}

        for tagged, user, status in (
            (tag, None, 204),
            ("*", None, 204),
            ('"other"', None, 412),
            (None, None, 428),
            (tag, "a=ice-ufrag:another", 400),
            ("*", "a=ice-ufrag:another", 400),
        ):
            await player.order("patch", tag=tagged, user=user)
            assert (await player.wait_for("patched"))["status"] == status
        await player.hear(0.2)  # the call is still connected

        await player.order("stop")
        assert (await player.wait_for("stopped"))["status"] == 200
        assert await wait_ended(stream, session) is CloseReason.HUNG_UP


@pytest.fixture
async def elsewhere() -> AsyncGenerator[str, None]:
    """A page of another origin that can publish and play."""

    async def page(_request: Request) -> FileResponse:
        return FileResponse(HERE / "whip.html", media_type="text/html")

    async def script(_request: Request) -> FileResponse:
        return FileResponse(HERE / "whip.mjs", media_type="text/javascript")

    routes = [Route("/", page), Route("/whip.mjs", script)]
    async with open_server(Starlette(routes=routes)) as url:
        yield url


@on_trio
async def test_page_of_another_origin_publishes(
    browser: Browser, speech: Path, elsewhere: str
) -> None:
    heard: list[Int16Array] = []

    async def listen(session: Session) -> None:
        async for frame in session.audio_in:
            heard.append(frame.samples[0])

    stream = make_stream(listen, allowed_origins=[elsewhere])
    async with serve(stream) as url:
        page = await browser.open_page(elsewhere)
        await page.evaluate(f"publish('{url}/whip')")
        session = only_session(stream)
        await wait_until(lambda: sum(map(len, heard)) > 2 * RATE, "two seconds of sound")
        await check_end(page, stream, session)
    alike = likeness(np.concatenate(heard), read_wav(speech), RATE)
    print(f"what was heard is like what was said: {alike:.3f}")
    assert alike > 0.8


@on_trio
async def test_page_of_another_origin_plays(browser: Browser, speech: Path, elsewhere: str) -> None:
    said = read_wav(speech)

    async def read_aloud(session: Session) -> None:
        while True:
            await session.audio_out.send(AudioFrame(RATE, said[np.newaxis]))

    stream = make_stream(read_aloud, allowed_origins=[elsewhere])
    async with serve(stream) as url:
        page = await browser.open_page(elsewhere)
        await page.evaluate(f"play('{url}/whep')")
        session = only_session(stream)
        sound = await page.evaluate("record(3)")
        heard = np.frombuffer(base64.b64decode(sound), np.float32)
        await check_end(page, stream, session)
    alike = likeness(as_int16(heard)[0], said, RATE)
    print(f"what was heard is like what was said: {alike:.3f}")
    assert alike > 0.8


async def check_end(page: Page, stream: Stream, session: Session) -> None:
    """Hang up, and check that every request of the page succeeded."""
    assert await page.evaluate("stop()") == 200
    assert await wait_ended(stream, session) is CloseReason.HUNG_UP
    statuses = await page.evaluate("client.statuses")
    assert statuses["post"] == 201
    assert set(statuses["patch"]) == {204}
    assert page.complaints == []
