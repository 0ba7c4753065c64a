"""The media sections that a connection uses, and the tracks in them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from aiortc import MediaStreamTrack, RTCPeerConnection, RTCRtpSender, RTCRtpTransceiver
from aiortc.mediastreams import MediaStreamError
from aiortc.rtcrtpparameters import RTCRtcpFeedback, RTCRtpCodecParameters

from fastrtc_anyio._media.encode import AudioEncoder, OpusOptions, create_encoder
from fastrtc_anyio._media.media_plan import MediaPlan
from fastrtc_anyio._media.video_encode import VideoOptions
from fastrtc_anyio._peers.discards import Discards
from fastrtc_anyio._peers.streams.audio import AudioInput, AudioOutput
from fastrtc_anyio._peers.streams.messages import MessageChannel
from fastrtc_anyio._peers.streams.video import VideoInput, VideoOutput
from fastrtc_anyio._signaling.codecs import codec_name, limit_bitrate
from fastrtc_anyio._signaling.offer import Negotiation
from fastrtc_anyio._signaling.sdp import Format
from fastrtc_anyio.errors import InvalidOffer, UnsupportedFormat
from fastrtc_anyio.limits import RequestLimits

from . import fast_internals, internals, media_internals
from .audio import AudioTap, tap_audio
from .decode_pictures import PictureTap, as_picture
from .picture_encoder import use_picture_encoder
from .sending import AudioSender, PlayoutTrack
from .video import PictureTrack, keep_receiving


@dataclass(frozen=True)
class Streams:
    """Queues and counters that a connection shares with the host."""

    audio_in: AudioInput
    audio_out: AudioOutput
    video_in: VideoInput
    video_out: VideoOutput
    messages: MessageChannel
    discards: Discards


@dataclass(frozen=True)
class MediaOptions:
    """Kinds, directions and encoding of a connection's media."""

    plan: MediaPlan
    sample_rate: int
    channels: int
    input_sample_rate: int
    input_channels: int | None
    opus: OpusOptions
    video: VideoOptions


class ConnectionMedia:
    """Connects the transceivers of a connection with the queues.

    ``on_broken`` is called with the exception when a frame cannot be encoded, ``on_sender_ended``
    when aiortc has stopped a sender.
    """

    def __init__(
        self,
        options: MediaOptions,
        streams: Streams,
        limits: RequestLimits,
        on_broken: Callable[[Exception], None],
        on_sender_ended: Callable[[], None],
    ) -> None:
        self._options = options
        self._plan = options.plan
        self._streams = streams
        self._limits = limits
        self._on_broken = on_broken
        self._on_sender_ended = on_sender_ended
        self._encoder: AudioEncoder | None = None
        self._tap: AudioTap | None = None
        self._pictures: PictureTrack | None = None
        self._unsent: list[MediaStreamTrack] = []
        self.video_sender: RTCRtpTransceiver | None = None

    @property
    def plan(self) -> MediaPlan:
        """Media of the connection."""
        return self._plan

    @property
    def video_codec(self) -> str | None:
        """The preferred codec of outgoing video."""
        return self._options.video.codec

    def use_offered(self, negotiation: Negotiation, transceivers: list[RTCRtpTransceiver]) -> None:
        """Use the sections that were chosen, each by its transceiver.

        Raises:
            InvalidOffer: the encoder for the codec does not support the sample rate.
        """
        by_mid = {transceiver.mid: transceiver for transceiver in transceivers}
        for use in negotiation.uses:
            transceiver = by_mid[negotiation.mid(use.index)]
            internals.set_codecs(transceiver, [_parameters(use.kind, f) for f in use.formats])
            transceiver.direction = use.direction
            if use.receives:
                self._receive(transceiver)
        for kind in ("audio", "video"):
            if self._plan.sends(kind):
                used = [use for use in negotiation.uses if use.kind == kind]
                # Where the client receives nothing, playout goes on in the codec of its media.
                use = next((use for use in used if use.sends), used[0])
                sender = by_mid[negotiation.mid(use.index)] if use.sends else None
                sent = use.formats[0]
                self._send(kind, sender, codec_name(sent), limit_bitrate(sent))

    def add_sections(self, pc: RTCPeerConnection) -> None:
        """Add the sections of the plan to a connection that makes an offer."""
        for kind in ("audio", "video"):
            direction = self._plan.direction(kind)
            if direction == "inactive":
                continue
            transceiver = pc.addTransceiver(kind, direction)
            if kind == "audio":
                capabilities = RTCRtpSender.getCapabilities("audio").codecs
                opus = [c for c in capabilities if c.mimeType == "audio/opus"]
                transceiver.setCodecPreferences(opus)
            if self._plan.receives(kind):
                self._receive(transceiver)
            if self._plan.sends(kind):
                self._send(kind, transceiver, "opus")

    def use_video_encoder(self) -> None:
        """Apply the options of video. Call it once the codec is known, before media is sent."""
        if self.video_sender is not None:
            use_picture_encoder(self.video_sender, self._options.video)

    @property
    def opus_parameters(self) -> tuple[tuple[str, str | None], ...]:
        """Parameters of Opus that describe this side (RFC 7587 6.1)."""
        channels = self._options.channels if self._encoder is None else self._encoder.channels
        stereo = (("stereo", "1"), ("sprop-stereo", "1")) if channels == 2 else ()
        # Declares that the decoder can use it. The client decides whether to send it.
        fec = self._plan.audio_in or self._options.opus.inband_fec
        return (*stereo, *((("useinbandfec", "1"),) if fec else ()))

    def unsent_tracks(self) -> list[MediaStreamTrack]:
        """Return the outgoing tracks that the client does not receive: aiortc never reads them."""
        return self._unsent

    def flush_pictures(self) -> None:
        """Send the video frame that is in the queue."""
        if self._pictures is not None:
            self._pictures.wake()

    def end_input(self) -> None:
        """End the incoming streams."""
        self._streams.audio_in.end()
        self._streams.video_in.end()

    def end_output(self) -> None:
        """End the outgoing streams."""
        self._streams.audio_out.end()
        self._streams.video_out.end()

    def close(self) -> None:
        """Free the codecs. No track may use the encoder any more."""
        if self._tap is not None:
            self._tap.close()
        if self._encoder is not None:
            self._encoder.close()

    def _receive(self, transceiver: RTCRtpTransceiver) -> None:
        if transceiver.kind == "audio":
            self._tap = tap_audio(
                transceiver,
                self._streams.audio_in,
                self._streams.discards,
                self._options.input_sample_rate,
                self._options.input_channels,
            )
        else:
            discards, receiver = self._streams.discards, transceiver.receiver
            tap = PictureTap(self._limits, discards)
            video_in = self._streams.video_in
            media_internals.receive_pictures(
                receiver,
                lambda frame: video_in.push(as_picture(frame)),
                tap.admit,
                asyncio.get_running_loop().time,
                lambda: discards.count("video", "a picture could not be decoded"),
            )
            media_internals.bound_pauses(receiver)
            keep_receiving(transceiver)

    def _send(
        self,
        kind: str,
        sender: RTCRtpTransceiver | None,
        codec: str,
        max_bitrate: int | None = None,
    ) -> None:
        """Send media of a kind by ``sender``, or discard it. Video has the codec of its sender."""
        track: MediaStreamTrack
        if kind == "audio":
            track = playout = self._make_playout_track(codec, max_bitrate)
            if sender is not None and fast_internals.is_usable():
                fast_internals.replace_sending(
                    sender.sender, AudioSender(sender.sender, playout).run
                )
        else:
            self._pictures = track = PictureTrack(self._streams.video_out)
            track.on("ended", self._on_sender_ended)
            self.video_sender = sender
        if sender is None:
            self._unsent.append(track)
        else:
            sender.sender.replaceTrack(track)

    def _make_playout_track(self, codec: str, max_bitrate: int | None) -> PlayoutTrack:
        options = self._options
        try:
            encoder = create_encoder(
                codec, options.sample_rate, options.channels, options.opus, max_bitrate
            )
        except UnsupportedFormat as exc:
            raise InvalidOffer(str(exc)) from exc
        self._encoder = encoder
        self._streams.audio_out.bind(encoder.sample_rate, encoder.channels)
        track = PlayoutTrack(self._streams.audio_out, encoder, self._on_broken)
        track.on("ended", self._on_sender_ended)
        return track


async def drain_track(track: MediaStreamTrack) -> None:
    """Read a track to its end and discard its frames."""
    try:
        while True:
            await track.recv()
    except MediaStreamError:
        pass


def _parameters(kind: str, one: Format) -> RTCRtpCodecParameters:
    """Return a format in aiortc's form."""
    name = codec_name(one)
    repeated = one.get("apt") if name == "rtx" else None
    return RTCRtpCodecParameters(
        mimeType=f"{kind}/{name}",
        clockRate=one.clock_rate,
        channels=None if kind == "video" else 2 if name == "opus" else 1,
        payloadType=one.payload_type,
        rtcpFeedback=[RTCRtcpFeedback(*feedback.split()) for feedback in one.feedback],
        parameters={} if repeated is None else {"apt": int(repeated)},
    )
