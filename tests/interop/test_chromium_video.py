"""Video by way of the page in Chromium, with a camera that sees numbered pictures.

Pictures of the page are in each test's ``tmp_path``.
"""

from __future__ import annotations

import base64
import itertools
import statistics
from collections.abc import Callable, Iterator
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import anyio
import numpy as np
import pytest
from aiortc.rtp import RtcpByePacket
from numpy.typing import NDArray

from fastrtc_anyio import (
    AdditionalOutputs,
    AsyncAudioVideoStreamHandler,
    CloseReason,
    EmitType,
    Session,
    VideoEmitType,
    VideoStreamHandler,
)
from fastrtc_anyio._media.encode import VideoOptions
from tests.kit.backends import on_trio
from tests.kit.calls import make_stream, only_session, serve, wait_ended
from tests.kit.waiting import SECONDS, wait_until

from .chromium import Browser, Page, open_browser
from .pages import OpenPage
from .pictures import COUNT, FPS, HEIGHT, WIDTH, Look, make_picture

pytestmark = [pytest.mark.interop, pytest.mark.timeout(120)]

"""For what the backend has no part in."""

COUNT_QUESTIONS = """{
  window.questions = [];
  const ask = MediaDevices.prototype.getUserMedia;
  MediaDevices.prototype.getUserMedia = function (constraints) {
    questions.push(constraints);
    return ask.call(this, constraints);
  };
}"""

SIZE = f"{WIDTH}\N{MULTIPLICATION SIGN}{HEIGHT}"
"""As the page writes it."""

# A video, drawn as small as its blocks can be read: bytes of rgba in base64, or null.
SMALL = (64, 48)
LOOK = """
(() => {
  const [width, height] = %s;
  const canvas = new OffscreenCanvas(width, height);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  const pictures = %s.map((id) => {
    const video = document.getElementById(id);
    if (!video.srcObject || !video.videoWidth) return null;
    context.drawImage(video, 0, 0, width, height);
    return btoa(String.fromCharCode(...context.getImageData(0, 0, width, height).data));
  });
  return pictures;
})()
"""

STATS = """(async () => {
  const report = await call.pc.getStats();
  const all = [...report.values()];
  const of = (type, kind) => all.find((s) => s.type === type && s.kind === kind) ?? {};
  const inbound = of("inbound-rtp", "video"), outbound = of("outbound-rtp", "video");
  return {
    shown: inbound.framesDecoded ?? 0,
    time: (inbound.timestamp ?? 0) / 1000,
    received: report.get(inbound.codecId)?.mimeType ?? null,
    sent: report.get(outbound.codecId)?.mimeType ?? null,
    heard: of("inbound-rtp", "audio").totalAudioEnergy ?? 0,
  };
})()"""


async def look(page: OpenPage, *videos: str) -> list[Look | None]:
    """What the page's videos show at this moment."""
    drawn = await page.evaluate(LOOK % (list(SMALL), list(videos)))
    looks: list[Look | None] = []
    for data in drawn:
        if data is None:
            looks.append(None)
            continue
        rgba = np.frombuffer(base64.b64decode(data), np.uint8).reshape(SMALL[1], SMALL[0], 4)
        looks.append(Look.of(rgba[..., 2::-1]))
    return looks


async def wait_look(
    page: OpenPage, video: str, condition: Callable[[Look], bool], what: str
) -> Look:
    """Wait until a video shows something."""
    seen: Look | None = None
    with anyio.move_on_after(SECONDS):
        while True:
            (seen,) = await look(page, video)
            if seen is not None and condition(seen):
                return seen
            await anyio.sleep(0.02)
    raise AssertionError(f"#{video} does not show {what}: {seen}")


async def wait_moving(page: Page, video: str, read: Callable[[Look], Look] = lambda x: x) -> None:
    """Wait until a video has shown several pictures, all with the right colours."""
    numbers: set[int] = set()

    def is_new(seen: Look) -> bool:
        seen = read(seen)
        if seen.resembles() and seen.number >= 0:
            numbers.add(seen.number)
        return len(numbers) >= 5

    await wait_look(page, video, is_new, "five of the pictures")


async def measure_fps(page: Page, seconds: float = 3.0) -> float:
    """Pictures a second that Chromium decodes, over some seconds."""
    first: dict[str, Any] = {}
    with anyio.fail_after(SECONDS + seconds):
        while True:
            now: dict[str, Any] = await page.evaluate(STATS)
            if not first and now["shown"] > 10:  # the beginning is over
                first = now
            if first and now["time"] - first["time"] >= seconds:
                break
            await anyio.sleep(0.1)
    fps: float = (now["shown"] - first["shown"]) / (now["time"] - first["time"])
    print(f"{fps:.1f} pictures a second")
    return fps


async def measure_latency(page: Page, read: Callable[[Look], Look] = lambda x: x) -> float:
    """Seconds by which the picture that came back is behind the one the camera sees."""
    delays: list[float] = []
    with anyio.move_on_after(SECONDS):
        while len(delays) < 30:
            local, remote = await look(page, "local", "remote")
            if local is not None and remote is not None:
                numbers = local.number, read(remote).number
                if min(numbers) >= 0:
                    delays.append((numbers[0] - numbers[1]) % COUNT / FPS)
            await anyio.sleep(0.02)
    delay = statistics.median(delays)
    print(f"{delay * 1000:.0f} ms there and back")
    return delay


async def connect(page: Page) -> None:
    began = anyio.current_time()
    await page.click("connect")
    await page.wait_for_text("connection", "Connected")
    print(f"connected after {anyio.current_time() - began:.2f} s")


def mirror(frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """From left to right, and every colour its opposite."""
    return 255 - frame[:, ::-1]


def mirrored(look: Look) -> Look:
    return look.mirrored().inverted()


def numbers() -> Iterator[NDArray[np.uint8]]:
    for number in itertools.count():
        yield make_picture(number)


class AudioVideoEcho(AsyncAudioVideoStreamHandler):
    """Says back what it hears, shows what it sees."""

    @cached_property
    def sounds(self) -> Any:
        return anyio.create_memory_object_stream[Any](100)

    @cached_property
    def pictures(self) -> Any:
        return anyio.create_memory_object_stream[Any](1)

    async def receive(self, frame: Any) -> None:
        await self.sounds[0].send(frame)

    async def emit(self) -> EmitType:
        return await self.sounds[1].receive()  # type: ignore[no-any-return]

    async def video_receive(self, frame: Any) -> None:
        await self.pictures[0].send(frame)

    async def video_emit(self) -> VideoEmitType:
        return await self.pictures[1].receive()  # type: ignore[no-any-return]

    async def shutdown(self) -> None:
        for stream in (*self.sounds, *self.pictures):
            stream.close()

    def copy(self) -> AudioVideoEcho:
        return AudioVideoEcho()


async def test_a_function_of_pictures(browser: Browser, tmp_path: Path) -> None:
    """What comes back is what the function makes of the camera's picture, as often as asked."""
    stream = make_stream(VideoStreamHandler(mirror, fps=20), modality="video")
    async with serve(stream) as url:
        page = await browser.open_page(url, COUNT_QUESTIONS)
        await page.look(tmp_path / "idle.png")
        await connect(page)
        session = only_session(stream)
        (question,) = await page.evaluate("questions")
        assert "audio" not in question

        await wait_moving(page, "local")
        await wait_moving(page, "remote", mirrored)
        size = "document.getElementById('remote').videoWidth === %d"
        await page.wait_for(size % WIDTH, "the camera's own size")
        assert 15 < await measure_fps(page) < 23
        assert await measure_latency(page, mirrored) < 1
        await page.wait_for_text("picture-in", SIZE)
        await page.wait_for_text("picture-out", SIZE)
        await page.look(tmp_path / "call.png")
        await page.look(tmp_path / "call-dark.png", dark=True)
        await page.look(tmp_path / "call-phone.png", width=390, height=844)

        await page.click("connect")
        assert await wait_ended(stream, session) is CloseReason.HUNG_UP
        await page.wait_for_text("status", "Call ended")
        assert await look(page, "local", "remote") == [None, None]
        assert page.complaints == []


async def test_sound_and_pictures(browser: Browser, tmp_path: Path) -> None:
    stream = make_stream(AudioVideoEcho(), modality="audio-video")
    async with serve(stream) as url:
        page = await browser.open_page(url, COUNT_QUESTIONS)
        await page.look(tmp_path / "idle.png")
        await connect(page)
        assert await page.evaluate("questions.length") == 1  # one question for both
        await wait_moving(page, "remote")
        await page.wait_for(f"{STATS}.then((stats) => stats.heard > 1e-4)", "the speech")
        assert 20 < await measure_fps(page) < 33
        assert await measure_latency(page) < 1
        await page.wait_for_text("picture-in", SIZE)
        await page.look(tmp_path / "call.png")
        await page.look(tmp_path / "call-phone.png", width=390, height=1200)
        assert page.complaints == []


@on_trio
async def test_pictures_for_somebody_who_sends_nothing(browser: Browser, tmp_path: Path) -> None:
    """A generator is shown at its rate, and nobody is asked for a camera or a microphone."""
    stream = make_stream(numbers, modality="video", mode="receive")
    async with serve(stream) as url:
        page = await browser.open_page(url, COUNT_QUESTIONS)
        await page.look(tmp_path / "idle.png")
        await connect(page)
        await wait_moving(page, "remote")
        assert 24 < await measure_fps(page) < 33
        assert await look(page, "local") == [None]
        await page.wait_for_text("picture-in", SIZE)
        await page.look(tmp_path / "call.png")
        assert await page.evaluate("questions") == []
        shown = await page.text("page")
        assert "Camera" not in shown
        assert "Mute" not in shown


@on_trio
async def test_somebody_who_only_sends(browser: Browser, tmp_path: Path) -> None:
    seen: list[Look] = []

    def watch(frame: NDArray[np.uint8]) -> None:
        seen.append(Look.of(frame))

    stream = make_stream(watch, modality="video", mode="send")
    async with serve(stream) as url:
        page = await browser.open_page(url)
        await connect(page)
        await wait_moving(page, "local")
        await wait_until(lambda: len({s.number for s in seen if s.resembles()}) > 5, "pictures")
        await page.wait_for_text("picture-out", SIZE)
        await page.look(tmp_path / "call.png")
        assert await look(page, "remote") == [None]


async def test_the_camera_is_turned_off_and_on(browser: Browser, tmp_path: Path) -> None:
    """The call goes on, and so do the pictures: those to the handler and those that come back."""
    stream = make_stream(AudioVideoEcho(), modality="audio-video")
    async with serve(stream) as url:
        page = await browser.open_page(url, COUNT_QUESTIONS)
        await connect(page)
        session = only_session(stream)
        received = partial(count_received, session)
        for _ in range(2):
            await wait_moving(page, "remote")
            await page.click("camera-switch")
            await page.wait_for_text("camera-switch", "Turn on")
            await page.wait_for_text("hint", "Your camera is off.")
            assert await look(page, "local") == [None]
            await page.wait_for("!call.senders.video.track", "the end of the track")
            await wait_still(received)
            await page.look(tmp_path / "off.png")
            await take_bye(session)

            before = received()
            await page.click("camera-switch")
            await page.wait_for_text("camera-switch", "Turn off")
            await wait_moving(page, "local")
            await wait_until(partial(lambda n: received() > n + 10, before), "pictures")
        await wait_moving(page, "remote")
        assert session.closed is None
        assert await page.text("hint") == "Talk: the handler hears and sees you."
        assert await page.evaluate("questions.length") == 3
        assert page.complaints == []


async def take_bye(session: Session) -> None:
    """Have the server get an RTCP BYE for the camera: RFC 3550 6.6 allows one whenever a source
    stops. Chromium 156 sends none when its camera is turned off, but that is its own affair."""
    peer: Any = session.peer
    (receiver,) = (r for r in peer._connection._pc.getReceivers() if r.track.kind == "video")
    await peer._portal.call(receiver._handle_rtcp_packet, RtcpByePacket(sources=[0]))


def count_received(session: Session) -> int:
    video = session.statistics().video_in
    assert video is not None
    return video.received


async def wait_still(count: Callable[[], int], seconds: float = 0.5) -> None:
    """Wait until a number has not changed for so long."""
    with anyio.fail_after(SECONDS):
        seen, since = count(), anyio.current_time()
        while anyio.current_time() - since < seconds:
            await anyio.sleep(0.02)
            if (now := count()) != seen:
                seen, since = now, anyio.current_time()


@on_trio
async def test_h264(browser: Browser) -> None:
    """The codec a stream asks for is the one that both sides send."""
    stream = make_stream(
        VideoStreamHandler(mirror), modality="video", video=VideoOptions(codec="H264")
    )
    async with serve(stream) as url:
        page = await browser.open_page(url)
        offered = "RTCRtpReceiver.getCapabilities('video').codecs.map((codec) => codec.mimeType)"
        assert "video/H264" in await page.evaluate(offered)
        await connect(page)
        await wait_moving(page, "remote", mirrored)
        assert 15 < await measure_fps(page) < 33
        await measure_latency(page, mirrored)
        stats = await page.evaluate(STATS)
        assert (stats["sent"], stats["received"]) == ("video/H264", "video/H264")


@on_trio
async def test_a_function_that_waits_for_input(browser: Browser) -> None:
    """What the handler asks for and has to tell is in the log; it starts when it has its input."""

    def brighten(frame: NDArray[np.uint8], by: int) -> tuple[NDArray[np.uint8], AdditionalOutputs]:
        return np.full_like(frame, by), AdditionalOutputs(by)

    stream = make_stream(brighten, modality="video")
    async with serve(stream) as url:
        page = await browser.open_page(url)
        await connect(page)
        await page.wait_for_text("messages", "send_input")
        assert "fetch_output" not in await page.text("messages")
        stream.set_input(await page.evaluate("call.id"), 200)
        grey = [(200, 200, 200)] * 4
        await wait_look(page, "remote", lambda seen: seen.resembles(grey), "grey")
        await page.wait_for_text("messages", "fetch_output")


@on_trio
@pytest.mark.parametrize(
    ("modality", "given"),
    [
        ("video", {"width": {"exact": 160}, "height": {"exact": 120}}),
        (
            "audio-video",
            {"audio": {"echoCancellation": False}, "video": {"width": 160, "height": 120}},
        ),
    ],
)
async def test_what_the_stream_asks_of_the_page(
    browser: Browser, modality: Any, given: dict[str, Any]
) -> None:
    """Constraints in both of their forms, and parameters of senders."""
    stream = make_stream(
        AudioVideoEcho(),
        modality=modality,
        track_constraints=given,
        rtp_params={
            "degradationPreference": "maintain-resolution",
            "encodings": [{"maxFramerate": 10}],
        },
        ui_args={"title": "Mirror", "subtitle": "See yourself"},
    )
    async with serve(stream) as url:
        page = await browser.open_page(url, COUNT_QUESTIONS)
        assert await page.text("title") == "Mirror"
        assert await page.text("subtitle") == "See yourself"
        assert await page.evaluate("document.title") == "Mirror"
        await connect(page)
        wanted = given if modality == "audio-video" else {"video": given}
        assert await page.evaluate("questions") == [wanted]
        await page.wait_for("document.getElementById('local').videoWidth === 160", "its size")
        parameters = "call.senders.video.getParameters()"
        await page.wait_for(f"{parameters}.encodings[0].maxFramerate === 10", "its rate")
        preference = await page.evaluate(f"{parameters}.degradationPreference")
        assert preference == "maintain-resolution"
        assert "warning" not in await page.text("messages")


@on_trio
async def test_no_camera(chromium: str, speech: Path, tmp_path: Path) -> None:
    """The page says what is missing; without a camera there is sound all the same."""
    stream = make_stream(AudioVideoEcho(), modality="audio-video")
    none = "--use-fake-device-for-media-stream=device-count=0"
    async with open_browser(chromium, speech, None, none) as browser, serve(stream) as url:
        page = await browser.open_page(url)
        await page.click("connect")
        await page.wait_for_text(
            "alert", "No camera was found. Plug one in, or turn the camera off"
        )
        assert await page.text("status") == "Not connected"
        await page.look(tmp_path / "no-camera.png")
        await page.click("camera-switch")
        await connect(page)
        await page.wait_for(f"{STATS}.then((stats) => stats.heard > 1e-4)", "the speech")
        assert await page.text("alert") == ""
        assert await page.text("hint") == "Your camera is off."


@on_trio
@pytest.mark.parametrize(
    ("modality", "refused"),
    [
        ("video", "The camera is blocked. Allow it for this page"),
        ("audio-video", "The camera and the microphone are blocked. Allow them for this page"),
    ],
)
async def test_a_camera_that_is_refused(
    chromium: str, speech: Path, scene: Path, tmp_path: Path, modality: Any, refused: str
) -> None:
    stream = make_stream(AudioVideoEcho(), modality=modality)
    deny = "--use-fake-ui-for-media-stream=deny"
    async with open_browser(chromium, speech, scene, deny) as browser, serve(stream) as url:
        page = await browser.open_page(url)
        await page.click("connect")
        await page.wait_for_text("alert", refused)
        assert await page.text("status") == "Not connected"
        assert await page.text("connect-label") == "Connect"
        assert not stream.sessions
        await page.look(tmp_path / "refused.png")
