"""The media sections that a connection uses, and the tracks in them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from aiortc import MediaStreamTrack, RTCPeerConnection, RTCRtpSender, RTCRtpTransceiver
from aiortc.mediastreams import MediaStreamError

from fastrtc_anyio._media.encode import AudioEncoder, OpusOptions, VideoOptions, create_encoder
from fastrtc_anyio._media.media_plan import MediaPlan
from fastrtc_anyio._peers.streams.audio import AudioInput, AudioOutput
from fastrtc_anyio._peers.streams.messages import MessageChannel
from fastrtc_anyio._peers.streams.video import VideoInput, VideoOutput
from fastrtc_anyio._signaling.sdp import set_opus_parameters
from fastrtc_anyio.errors import InvalidOffer, UnsupportedFormat

from . import internals
from .audio import AudioTap, PlayoutTrack, tap_audio
from .video import PictureTrack, keep_receiving, limit_bitrate, receive_pictures

_SENDING = ("sendonly", "sendrecv")


@dataclass(frozen=True)
class Streams:
    """Queues that a connection shares with the host."""

    audio_in: AudioInput
    audio_out: AudioOutput
    video_in: VideoInput
    video_out: VideoOutput
    messages: MessageChannel


@dataclass(frozen=True)
class MediaOptions:
    """Kinds, directions and encoding of a connection's media."""

    plan: MediaPlan
    sample_rate: int
    channels: int
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
        on_broken: Callable[[Exception], None],
        on_sender_ended: Callable[[], None],
    ) -> None:
        self._options = options
        self._plan = options.plan
        self._streams = streams
        self._on_broken = on_broken
        self._on_sender_ended = on_sender_ended
        self._encoder: AudioEncoder | None = None
        self._tap: AudioTap | None = None
        self._pictures: PictureTrack | None = None
        self.audio: RTCRtpTransceiver | None = None
        self.video: RTCRtpTransceiver | None = None

    def use_offered(self, transceivers: list[RTCRtpTransceiver]) -> None:
        """Use the first section of each kind in the plan, and answer all others ``inactive``.

        Raises:
            InvalidOffer: the offer lacks a kind in the plan, or its codec is not supported.
        """
        chosen: dict[str, RTCRtpTransceiver] = {}
        for transceiver in transceivers:
            internals.default_offer_direction(transceiver)
            if transceiver.kind in chosen or not getattr(self._plan, transceiver.kind):
                transceiver.direction = "inactive"
            else:
                chosen[transceiver.kind] = transceiver
        for kind in ("audio", "video"):
            if getattr(self._plan, kind) and kind not in chosen:
                raise InvalidOffer(f"the offer has no {kind} section; this stream needs one")
        if audio := chosen.get("audio"):
            # The answer will name this codec first. The answer itself does not exist yet.
            self._use_audio(audio, internals.get_codecs(audio)[0].name)
        if video := chosen.get("video"):
            if self._options.video.codec is not None:
                internals.prefer_codec(video, self._options.video.codec)
            self._use_video(video)

    def add_sections(self, pc: RTCPeerConnection) -> None:
        """Add the sections of the plan to a connection that makes an offer."""
        if self._plan.audio:
            audio = pc.addTransceiver("audio", self._plan.direction("audio"))
            capabilities = RTCRtpSender.getCapabilities("audio").codecs
            audio.setCodecPreferences([c for c in capabilities if c.mimeType == "audio/opus"])
            self._use_audio(audio, "opus")
        if self._plan.video:
            self._use_video(pc.addTransceiver("video", self._plan.direction("video")))

    def limit_bitrate(self) -> None:
        """Apply the bitrate option. Call it once the codec is known, before media is sent."""
        if self.video is not None and self._plan.video_out:
            limit_bitrate(self.video, self._options.video)

    def describe(self, sdp: str) -> str:
        """Add the Opus parameters, which aiortc omits, to a local description."""
        channels = self._options.channels if self._encoder is None else self._encoder.channels
        fec = self._options.opus.inband_fec
        return set_opus_parameters(sdp, stereo=channels == 2, inband_fec=fec)

    def unsent_tracks(self) -> list[MediaStreamTrack]:
        """Return the outgoing tracks that the client does not receive: aiortc never reads them."""
        used = [t for t in (self.audio, self.video) if t and t.currentDirection not in _SENDING]
        tracks: list[MediaStreamTrack | None] = [t.sender.track for t in used]
        return [track for track in tracks if track is not None]

    async def consume(self, track: MediaStreamTrack) -> None:
        """Read an incoming track to its end, because aiortc's queue behind it is unbounded.

        The audio track yields nothing, as its packets are tapped. Its end after an RTCP BYE does
        not end the audio: a browser sends BYE when its microphone is turned off, and resumes when
        it is turned on.
        """
        if self._plan.video_in and self.video and track is self.video.receiver.track:
            await receive_pictures(track, self._streams.video_in)
        else:
            await drain_track(track)

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

    def _use_audio(self, transceiver: RTCRtpTransceiver, codec: str) -> None:
        self.audio = transceiver
        transceiver.direction = self._plan.direction("audio")
        if self._plan.audio_in:
            self._tap = tap_audio(transceiver, self._streams.audio_in)
        if self._plan.audio_out:
            transceiver.sender.replaceTrack(self._make_playout_track(codec))

    def _use_video(self, transceiver: RTCRtpTransceiver) -> None:
        self.video = transceiver
        transceiver.direction = self._plan.direction("video")
        if self._plan.video_in:
            keep_receiving(transceiver)
        if self._plan.video_out:
            self._pictures = PictureTrack(self._streams.video_out, self._on_broken)
            self._pictures.on("ended", self._on_sender_ended)
            transceiver.sender.replaceTrack(self._pictures)

    def _make_playout_track(self, codec: str) -> PlayoutTrack:
        options = self._options
        try:
            encoder = create_encoder(codec, options.sample_rate, options.channels, options.opus)
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
