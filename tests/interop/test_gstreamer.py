"""GStreamer streams into a handler by WHIP: libnice, an RSA certificate and a stack of its own."""

from __future__ import annotations

import subprocess
from pathlib import Path

import anyio
import numpy as np
import pytest

from fastrtc_anyio import CloseReason, RtcConfiguration, Session, Stream
from fastrtc_anyio.media.frames import Int16Array
from fastrtc_anyio.peers.webrtc import local_addresses
from tests.measure import typical_snr

from .calls import SECONDS, only_session, serve, wait_ended, wait_until

pytestmark = pytest.mark.interop

PYTHON = "/usr/bin/python3"
"""The system's: GStreamer's bindings come from apt."""
PACKAGES = (
    "python3-gst-1.0 gir1.2-gst-plugins-bad-1.0 gstreamer1.0-plugins-base "
    "gstreamer1.0-plugins-good gstreamer1.0-plugins-bad gstreamer1.0-nice"
)
FREQUENCY = 440


@pytest.fixture(scope="session")
def gstreamer() -> str:
    """The Python that has it. Missing, it is a failure."""
    program = (
        "import gi; gi.require_version('GstWebRTC', '1.0'); from gi.repository import Gst;"
        "Gst.init(None); assert all(map(Gst.ElementFactory.find, ('webrtcbin', 'nicesrc',"
        "'opusenc', 'rtpopuspay', 'srtpenc', 'dtlsenc')))"
    )
    if subprocess.run([PYTHON, "-c", program], capture_output=True, check=False).returncode:
        pytest.fail(f"GStreamer is missing: apt-get install {PACKAGES}", pytrace=False)
    return PYTHON


async def test_a_pipeline_streams_into_a_handler(gstreamer: str) -> None:
    if not local_addresses():
        pytest.skip("libnice takes no connections on the loopback interface, and there is no other")
    heard: list[Int16Array] = []

    async def listen(session: Session) -> None:
        async for frame in session.audio_in:
            heard.append(frame.samples[:1])

    stream = Stream(
        listen, modality="audio", mode="send", server_rtc_configuration=RtcConfiguration()
    )
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
