"""Clients that stop sending audio over UDP: a muted microphone, DTX, a network that fails."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from fractions import Fraction
from typing import Any

import anyio
import numpy as np
import pytest
from anyio import create_task_group
from av import Packet

from fastrtc_anyio import EnergyVad, ReplyOnPause, Session, Stream
from fastrtc_anyio._media.encode import create_encoder
from fastrtc_anyio.testing import tone
from tests.kit.aiortc_client import AiortcClient, Microphone
from tests.kit.calls import make_stream, only_session, place_call
from tests.kit.conversations import Log, LoudVad, words
from tests.kit.network import open_network
from tests.kit.waiting import SECONDS, wait_until

VOICE = tone(300, 48_000, 0.6)
GAP = 60  # frames between the sounds


DETECTORS = pytest.mark.parametrize(
    "vad", [LoudVad, EnergyVad], ids=["own-listening", "shared-listening"]
)


class SparseMicrophone(Microphone):
    """Sends encoded frames of a tone at the given places, in frames of 20 ms, and nothing else."""

    def __init__(self, places: Iterable[int], codec: str) -> None:
        super().__init__()
        self._places = iter(places)
        self._encoder = create_encoder(codec, 8_000, 1)
        rate = self._encoder.sample_rate
        gap = np.zeros((1, GAP * rate // 50), np.int16)
        self._sound = np.concatenate([tone(440, rate, 0.4), gap, tone(440, rate, 0.4)], 1)

    async def recv(self) -> Any:
        place = next(self._places, None)
        loop = asyncio.get_running_loop()
        if place is None:
            await asyncio.sleep(3600)
            raise AssertionError
        if self._start is None:
            self._start = loop.time()
        await asyncio.sleep(self._start + place * 0.02 - loop.time())
        encoder, size = self._encoder, self._encoder.sample_rate // 50
        payload = encoder.encode(self._sound[:, place * size : (place + 1) * size])
        packet: Any = Packet(payload)
        packet.pts = place * encoder.rtp_increment
        packet.time_base = Fraction(1, encoder.clock_rate)
        return packet


SOUNDS = [*range(20), *range(20 + GAP, 40 + GAP)]


@pytest.mark.parametrize("codec", ["opus", "PCMU", "G722"])
async def test_frames_that_are_not_sent_count_as_silence(codec: str) -> None:
    """Packets are numbered without a gap; their timestamps jump (RFC 7587 3.1.3)."""
    places = {"muted": SOUNDS, "dtx": sorted([*SOUNDS, *range(20, 20 + GAP, 20)])}
    heard: dict[str, list[Any]] = {}

    async def listen(session: Session) -> None:
        frames = heard.setdefault(str(session.alias), [])
        async for frame in session.audio_in:
            frames.append(frame)

    async def call(stream: Any, name: str) -> None:
        microphone = SparseMicrophone(places[name], codec)
        async with place_call(stream, name, codec=codec, microphone=microphone):
            await wait_until(
                lambda: sum(f.duration for f in heard.get(name, ())) > (39 + GAP) / 50, "the sound"
            )

    async with make_stream(listen) as stream, create_task_group() as tasks:
        for name in places:
            tasks.start_soon(call, stream, name)
    for frames in heard.values():
        sound = np.concatenate([np.abs(frame.samples[0]) for frame in frames])
        loud = np.flatnonzero(sound > 1500) / frames[0].sample_rate
        assert np.diff(loud).max() == pytest.approx(GAP / 50, abs=0.05)
        assert sound.size / frames[0].sample_rate == pytest.approx((40 + GAP) / 50, abs=0.1)


async def speak(stream: Stream, client: AiortcClient) -> None:
    """Say the words once the session listens: earlier ones may be discarded on a busy machine."""

    def listens() -> bool:
        counted = only_session(stream).statistics().audio_in
        return counted is not None and counted.received > 5

    await wait_until(listens, "the first audio")
    for start in range(0, VOICE.shape[1], 960):
        client.microphone.frames.put(VOICE[:, start : start + 960])


@DETECTORS
async def test_client_that_mutes_while_speaking_hears_the_reply(vad: Any) -> None:
    log = Log()

    async def reply(audio: Any) -> Any:
        yield words(0.5)

    handler = ReplyOnPause(reply, model=vad(), on_event=log)
    async with make_stream(handler) as stream, place_call(stream) as client:
        await speak(stream, client)
        await wait_until(lambda: "UserStartedSpeaking" in log.kinds, "the speech")
        (sender,) = client.pc.getSenders()
        client._loop.call_soon_threadsafe(sender.replaceTrack, None)
        with anyio.fail_after(SECONDS):
            while np.abs((await client.receive_audio()).samples).max() < 1000:
                pass
        counted = only_session(stream).statistics().audio_in
        assert counted is not None
        assert 0.3 < counted.silence_seconds < SECONDS


@DETECTORS
async def test_reply_waits_for_the_end_of_an_outage(vad: Any) -> None:
    """A client out of reach would not hear the reply."""
    log = Log()
    back_at: list[float] = []
    started_at: list[float] = []

    async def reply(audio: Any) -> Any:
        started_at.append(anyio.current_time())
        yield words(0.5)

    handler = ReplyOnPause(reply, model=vad(), on_event=log)
    with open_network(delay=0.02) as network:
        async with make_stream(handler) as stream, place_call(stream, network=network) as client:
            await speak(stream, client)
            await wait_until(lambda: "UserStartedSpeaking" in log.kinds, "the speech")
            network.outage = True
            await anyio.sleep(2)  # the outage, which no event ends
            assert not started_at
            network.outage = False
            back_at.append(anyio.current_time())
            with anyio.fail_after(SECONDS):
                while np.abs((await client.receive_audio()).samples).max() < 1000:
                    pass
            counted = only_session(stream).statistics().audio_in
            assert counted is not None
            assert counted.silence_seconds == pytest.approx(2, abs=0.5)
    assert started_at[0] >= back_at[0]
