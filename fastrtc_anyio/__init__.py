"""Real-time voice and video handlers for Python, under trio or asyncio.

Derive a handler, give it to a :class:`Stream`, and people talk to it from a browser::

    class Echo(AsyncStreamHandler): ...

    Stream(Echo(), modality="audio").launch()

Importing this package loads neither asyncio nor any media library: they load on first use.
"""

from __future__ import annotations

from .errors import (
    AdmissionError,
    Closed,
    CloseReason,
    ConnectTimeout,
    FastRTCError,
    HandlerContractError,
    InvalidCandidate,
    InvalidOffer,
    InvalidStateError,
    MediaError,
    PeerClosed,
    PeerError,
    PeerFailed,
    SignalingError,
    StreamNotOpen,
    UnknownSession,
    UnsupportedFormat,
    WebRTCError,
)
from .handlers import (
    AdditionalOutputs,
    AsyncAudioVideoStreamHandler,
    AsyncStreamHandler,
    AudioEmitType,
    AudioVideoStreamHandler,
    CloseStream,
    EmitType,
    StreamHandler,
    StreamHandlerBase,
    VideoEmitType,
    WebRTCData,
)
from .media.frames import AudioFrame
from .media.playout import Played
from .protocol.ice import IceServer, RtcConfiguration
from .protocol.session_state import SessionState
from .session import Limits, Session
from .stream import Stream

__version__ = "0.1.0"

__all__ = [
    "AdditionalOutputs",
    "AdmissionError",
    "AsyncAudioVideoStreamHandler",
    "AsyncStreamHandler",
    "AudioEmitType",
    "AudioFrame",
    "AudioVideoStreamHandler",
    "CloseReason",
    "CloseStream",
    "Closed",
    "ConnectTimeout",
    "EmitType",
    "FastRTCError",
    "HandlerContractError",
    "IceServer",
    "InvalidCandidate",
    "InvalidOffer",
    "InvalidStateError",
    "Limits",
    "MediaError",
    "PeerClosed",
    "PeerError",
    "PeerFailed",
    "Played",
    "RtcConfiguration",
    "Session",
    "SessionState",
    "SignalingError",
    "Stream",
    "StreamHandler",
    "StreamHandlerBase",
    "StreamNotOpen",
    "UnknownSession",
    "UnsupportedFormat",
    "VideoEmitType",
    "WebRTCData",
    "WebRTCError",
]
