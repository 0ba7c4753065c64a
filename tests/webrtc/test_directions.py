"""Sections chosen by direction, and H.264 of any profile: plain aiortc clients over UDP."""

from __future__ import annotations

import re
from fractions import Fraction
from typing import Any

import pytest
from anyio import to_thread
from av import CodecContext
from av import VideoFrame as AvVideoFrame
from av.packet import Packet

from fastrtc_anyio import Session
from tests.kit.aiortc_client import Camera, open_client
from tests.kit.calls import accept, make_stream, place_call
from tests.kit.handlers import AsyncEcho
from tests.kit.jsep import DIRECTIONS
from tests.kit.measure import echo_of_tones
from tests.kit.waiting import wait_until

from .test_video import BLUE, RED, Both, flat, is_color, swap

PAIRS = ["sendonly+recvonly", "recvonly+sendonly"]


def directions(sdp: str) -> list[str]:
    return [line[2:] for line in sdp.splitlines() if line[2:] in DIRECTIONS]


@pytest.mark.parametrize("pair", PAIRS)
async def test_two_one_way_audio_sections_carry_one_conversation(pair: str) -> None:
    async with make_stream(AsyncEcho()) as stream, place_call(stream, audio=pair) as call:
        assert directions(call.answer["sdp"]) == directions_of_server(pair)
        assert min(await echo_of_tones(call, [440])) > 30


@pytest.mark.parametrize("pair", PAIRS)
async def test_two_one_way_video_sections_carry_one_conversation(pair: str) -> None:
    stream = make_stream(swap, modality="video")
    async with stream, place_call(stream, audio=False, video=pair) as call:
        assert directions(call.answer["sdp"]) == directions_of_server(pair)
        call.camera.picture = flat(BLUE)
        await wait_until(lambda: call.seen and is_color(call.seen[-1], RED))


@pytest.mark.parametrize("pair", PAIRS)
async def test_two_one_way_sections_of_each_kind_share_a_transport(pair: str) -> None:
    stream = make_stream(Both(), modality="audio-video")
    async with stream, place_call(stream, audio=pair, video=pair) as call:
        lines = call.answer["sdp"].splitlines()
        assert len({line.split()[1] for line in lines if line.startswith("m=")}) == 1
        call.camera.picture = flat(BLUE)
        assert min(await echo_of_tones(call, [440], wanted=25)) > 25
        await wait_until(lambda: call.seen and is_color(call.seen[-1], RED))


async def test_two_one_way_sections_without_bundle_have_a_transport_each() -> None:
    async with make_stream(AsyncEcho()) as stream, open_client() as client:
        sdp = await to_thread.run_sync(client.run, client.make_offer, None, False, PAIRS[0])
        group = re.compile(r"a=group:.*\r\n")
        answer = (await stream.offer({"type": "offer", "sdp": group.sub("", sdp)}))["sdp"]
        assert group.search(answer) is None
        lines = answer.splitlines()
        assert len({line.split()[1] for line in lines if line.startswith("m=")}) == 2
        await accept(client, answer)
        await wait_until(client.connected.is_set)
        assert min(await echo_of_tones(client, [440])) > 30


def directions_of_server(pair: str) -> list[str]:
    return {PAIRS[0]: PAIRS[1], PAIRS[1]: PAIRS[0]}[pair].split("+")


class EncodedCamera(Camera):
    """Sends pictures encoded by libx264 in a profile that aiortc does not make."""

    def __init__(self, profile: str) -> None:
        super().__init__()
        self.picture = flat(BLUE)
        self.profile_idc: int | None = None
        self._codec = codec = CodecContext.create("libx264", "w")
        codec.width, codec.height, codec.pix_fmt = 320, 240, "yuv420p"
        codec.time_base = Fraction(1, 90_000)
        codec.profile = profile
        codec.gop_size = 10  # nothing here reads the server's requests for key frames
        codec.options = {"tune": "zerolatency", "preset": "veryfast"}

    async def recv(self) -> Any:
        frame: Any = await super().recv()
        picture: Any = AvVideoFrame.from_ndarray(frame.to_ndarray(format="yuv420p"), "yuv420p")
        picture.pts = frame.pts
        data = b"".join(bytes(packet) for packet in self._codec.encode(picture))
        if self.profile_idc is None:  # from the first sequence parameter set
            self.profile_idc = data[data.index(b"\x00\x00\x01\x67") + 4]
        packet: Packet[Any] = Packet(data)
        packet.pts, packet.time_base = frame.pts, frame.time_base
        return packet


@pytest.mark.parametrize(("profile", "level_id"), [("High", "64001f"), ("Main", "4d001f")])
async def test_h264_profile_is_answered_as_offered_and_decoded(profile: str, level_id: str) -> None:
    seen: list[Any] = []

    async def watch(session: Session) -> None:
        async for frame in session.video_in:
            seen.append(frame.to_av())

    camera = EncodedCamera(profile)
    async with (
        make_stream(watch, modality="video", mode="send") as stream,
        open_client(camera=camera) as client,
    ):
        sdp = await to_thread.run_sync(
            client.run, client.make_offer, None, False, False, "sendonly", "H264"
        )
        # aiortc cannot offer the profile itself, nor accept the answer with it.
        first = re.compile("profile-level-id=42001f")
        assert first.search(sdp)
        offer = first.sub(f"profile-level-id={level_id}", sdp)
        answer = (await stream.offer({"type": "offer", "sdp": offer}))["sdp"]
        assert directions(answer) == ["recvonly"]
        assert f"profile-level-id={level_id}" in answer
        await accept(client, answer.replace(level_id, "42001f"))
        await wait_until(lambda: seen and is_color(seen[-1], BLUE))
        assert camera.profile_idc == int(level_id[:2], 16)
