"""Media directions of a session, from FastRTC's ``modality`` and ``mode``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

from fastrtc_anyio._core.options import check_choice

Modality: TypeAlias = Literal["video", "audio", "audio-video"]
Mode: TypeAlias = Literal["send-receive", "receive", "send"]
Direction: TypeAlias = Literal["sendrecv", "sendonly", "recvonly", "inactive"]
"""Direction attribute of a media section (RFC 8866 6.7)."""


def as_direction(*, sends: bool, receives: bool) -> Direction:
    """Return the direction of a section in which one side sends, receives, both or neither."""
    if receives:
        return "sendrecv" if sends else "recvonly"
    return "sendonly" if sends else "inactive"


@dataclass(frozen=True)
class MediaPlan:
    """Media that a session carries. ``in`` is from the client to the handler."""

    audio_in: bool = True
    audio_out: bool = True
    video_in: bool = False
    video_out: bool = False

    @classmethod
    def of(cls, modality: Modality, mode: Mode) -> MediaPlan:
        """Return the plan of a stream. The mode is the client's: ``"send"`` is to the handler.

        Raises:
            ValueError: ``modality`` or ``mode`` is not one of the allowed values.
        """
        check_choice("modality", modality, get_args(Modality))
        check_choice("mode", mode, get_args(Mode))
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
        """Whether there is audio in either direction."""
        return self.audio_in or self.audio_out

    @property
    def video(self) -> bool:
        """Whether there is video in either direction."""
        return self.video_in or self.video_out

    def receives(self, kind: Literal["audio", "video"]) -> bool:
        """Whether the server receives a kind of media."""
        return self.audio_in if kind == "audio" else self.video_in

    def sends(self, kind: Literal["audio", "video"]) -> bool:
        """Whether the server sends a kind of media."""
        return self.audio_out if kind == "audio" else self.video_out

    def direction(self, kind: Literal["audio", "video"]) -> Direction:
        """Return the direction of the server's media section."""
        return as_direction(sends=self.sends(kind), receives=self.receives(kind))


@dataclass(frozen=True)
class MediaNeeds:
    """Media formats that a driver asks its transport for."""

    sample_rate: int = 48_000
    """Rate of outgoing audio, in Hz."""
    input_sample_rate: int = 48_000
    """Rate of incoming audio, in Hz, where the client does not choose one."""
    channels: int = 1
    """Channels of outgoing audio: 1 or 2."""
    input_channels: int | None = None
    """Channels of incoming audio, where they can be chosen; None: as many as the client sends."""
    fps: float = 30
    """Maximum frame rate of outgoing video, in Hz."""
    live: bool | None = None
    """Whether outgoing audio is derived from incoming audio in real time; None if unknown."""
