"""Video calls from the page in Chromium, whose fake camera shows numbered pictures.

Screenshots are in each test's ``tmp_path``.
"""

from __future__ import annotations

import base64
import itertools
import statistics
from collections import deque
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
from fastrtc_anyio._media.video_encode import VideoOptions
from tests.kit.backends import on_trio
from tests.kit.calls import make_stream, only_session, serve, wait_ended
from tests.kit.waiting import SECONDS, wait_until

from .chromium import Browser, Page, open_browser
from .pages import COUNT_QUESTIONS, OpenPage, connect, unfold
from .pictures import COUNT, FPS, HEIGHT, WIDTH, Look, make_picture
from .reports import Reports, check_video_reports

pytestmark = [pytest.mark.interop, pytest.mark.timeout(120)]

SIZE = f"{WIDTH}\N{MULTIPLICATION SIGN}{HEIGHT}"
"""The size as the page displays it."""

# Each video scaled down as far as its blocks are readable: rgba bytes in base64, or null.
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
    """Read the current pictures of the page's videos."""
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
    """Wait until the picture of a video meets a condition."""
    seen: Look | None = None
    with anyio.move_on_after(SECONDS):
        while True:
            (seen,) = await look(page, video)
            if seen is not None and condition(seen):
                return seen
            await anyio.sleep(0.02)
    raise AssertionError(f"#{video} does not show {what}: {seen}")


async def wait_moving(page: Page, video: str, read: Callable[[Look], Look] = lambda x: x) -> None:
    """Wait until a video has shown five pictures with the right colours."""
    numbers: set[int] = set()

    def is_new(seen: Look) -> bool:
        seen = read(seen)
        if seen.resembles() and seen.number >= 0:
            numbers.add(seen.number)
        return len(numbers) >= 5

    await wait_look(page, video, is_new, "five of the pictures")


async def measure_fps(page: Page, seconds: float = 3.0) -> float:
    """Measure the pictures per second that Chromium decodes."""
    first: dict[str, Any] = {}
    with anyio.fail_after(SECONDS + seconds):
        while True:
            now: dict[str, Any] = await page.evaluate(STATS)
            if not first and now["shown"] > 10:  # after the start
                first = now
            if first and now["time"] - first["time"] >= seconds:
                break
            await anyio.sleep(0.1)
    fps: float = (now["shown"] - first["shown"]) / (now["time"] - first["time"])
    print(f"{fps:.1f} pictures a second")
    return fps


async def check_fps(page: Page, least: float, most: float) -> None:
    """Measure the pictures per second until they are in range, three times at most."""
    fps = 0.0
    for _ in range(3):
        fps = await measure_fps(page)
        if least < fps < most:
            return
    raise AssertionError(f"{fps:.1f} pictures a second; expected {least:g} to {most:g}")


async def check_latency(page: Page, read: Callable[[Look], Look] = lambda x: x) -> None:
    """Compare returned pictures with the camera's until half of 30 are less than 1 s old.

    A browser on a busy machine shows its own pictures late for a while; a queue that grows never
    ends that.
    """
    delays: deque[float] = deque(maxlen=30)
    with anyio.move_on_after(SECONDS):
        while len(delays) < 30 or statistics.median(delays) >= 1:
            local, remote = await look(page, "local", "remote")
            if local is not None and remote is not None:
                numbers = local.number, read(remote).number
                if min(numbers) >= 0:
                    delays.append((numbers[0] - numbers[1]) % COUNT / FPS)
            await anyio.sleep(0.02)
    delay = statistics.median(delays)
    print(f"{delay * 1000:.0f} ms there and back")
    assert delay < 1


def mirror(frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Mirror a picture and invert its colours."""
    return 255 - frame[:, ::-1]


def mirrored(look: Look) -> Look:
    return look.mirrored().inverted()


def numbers() -> Iterator[NDArray[np.uint8]]:
    for number in itertools.count():
        yield make_picture(number)


class AudioVideoEcho(AsyncAudioVideoStreamHandler):
    """Echoes audio and video."""

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


async def test_video_function_processes_camera_pictures(browser: Browser, tmp_path: Path) -> None:
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
        await check_fps(page, 15, 23)
        await check_latency(page, mirrored)
        await unfold(page, "details")
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


async def test_audio_and_video_echo(browser: Browser, tmp_path: Path) -> None:
    stream = make_stream(AudioVideoEcho(), modality="audio-video")
    async with serve(stream) as url:
        page = await browser.open_page(url, COUNT_QUESTIONS)
        await page.look(tmp_path / "idle.png")
        await connect(page)
        assert await page.evaluate("questions.length") == 1  # one permission prompt for both
        await wait_moving(page, "remote")
        await page.wait_for(f"{STATS}.then((stats) => stats.heard > 1e-4)", "the speech")
        await check_fps(page, 20, 33)
        await check_latency(page)
        await unfold(page, "details")
        await page.wait_for_text("picture-in", SIZE)
        await page.look(tmp_path / "call.png")
        await page.look(tmp_path / "call-phone.png", width=390, height=1200)
        assert page.complaints == []


@on_trio
async def test_receive_only_page_shows_generator_at_its_rate(
    browser: Browser, tmp_path: Path
) -> None:
    """The page does not ask for a camera or a microphone."""
    stream = make_stream(numbers, modality="video", mode="receive")
    async with serve(stream) as url:
        page = await browser.open_page(url, COUNT_QUESTIONS)
        await page.look(tmp_path / "idle.png")
        await connect(page)
        await wait_moving(page, "remote")
        await check_fps(page, 24, 33)
        assert await look(page, "local") == [None]
        await unfold(page, "details")
        await page.wait_for_text("picture-in", SIZE)
        await page.look(tmp_path / "call.png")
        assert await page.evaluate("questions") == []
        shown = await page.text("page")
        assert "Camera" not in shown
        assert "Mute" not in shown


@on_trio
async def test_send_only_page_sends_camera_pictures(browser: Browser, tmp_path: Path) -> None:
    seen: list[Look] = []

    def watch(frame: NDArray[np.uint8]) -> None:
        seen.append(Look.of(frame))

    stream = make_stream(watch, modality="video", mode="send")
    async with serve(stream) as url:
        page = await browser.open_page(url)
        await connect(page)
        await wait_moving(page, "local")
        await wait_until(lambda: len({s.number for s in seen if s.resembles()}) > 5, "pictures")
        await unfold(page, "details")
        await page.wait_for_text("picture-out", SIZE)
        await page.look(tmp_path / "call.png")
        assert await look(page, "remote") == [None]


async def test_camera_can_be_turned_off_and_on_during_a_call(
    browser: Browser, tmp_path: Path
) -> None:
    stream = make_stream(AudioVideoEcho(), modality="audio-video")
    async with serve(stream) as url:
        page = await browser.open_page(url, COUNT_QUESTIONS)
        await connect(page)
        session = only_session(stream)
        received = partial(count_received, session)
        for _ in range(2):
            await wait_moving(page, "remote")
            await page.click("camera-switch")
            await page.wait_for_text("camera-switch", "Turn camera on")
            await page.wait_for_text("hint", "Your camera is off.")
            assert await look(page, "local") == [None]
            await page.wait_for("!call.senders.video.track", "the end of the track")
            await wait_still(received)
            await page.look(tmp_path / "off.png")
            await take_bye(session)

            before = received()
            await page.click("camera-switch")
            await page.wait_for_text("camera-switch", "Turn camera off")
            await wait_moving(page, "local")
            await wait_until(partial(lambda n: received() > n + 10, before), "pictures")
        await wait_moving(page, "remote")
        assert session.closed is None
        assert await page.text("hint") == "Talk: the assistant hears and sees you."
        assert await page.evaluate("questions.length") == 3
        assert page.complaints == []


async def take_bye(session: Session) -> None:
    """Deliver an RTCP BYE for the camera to the server.

    RFC 3550 section 6.6 allows a BYE whenever a source stops, though Chromium 156 sends none.
    """
    peer: Any = session.peer
    (receiver,) = (r for r in peer._connection._pc.getReceivers() if r.track.kind == "video")
    await peer._portal.call(receiver._handle_rtcp_packet, RtcpByePacket(sources=[0]))


def count_received(session: Session) -> int:
    video = session.statistics().video_in
    assert video is not None
    return video.received


async def wait_still(count: Callable[[], int], seconds: float = 0.5) -> None:
    """Wait until a count has not changed for ``seconds``."""
    with anyio.fail_after(SECONDS):
        seen, since = count(), anyio.current_time()
        while anyio.current_time() - since < seconds:
            await anyio.sleep(0.02)
            if (now := count()) != seen:
                seen, since = now, anyio.current_time()


@on_trio
async def test_h264_is_sent_and_received_if_the_stream_prefers_it(browser: Browser) -> None:
    stream = make_stream(
        VideoStreamHandler(mirror), modality="video", video=VideoOptions(codec="H264")
    )
    async with serve(stream) as url:
        page = await browser.open_page(url)
        offered = "RTCRtpReceiver.getCapabilities('video').codecs.map((codec) => codec.mimeType)"
        assert "video/H264" in await page.evaluate(offered)
        await connect(page)
        await wait_moving(page, "remote", mirrored)
        await check_fps(page, 15, 33)
        await check_latency(page, mirrored)
        stats = await page.evaluate(STATS)
        assert (stats["sent"], stats["received"]) == ("video/H264", "video/H264")


@on_trio
async def test_reports_on_pictures_are_right(browser: Browser) -> None:
    stream = make_stream(VideoStreamHandler(mirror), modality="video")
    async with serve(stream) as url:
        page = await browser.open_page(url)
        await connect(page)
        await wait_moving(page, "remote", mirrored)

        async def get_stats() -> Reports:
            reports: Reports = await page.evaluate(
                "(async () => [...(await call.pc.getStats()).values()])()"
            )
            return reports

        await check_video_reports(get_stats)


@on_trio
async def test_function_starts_when_its_input_arrives(browser: Browser) -> None:
    """The page's log shows the request for inputs and the handler's outputs."""

    def brighten(frame: NDArray[np.uint8], by: int) -> tuple[NDArray[np.uint8], AdditionalOutputs]:
        return np.full_like(frame, by), AdditionalOutputs(by)

    stream = make_stream(brighten, modality="video")
    async with serve(stream) as url:
        page = await browser.open_page(url)
        await connect(page)
        await unfold(page, "details")
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
async def test_stream_options_set_constraints_and_sender_parameters(
    browser: Browser, modality: Any, given: dict[str, Any]
) -> None:
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
async def test_missing_camera_shows_alert_and_audio_works_without_it(
    chromium: str, speech: Path, tmp_path: Path
) -> None:
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
    ("modality", "alert"),
    [
        ("video", "The camera is blocked. Allow it for this page"),
        ("audio-video", "The camera and the microphone are blocked. Allow them for this page"),
    ],
)
async def test_denied_camera_shows_alert(
    chromium: str, speech: Path, scene: Path, tmp_path: Path, modality: Any, alert: str
) -> None:
    stream = make_stream(AudioVideoEcho(), modality=modality)
    deny = "--use-fake-ui-for-media-stream=deny"
    async with open_browser(chromium, speech, scene, deny) as browser, serve(stream) as url:
        page = await browser.open_page(url)
        await page.click("connect")
        await page.wait_for_text("alert", alert)
        assert await page.text("status") == "Not connected"
        assert await page.text("connect-label") == "Connect"
        assert not stream.sessions
        await page.look(tmp_path / "refused.png")
