"""Video calls of plain aiortc clients over UDP."""

from __future__ import annotations

import logging
from typing import Any

import anyio
import numpy as np
import pytest
from aiortc.rtp import RtpPacket, is_rtcp
from anyio import to_thread

from fastrtc_anyio import (
    AsyncAudioVideoStreamHandler,
    CloseReason,
    EmitType,
    InvalidOffer,
    VideoEmitType,
    VideoOptions,
    VideoStreamHandler,
)
from tests.kit.calls import make_stream, only_session, place_call
from tests.kit.measure import echo_of_tones
from tests.kit.waiting import wait_until

BLUE, RED = (255, 0, 0), (0, 0, 255)


def flat(color: Any, height: int = 240, width: int = 320) -> Any:
    return np.full((height, width, 3), color, np.uint8)


def is_color(frame: Any, color: Any) -> bool:
    middle = frame.to_ndarray(format="bgr24")[60:180, 80:240].astype(int)
    return bool(np.abs(middle.mean(axis=(0, 1)) - color).max() < 20)


def swap(frame: Any) -> Any:
    """Turn blue into red."""
    return frame[..., ::-1]


@pytest.mark.parametrize("codec", ["VP8", "H264"])
async def test_function_transforms_frames(codec: str) -> None:
    stream = make_stream(swap, modality="video")
    async with stream, place_call(stream, audio=False, video="sendrecv", video_codec=codec) as call:
        call.camera.picture = flat(BLUE)
        await wait_until(lambda: call.seen and is_color(call.seen[-1], RED))
        (session,) = stream.sessions.values()
        counted = session.statistics()
        assert counted.audio_in is None
        assert counted.video_in is not None
        assert counted.video_out is not None
        assert counted.video_in.received > 0
        assert counted.video_out.played > 0
        reports = await session.transport_statistics()
        kinds = {(r["type"], r.get("kind")) for r in reports.values()}
        assert {("inbound-rtp", "video"), ("outbound-rtp", "video")} <= kinds


async def test_preferred_codec_is_first_in_answer() -> None:
    stream = make_stream(swap, modality="video", video=VideoOptions(codec="H264", bitrate=800_000))
    async with stream, place_call(stream, audio=False, video="sendrecv") as call:
        section = call.answer["sdp"].split("m=video")[1]
        first = section.split()[2]
        assert f"a=rtpmap:{first} H264/90000" in section
        call.camera.picture = flat(BLUE)
        await wait_until(lambda: call.seen and is_color(call.seen[-1], RED))


class Both(AsyncAudioVideoStreamHandler):
    """Echoes audio and swapped video."""

    def __init__(self) -> None:
        super().__init__(output_sample_rate=48_000)
        self.streams: Any = None

    async def start_up(self) -> None: ...

    def queues(self) -> Any:
        if self.streams is None:
            self.streams = [anyio.create_memory_object_stream[Any](n) for n in (50, 1)]
        return self.streams

    async def receive(self, frame: Any) -> None:
        await self.queues()[0][0].send(frame)

    async def emit(self) -> EmitType:
        return await self.queues()[0][1].receive()  # type: ignore[no-any-return]

    async def video_receive(self, frame: Any) -> None:
        await self.queues()[1][0].send(swap(frame))

    async def video_emit(self) -> VideoEmitType:
        picture: VideoEmitType = await self.queues()[1][1].receive()
        return picture

    async def shutdown(self) -> None:
        for pair in self.queues():
            for end in pair:
                end.close()

    def copy(self) -> Both:
        return Both()


async def test_audio_and_video_both_ways() -> None:
    stream = make_stream(Both(), modality="audio-video")
    async with stream, place_call(stream, video="sendrecv") as call:
        call.camera.picture = flat(BLUE)
        (snr,) = await echo_of_tones(call, [440], wanted=25)
        assert snr > 25
        await wait_until(lambda: call.seen and is_color(call.seen[-1], RED))


async def test_generator_with_recvonly_client() -> None:
    async def pictures() -> Any:
        for _ in range(30):
            yield flat(RED)

    stream = make_stream(pictures, modality="video", mode="receive")
    async with stream, place_call(stream, audio=False, video="recvonly") as call:
        assert "a=sendonly" in call.answer["sdp"]
        await wait_until(lambda: call.seen and is_color(call.seen[-1], RED))
        await wait_until(call.closed.is_set)
    assert len(call.seen) >= 25


async def test_still_frame_is_repeated() -> None:
    sent = 0

    class Still(Both):
        async def emit(self) -> EmitType:
            return None

        async def video_emit(self) -> VideoEmitType:
            nonlocal sent
            sent += 1
            if sent > 1:
                await anyio.sleep_forever()
            picture: VideoEmitType = flat(RED)
            return picture

        def copy(self) -> Still:
            return Still()

    stream = make_stream(Still(), modality="audio-video")
    async with stream, place_call(stream, video="recvonly") as call:
        await wait_until(lambda: len(call.seen) >= 3)
        assert is_color(call.seen[-1], RED)
        (session,) = stream.sessions.values()
        counted = session.statistics().video_out
        assert counted is not None
        assert (counted.sent, counted.played) == (1, 1)


@pytest.mark.parametrize("size", [(239, 321), (240, 321), (64, 64), (720, 1280)])
async def test_frame_sizes(size: tuple[int, int]) -> None:
    def show(_frame: Any) -> Any:
        return flat(RED, *size)

    stream = make_stream(VideoStreamHandler(show, fps=10), modality="video")
    async with stream, place_call(stream, audio=False, video="sendrecv") as call:
        await wait_until(lambda: bool(call.seen))
        shown = call.seen[-1]
        assert abs(shown.width - size[1]) <= 1
        assert abs(shown.height - size[0]) <= 1


async def test_offer_without_video_section_is_rejected() -> None:
    stream = make_stream(swap, modality="video")
    with pytest.raises(InvalidOffer, match="no video section"):
        async with stream, place_call(stream, audio=True):
            pass


@pytest.mark.parametrize("video", ["sendrecv", "sendonly", "recvonly"])
async def test_session_function_with_video_directions(video: str) -> None:
    async def look(session: Any) -> None:
        async for frame in session.video_in:
            await session.video_out.send(swap(frame.to_ndarray()))

    stream = make_stream(look, modality="video")
    async with stream, place_call(stream, audio=False, video=video) as call:
        call.camera.picture = flat(BLUE)
        (session,) = stream.sessions.values()
        if video == "sendrecv":
            await wait_until(lambda: call.seen and is_color(call.seen[-1], RED))
        elif video == "sendonly":  # the client receives none, but send() has to return
            await wait_until(lambda: session.peer.video_out.statistics().played > 5)
        else:
            assert session.statistics().video_in == session.peer.video_in.statistics()


async def test_bitrate_option_is_an_upper_limit() -> None:
    """The client can request less, by REMB, and never gets more."""
    stream = make_stream(swap, modality="video", video=VideoOptions(bitrate=2_000_000))
    async with stream, place_call(stream, audio=False, video="sendrecv") as call:
        call.camera.picture = flat(BLUE)
        await wait_until(lambda: call.seen and is_color(call.seen[-1], RED))
        (session,) = stream.sessions.values()
        peer: Any = session.peer
        sender = peer._connection.media.video_sender.sender
        encoder = sender._RTCRtpSender__encoder
        codec = encoder._encoder.codec
        assert abs(codec.bit_rate - encoder.target_bitrate) <= 0.1 * codec.bit_rate
        encoder.target_bitrate = 9_000_000
        assert encoder.target_bitrate == 2_000_000
        encoder.target_bitrate = 0
        assert encoder.target_bitrate == 50_000
        encoder.target_bitrate = 300_000
        assert encoder.target_bitrate == 300_000
        before = len(call.seen)
        await wait_until(lambda: len(call.seen) > before + 3)
        assert abs(encoder._encoder.codec.bit_rate - 300_000) <= 30_000


async def test_settings_of_the_encoder_are_applied() -> None:
    options = VideoOptions(codec="H264", keyframe_interval=0.2, speed=4, threads=2)
    stream = make_stream(swap, modality="video", video=options)
    async with stream, place_call(stream, audio=False, video="sendrecv") as call:
        call.camera.picture = flat(BLUE)
        await wait_until(lambda: sum(frame.key_frame for frame in call.seen) >= 4)
        peer: Any = only_session(stream).peer
        encoder = peer._connection.media.video_sender.sender._RTCRtpSender__encoder
        assert encoder._encoder.codec.thread_count == 2


@pytest.mark.parametrize("video_format", ["bgr24", "frame"])
async def test_filter_may_keep_its_pictures_and_change_arrays(video_format: Any) -> None:
    kept: list[tuple[Any, Any]] = []

    def pass_on(frame: Any) -> Any:
        kept.append((frame, frame.copy() if video_format == "bgr24" else frame.to_ndarray()))
        if video_format == "bgr24" and len(kept) > 1:
            kept[-2][0][:] = 0  # may be encoded now
        return frame

    stream = make_stream(VideoStreamHandler(pass_on, video_format=video_format), modality="video")
    async with stream, place_call(stream, audio=False, video="sendrecv") as call:
        call.camera.picture = flat(RED)
        await wait_until(lambda: call.seen and is_color(call.seen[-1], RED))
        shown = len(call.seen)
        await wait_until(lambda: len(call.seen) >= shown + 10)
        assert all(is_color(frame, RED) for frame in call.seen[shown:])
    if video_format == "frame":
        assert all(np.array_equal(frame.to_ndarray(), was) for frame, was in kept)


@pytest.mark.parametrize("count", [1, 3])
async def test_last_frame_reaches_client(count: int) -> None:
    def pictures() -> Any:
        yield from [flat(BLUE)] * (count - 1)
        yield flat(RED)

    stream = make_stream(pictures, modality="video", mode="receive")
    seen: list[Any] = []
    async with stream:
        for _ in range(3):  # a busy client may be closed before it has decoded a frame
            async with place_call(stream, audio=False, video="recvonly") as call:
                await wait_until(call.closed.is_set)
            seen = call.seen
            if seen and is_color(seen[-1], RED):
                return
    pytest.fail(f"{len(seen)} frames were received without the last")


async def test_failing_encoder_ends_session(caplog: pytest.LogCaptureFixture) -> None:
    stream = make_stream(swap, modality="video", video=VideoOptions(bitrate=500_000))
    async with stream, place_call(stream, audio=False, video="sendrecv") as call:
        (session,) = stream.sessions.values()
        peer: Any = session.peer
        sender = peer._connection.media.video_sender.sender
        sender._RTCRtpSender__encoder._encoder = None
        await wait_until(lambda: not stream.sessions)
        assert call.seen is not None
    assert session.closed is not None
    assert session.closed.reason is CloseReason.PEER_FAILED
    assert session.closed.message == "RTCRtpSender._run_rtp failed: AttributeError"
    errors = [r for r in caplog.records if r.levelno >= logging.ERROR]
    assert len(errors) == 1
    text = "a task of a WebRTC connection failed: RTCRtpSender._run_rtp: AttributeError"
    assert errors[0].getMessage().startswith(text)


@pytest.mark.parametrize(
    ("codec", "empty", "broken"),
    [("VP8", b"\x10", b"\x10" + b"\xff" * 12), ("H264", b"", b"\x65" + b"\xff" * 12)],
    ids=["VP8", "H264"],
)
async def test_pictures_that_cannot_be_decoded_affect_nothing_else(
    codec: str, empty: bytes, broken: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """FFmpeg takes a picture without data for the end of the stream."""
    sent = 0

    def mangle(packet: RtpPacket) -> None:
        nonlocal sent
        sent += 1
        if 20 < sent < 80 and sent % 2 and len(packet.payload) > len(broken):
            packet.payload = broken if sent % 4 == 1 else empty

    seen: list[Any] = []
    stream = make_stream(seen.append, modality="video", mode="send")
    call = place_call(stream, audio=False, video="sendonly", video_codec=codec)
    async with stream, call as client:
        session = only_session(stream)

        async def start() -> None:
            (transceiver,) = client.pc.getTransceivers()
            transport: Any = transceiver.sender.transport
            send = transport._send_rtp

            async def send_rtp(data: bytes) -> None:
                if not is_rtcp(data):
                    packet = RtpPacket.parse(data)
                    mangle(packet)
                    data = packet.serialize()
                await send(data)

            transport._send_rtp = send_rtp

        await to_thread.run_sync(client.run, start)
        client.camera.picture = flat(BLUE)
        await wait_until(lambda: sent >= 80)
        client.camera.picture = flat(RED)
        await wait_until(lambda: bool(np.abs(seen[-1][120, 160] - np.array(RED)).max() < 20))
        assert session.statistics().discarded.video > 0
    entries = [r for r in caplog.records if r.levelno >= logging.WARNING]
    assert [entry.name for entry in entries] == ["fastrtc_anyio"]
