"""What stands between aiortc and the queues, without a network."""

from __future__ import annotations

import asyncio
import threading
import time
from types import SimpleNamespace
from typing import Any

import anyio
import pytest
from aiortc.codecs import PCMU_CODEC
from aiortc.rtp import RtpPacket

from fastrtc_anyio import AudioFrame
from fastrtc_anyio._peers.webrtc.audio import AudioTap
from fastrtc_anyio._peers.webrtc.liveness import Heartbeat
from tests.kit.calls import make_stream
from tests.kit.handlers import AsyncEcho


def packet(sequence: int, ssrc: int = 1, payload: bytes = bytes(160)) -> RtpPacket:
    made = RtpPacket(payload_type=0, sequence_number=sequence & 0xFFFF, timestamp=sequence * 160)
    made.ssrc = ssrc
    made.payload = payload
    return made


def open_tap() -> tuple[AudioTap, list[AudioFrame]]:
    delivered: list[AudioFrame] = []
    return AudioTap({0: PCMU_CODEC}, delivered.append), delivered


def test_packets_are_delivered_as_they_come() -> None:
    tap, delivered = open_tap()
    for i in range(65_500, 65_600):
        assert tap.add(packet(i)) == (False, None)
    assert len(delivered) == 100
    assert {(f.sample_rate, f.samples.shape) for f in delivered} == {(8_000, (1, 160))}


def test_a_lost_packet_becomes_as_much_silence() -> None:
    tap, delivered = open_tap()
    for i in (0, 1, 3, 4, 5, 6):
        tap.add(packet(i, payload=bytes([0x80]) * 160))
    assert len(delivered) == 7
    assert [bool(f.samples.any()) for f in delivered] == [True, True, False, True, True, True, True]


def test_a_new_source_is_heard_whatever_its_sequence_numbers() -> None:
    tap, delivered = open_tap()
    for i in range(1000, 1010):
        tap.add(packet(i, ssrc=1))
    for i in range(500, 510):
        tap.add(packet(i, ssrc=2))
    assert len(delivered) == 20


def test_what_cannot_be_decoded_is_silence() -> None:
    tap, delivered = open_tap()
    tap.add(packet(0))
    tap.add(packet(1, payload=b""))
    tap.add(packet(2))
    assert len(delivered) == 3


def no_transport() -> Any:
    connection = SimpleNamespace(_nominated={})
    return SimpleNamespace(transport=SimpleNamespace(_connection=connection))


def test_a_stall_of_this_process_is_not_held_against_the_client() -> None:
    async def main() -> None:
        heartbeat = Heartbeat()
        watching = asyncio.create_task(heartbeat.wait_silent(0.5, no_transport()))
        await asyncio.sleep(0.05)
        time.sleep(1.0)  # noqa: ASYNC251 - as when a native call keeps the interpreter
        await asyncio.sleep(0.1)
        assert not watching.done()
        await asyncio.wait_for(watching, 10)

    asyncio.run(main())


@pytest.mark.parametrize("anyio_backend", ["trio"])
async def test_code_that_blocks_the_loop_of_handlers_is_left_behind(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("fastrtc_anyio._peers.portal._SDK_SECONDS", 0.2)
    release = threading.Event()
    try:
        with anyio.fail_after(10):
            async with make_stream(AsyncEcho) as stream:
                assert stream._opened is not None
                loop = stream._opened.asyncio_bridge.loop
                assert stream._opened.asyncio_bridge.loop is loop
                loop.call_soon_threadsafe(release.wait)
        assert "handler.loop did not stop" in caplog.text
    finally:
        release.set()
