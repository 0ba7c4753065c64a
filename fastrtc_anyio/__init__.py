"""Real-time voice and video handlers for Python on trio or asyncio.

Derive a handler and give it to a :class:`Stream`, which serves it to browsers, WebSockets and
telephones::

    class Echo(AsyncStreamHandler): ...

    Stream(Echo(), modality="audio").launch()

Importing this package loads neither asyncio nor any media library; they load on first use.
"""

from __future__ import annotations

import typing as _typing

from . import utils as utils
from ._core.records import LOGGER as _LOGGER
from ._core.records import install as _install
from ._core.threads import run_sync
from ._media.encode import OpusOptions
from ._media.frames import AudioFrame
from ._media.playout import Played
from ._media.video import VideoFrame
from ._media.video_encode import VideoOptions
from ._signaling.address_policy import AddressPolicy
from ._signaling.ice import IceServer, RtcConfiguration
from ._signaling.session_state import SessionState
from ._wire.call_xml import TelephoneOptions
from .audio import (
    aggregate_bytes_to_16bit,
    async_aggregate_bytes_to_16bit,
    audio_to_bytes,
    audio_to_file,
    audio_to_float32,
    audio_to_int16,
    wait_for_item,
)
from .conversation import (
    AlgoOptions,
    AppState,
    Interruption,
    InterruptionJudge,
    InterruptionRejected,
    ReplyFinished,
    ReplyInterrupted,
    ReplyOnPause,
    ReplyOnStopWords,
    ReplyStarted,
    StopWordHeard,
    TurnEvent,
    UserStartedSpeaking,
    UserStoppedSpeaking,
    Utterance,
)
from .errors import (
    AdmissionError,
    Closed,
    CloseReason,
    ConnectTimeout,
    CredentialsError,
    Draining,
    FastRTCError,
    HandlerContractError,
    InvalidBody,
    InvalidCandidate,
    InvalidMessage,
    InvalidOffer,
    InvalidStateError,
    InvalidTransition,
    LimitExceeded,
    MediaError,
    NoFreePort,
    NotAllowed,
    NotAuthenticated,
    Overloaded,
    PeerClosed,
    PeerError,
    PeerFailed,
    SaveFailed,
    SignalingError,
    StreamNotOpen,
    UnknownSession,
    UnsupportedFormat,
    WebRTCError,
)
from .handlers import (
    AsyncAudioVideoStreamHandler,
    AsyncStreamHandler,
    AudioEmitType,
    AudioVideoStreamHandler,
    CloseStream,
    EmitType,
    StreamHandler,
    StreamHandlerBase,
    VideoEmitType,
    VideoStreamHandler,
    WebRTCData,
)
from .limits import Limits, RequestLimits
from .outputs import AdditionalOutputs
from .resumption import MemoryStore, Resumed, SessionStore
from .server.page.components import Chatbot, Checkbox, Choice, Slider, Textbox
from .server.page.ui_args import UIArgs
from .session import Context, Session, SessionStatistics, Warning, get_current_context
from .speech.batch import ModelOptions, PauseDetectionModel
from .speech.cartesia import CartesiaTTSOptions
from .speech.energy import EnergyVad
from .speech.kokoro import KokoroTTSOptions
from .speech.loaders import get_stt_model, get_tts_model
from .speech.moonshine import MoonshineSTT
from .speech.notes import note_speech
from .speech.silero import SileroVadOptions, get_silero_model
from .speech.stt import PhraseSpotter, STTModel
from .speech.tts import TTSModel
from .speech.vad import Vad, VadStream
from .stream import Stream
from .transcript import Transcript, TranscriptEntry
from .turn_servers import (
    get_cloudflare_turn_credentials,
    get_cloudflare_turn_credentials_async,
    get_hf_turn_credentials,
    get_hf_turn_credentials_async,
    get_turn_credentials,
    get_turn_credentials_async,
    get_twilio_turn_credentials,
    get_twilio_turn_credentials_async,
)

__version__ = "0.1.0"

_install(_LOGGER)

if not _typing.TYPE_CHECKING:  # for type checkers, a name that does not exist is an error

    def __getattr__(name: str) -> _typing.NoReturn:
        if name == "WebRTC":
            raise ImportError(
                "fastrtc_anyio has no WebRTC, which is a component for pages of Gradio. Pass its "
                "arguments to Stream(handler, mode=..., modality=..., additional_inputs=[...], "
                "additional_outputs=[...]), and call stream.launch()"
            )
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__all__ = [
    "AdditionalOutputs",
    "AddressPolicy",
    "AdmissionError",
    "AlgoOptions",
    "AppState",
    "AsyncAudioVideoStreamHandler",
    "AsyncStreamHandler",
    "AudioEmitType",
    "AudioFrame",
    "AudioVideoStreamHandler",
    "CartesiaTTSOptions",
    "Chatbot",
    "Checkbox",
    "Choice",
    "CloseReason",
    "CloseStream",
    "Closed",
    "ConnectTimeout",
    "Context",
    "CredentialsError",
    "Draining",
    "EmitType",
    "EnergyVad",
    "FastRTCError",
    "HandlerContractError",
    "IceServer",
    "Interruption",
    "InterruptionJudge",
    "InterruptionRejected",
    "InvalidBody",
    "InvalidCandidate",
    "InvalidMessage",
    "InvalidOffer",
    "InvalidStateError",
    "InvalidTransition",
    "KokoroTTSOptions",
    "LimitExceeded",
    "Limits",
    "MediaError",
    "MemoryStore",
    "ModelOptions",
    "MoonshineSTT",
    "NoFreePort",
    "NotAllowed",
    "NotAuthenticated",
    "OpusOptions",
    "Overloaded",
    "PauseDetectionModel",
    "PeerClosed",
    "PeerError",
    "PeerFailed",
    "PhraseSpotter",
    "Played",
    "ReplyFinished",
    "ReplyInterrupted",
    "ReplyOnPause",
    "ReplyOnStopWords",
    "ReplyStarted",
    "RequestLimits",
    "Resumed",
    "RtcConfiguration",
    "STTModel",
    "SaveFailed",
    "Session",
    "SessionState",
    "SessionStatistics",
    "SessionStore",
    "SignalingError",
    "SileroVadOptions",
    "Slider",
    "StopWordHeard",
    "Stream",
    "StreamHandler",
    "StreamHandlerBase",
    "StreamNotOpen",
    "TTSModel",
    "TelephoneOptions",
    "Textbox",
    "Transcript",
    "TranscriptEntry",
    "TurnEvent",
    "UIArgs",
    "UnknownSession",
    "UnsupportedFormat",
    "UserStartedSpeaking",
    "UserStoppedSpeaking",
    "Utterance",
    "Vad",
    "VadStream",
    "VideoEmitType",
    "VideoFrame",
    "VideoOptions",
    "VideoStreamHandler",
    "Warning",
    "WebRTCData",
    "WebRTCError",
    "aggregate_bytes_to_16bit",
    "async_aggregate_bytes_to_16bit",
    "audio_to_bytes",
    "audio_to_file",
    "audio_to_float32",
    "audio_to_int16",
    "get_cloudflare_turn_credentials",
    "get_cloudflare_turn_credentials_async",
    "get_current_context",
    "get_hf_turn_credentials",
    "get_hf_turn_credentials_async",
    "get_silero_model",
    "get_stt_model",
    "get_tts_model",
    "get_turn_credentials",
    "get_turn_credentials_async",
    "get_twilio_turn_credentials",
    "get_twilio_turn_credentials_async",
    "note_speech",
    "run_sync",
    "wait_for_item",
]
