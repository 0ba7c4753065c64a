"""Handler classes: FastRTC's "Stream Handlers" API.

Derive from one of the five base classes and pass the handler to a ``Stream``, which makes a copy
for every connection. Methods of the synchronous classes run on threads of that connection; methods
of the asynchronous classes run on the event loop.

Audio arrives as ``(sample_rate, samples)``: int16 of shape ``(channels, n)``, 20 ms at a time, at
the handler's ``input_sample_rate`` and ``expected_layout``.

* :mod:`.base` - the base of all handlers, and the parts of a session that a handler uses
* :mod:`.media_handlers` - the four classes with ``receive`` and ``emit``
* :mod:`.functions` - functions as handlers
* :mod:`.emit_types` - values that handlers exchange with a session
"""

from .base import DataChannel, HandlerRuntime, StreamHandlerBase
from .emit_types import AudioEmitType, CloseStream, EmitType, VideoEmitType, WebRTCData
from .functions import VideoStreamHandler
from .media_handlers import (
    AsyncAudioVideoStreamHandler,
    AsyncStreamHandler,
    AudioVideoStreamHandler,
    StreamHandler,
)

__all__ = [
    "AsyncAudioVideoStreamHandler",
    "AsyncStreamHandler",
    "AudioEmitType",
    "AudioVideoStreamHandler",
    "CloseStream",
    "DataChannel",
    "EmitType",
    "HandlerRuntime",
    "StreamHandler",
    "StreamHandlerBase",
    "VideoEmitType",
    "VideoStreamHandler",
    "WebRTCData",
]
