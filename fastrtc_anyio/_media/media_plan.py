"""Which media flow which way, from FastRTC's two words for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

Modality: TypeAlias = Literal["video", "audio", "audio-video"]
Mode: TypeAlias = Literal["send-receive", "receive", "send"]


@dataclass(frozen=True)
class MediaPlan:
    """What a session carries. ``in`` is from the client to the handler."""

    audio_in: bool = True
    audio_out: bool = True
    video_in: bool = False
    video_out: bool = False

    @classmethod
    def of(cls, modality: Modality, mode: Mode) -> MediaPlan:
        """The plan of a stream. Modes are the client's: ``"send"`` is to the handler.

        Raises:
            ValueError: names what was got and what there is.
        """
        if modality not in get_args(Modality):
            raise ValueError(f"modality must be one of {get_args(Modality)}; got {modality!r}")
        if mode not in get_args(Mode):
            raise ValueError(f"mode must be one of {get_args(Mode)}; got {mode!r}")
        audio, video = modality != "video", modality != "audio"
        sends, receives = mode != "receive", mode != "send"
        return cls(
            audio_in=audio and sends,
            audio_out=audio and receives,
            video_in=video and sends,
            video_out=video and receives,
        )

    @property
    def audio(self) -> bool:
        """Whether there is audio either way."""
        return self.audio_in or self.audio_out

    @property
    def video(self) -> bool:
        """Whether there is video either way."""
        return self.video_in or self.video_out

    def direction(self, kind: Literal["audio", "video"]) -> str:
        """The direction attribute of our section of that kind (RFC 8866 6.7)."""
        receives, sends = (
            (self.audio_in, self.audio_out) if kind == "audio" else (self.video_in, self.video_out)
        )
        return {
            (True, True): "sendrecv",
            (False, True): "sendonly",
            (True, False): "recvonly",
            (False, False): "inactive",
        }[receives, sends]


@dataclass(frozen=True)
class MediaNeeds:
    """Media formats that a driver asks its transport for."""

    sample_rate: int = 48_000
    """Rate of outgoing audio, in Hz."""
    input_sample_rate: int = 48_000
    """Rate of incoming audio, in Hz, where the client does not choose one."""
    channels: int = 1
    """Channels of outgoing audio: 1 or 2."""
    fps: float = 30
    """Maximum frame rate of outgoing video, in Hz."""
    live: bool = False
    """Whether outgoing audio is derived from incoming audio in real time."""
