"""GStreamer by WHIP and WHEP, with libnice and an RSA certificate."""

from __future__ import annotations

import subprocess
from pathlib import Path

import anyio
import numpy as np
import pytest

from fastrtc_anyio import AudioFrame, CloseReason, RtcConfiguration, Session
from fastrtc_anyio._media.frames import Int16Array
from fastrtc_anyio._peers.webrtc import local_addresses
from tests.kit.backends import on_trio
from tests.kit.calls import make_stream, only_session, serve, wait_ended
from tests.kit.measure import typical_snr
from tests.kit.waiting import SECONDS, wait_until

from .likeness import likeness, read_wav

pytestmark = pytest.mark.interop

PYTHON = "/usr/bin/python3"
"""The system's Python, for which apt installs GStreamer's bindings."""
PACKAGES = (
    "python3-gst-1.0 gir1.2-gst-plugins-bad-1.0 gstreamer1.0-plugins-base "
    "gstreamer1.0-plugins-good gstreamer1.0-plugins-bad gstreamer1.0-nice"
)
FREQUENCY = 440


@pytest.fixture(scope="session")
def gstreamer() -> str:
    """Path of a Python with GStreamer; fails without it."""
    program = (
        "import gi; gi.require_version('GstWebRTC', '1.0'); from gi.repository import Gst;"
        "Gst.init(None); assert all(map(Gst.ElementFactory.find, ('webrtcbin', 'nicesrc',"
        "'opusenc', 'rtpopuspay', 'opusdec', 'rtpopusdepay', 'srtpenc', 'dtlsenc')))"
    )
    if subprocess.run([PYTHON, "-c", program], capture_output=True, check=False).returncode:
        pytest.fail(f"GStreamer is missing: apt-get install {PACKAGES}", pytrace=False)
    return PYTHON


@pytest.fixture(autouse=True)
def other_addresses() -> None:
    if not local_addresses():
        pytest.skip("libnice does not connect over the loopback interface")


async def test_pipeline_publishes_to_a_handler(gstreamer: str) -> None:
    heard: list[Int16Array] = []

    async def listen(session: Session) -> None:
        async for frame in session.audio_in:
            heard.append(frame.samples[:1])

    stream = make_stream(listen, mode="send", server_rtc_configuration=RtcConfiguration())
    script = str(Path(__file__).with_name("whip_gstreamer.py"))
    async with serve(stream) as url:
        command = [gstreamer, script, f"{url}/whip", "3", str(FREQUENCY)]
        async with await anyio.open_process(command, stdout=subprocess.PIPE, stderr=None) as client:
            await wait_until(lambda: len(heard) > 100, "two seconds from GStreamer")
            session = only_session(stream)
            with anyio.fail_after(SECONDS):
                assert await client.wait() == 0
        assert await wait_ended(stream, session) is CloseReason.HUNG_UP
    samples = np.concatenate(heard, axis=1)[0]
    snr = typical_snr(samples, FREQUENCY, 48_000)
    print(f"{samples.size / 48_000:.2f} s were heard, with {snr:.1f} dB")
    assert snr > 20


@on_trio
async def test_pipeline_plays_the_audio_of_a_handler(
    gstreamer: str, speech: Path, tmp_path: Path
) -> None:
    said = read_wav(speech)

    async def read_aloud(session: Session) -> None:
        while True:
            await session.audio_out.send(AudioFrame(48_000, said[np.newaxis]))

    stream = make_stream(read_aloud, mode="receive", server_rtc_configuration=RtcConfiguration())
    script = str(Path(__file__).with_name("whep_gstreamer.py"))
    sound = tmp_path / "heard"
    async with serve(stream) as url:
        command = [gstreamer, script, f"{url}/whep", "2.5", str(sound)]
        began = anyio.current_time()
        async with await anyio.open_process(command, stdout=subprocess.PIPE, stderr=None) as client:
            await wait_until(lambda: bool(stream.sessions), "GStreamer's offer")
            session = only_session(stream)
            await wait_until(sound.exists, "sound at GStreamer")
            print(f"heard after {anyio.current_time() - began:.2f} s, with GStreamer's start")
            with anyio.fail_after(SECONDS):
                assert await client.wait() == 0
            assert client.stdout is not None
            posted, *patched, deleted = (await client.stdout.receive()).split()
        assert (posted, set(patched), deleted) == (b"201", {b"204"}, b"200")
        assert await wait_ended(stream, session) is CloseReason.HUNG_UP
    heard = np.fromfile(sound, "<i2")
    alike = likeness(heard, said, 48_000)
    print(f"{heard.size / 48_000:.2f} s were heard, like what was said: {alike:.3f}")
    assert heard.size > 2 * 48_000
    assert alike > 0.8
