"""ffmpeg publishes to a handler by WHIP, with its own ICE, DTLS and RTP stack."""

from __future__ import annotations

import datetime
import subprocess
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import av
import numpy as np
import pytest
from anyio.abc import Process
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from fastrtc_anyio import CloseReason, Session
from fastrtc_anyio._media.frames import Int16Array
from fastrtc_anyio.server import require_token
from tests.kit.calls import make_stream, only_session, serve, wait_ended
from tests.kit.measure import typical_snr
from tests.kit.waiting import SECONDS, wait_until

pytestmark = pytest.mark.interop

FREQUENCY = 440


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The muxer's options for a P-256 certificate.

    ffmpeg 8 with GnuTLS generates P-224 certificates, which OpenSSL rejects.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "ffmpeg")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    folder = tmp_path_factory.mktemp("ffmpeg")
    pem = serialization.Encoding.PEM
    (folder / "cert.pem").write_bytes(made.public_bytes(pem))
    (folder / "key.pem").write_bytes(
        key.private_bytes(
            pem, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
        )
    )
    return [f"cert_file={folder / 'cert.pem'}", f"key_file={folder / 'key.pem'}"]


@asynccontextmanager
async def open_ffmpeg(url: str, seconds: float, *options: str) -> AsyncGenerator[Process, None]:
    assert "whip" in av.formats_available, "this PyAV has no WHIP muxer"
    script = str(Path(__file__).with_name("whip_ffmpeg.py"))
    command = [sys.executable, script, url, str(seconds), str(FREQUENCY), *options]
    async with await anyio.open_process(command, stdout=subprocess.PIPE, stderr=None) as process:
        try:
            yield process
        finally:
            if process.returncode is None:
                process.kill()


class Listener:
    """A session function that stores the received audio and counts the pictures."""

    def __init__(self) -> None:
        self.heard: list[Int16Array] = []
        self.pictures = 0

    async def __call__(self, session: Session) -> None:
        async with anyio.create_task_group() as tg:
            if session.media.video_in:
                tg.start_soon(self._look, session)
            async for frame in session.audio_in:
                assert frame.sample_rate == 48_000
                self.heard.append(frame.samples[:1])

    async def _look(self, session: Session) -> None:
        async for _picture in session.video_in:
            self.pictures += 1


async def test_audio_is_published_to_a_handler(certificate: list[str]) -> None:
    listener = Listener()
    # The muxer sends its first second of audio at once.
    stream = make_stream(
        listener.__call__, authenticate=require_token("secret"), input_buffer_s=3.0
    )
    async with serve(stream) as url:
        began = anyio.current_time()
        options = [*certificate, "authorization=secret"]
        async with open_ffmpeg(f"{url}/whip", 3.0, *options) as process:
            await wait_until(lambda: bool(listener.heard), "sound from ffmpeg")
            print(f"heard after {anyio.current_time() - began:.2f} s, with ffmpeg's start")
            session = only_session(stream)
            with anyio.fail_after(SECONDS):
                assert await process.wait() == 0
        # It deletes its session when it has sent all.
        assert await wait_ended(stream, session) is CloseReason.HUNG_UP
    samples = np.concatenate(listener.heard, axis=1)[0]
    snr = typical_snr(samples, FREQUENCY, 48_000)
    print(f"{samples.size / 48_000:.2f} s were heard, with {snr:.1f} dB")
    assert samples.size > 2.9 * 48_000
    assert snr > 20


async def test_sound_and_pictures(certificate: list[str]) -> None:
    listener = Listener()
    stream = make_stream(listener.__call__, modality="audio-video", mode="send")
    async with serve(stream) as url:
        async with open_ffmpeg(f"{url}/whip", 3.0, "video=1", *certificate) as process:
            await wait_until(lambda: listener.pictures > 20, "pictures from ffmpeg")
            await wait_until(lambda: len(listener.heard) > 20, "sound from ffmpeg")
            with anyio.fail_after(SECONDS):
                assert await process.wait() == 0
        await wait_until(lambda: stream.active == 0, "the end of the session")


async def test_missing_token_is_rejected(certificate: list[str]) -> None:
    stream = make_stream(Listener().__call__, authenticate=require_token("secret"))
    async with serve(stream) as url:
        async with open_ffmpeg(f"{url}/whip", 0.2, *certificate) as process:
            with anyio.fail_after(SECONDS):
                assert await process.wait() != 0
        assert stream.active == 0
