"""FastRTC's ``fastrtc.utils``: names of this package where its programs import them."""

from __future__ import annotations

import json
from typing import Literal

from .audio import (
    aggregate_bytes_to_16bit,
    async_aggregate_bytes_to_16bit,
    audio_to_bytes,
    audio_to_file,
    audio_to_float32,
    audio_to_int16,
    wait_for_item,
)
from .errors import WebRTCError
from .handlers import CloseStream, WebRTCData
from .outputs import AdditionalOutputs
from .session import Context, Warning, get_current_context
from .speech.batch import AudioChunk

__all__ = [
    "AUDIO_PTIME",
    "AdditionalOutputs",
    "AudioChunk",
    "CloseStream",
    "Context",
    "Warning",
    "WebRTCData",
    "WebRTCError",
    "aggregate_bytes_to_16bit",
    "async_aggregate_bytes_to_16bit",
    "audio_to_bytes",
    "audio_to_file",
    "audio_to_float32",
    "audio_to_int16",
    "create_message",
    "get_current_context",
    "wait_for_item",
]

AUDIO_PTIME = 0.02
"""Seconds of audio in one frame."""

MessageType = Literal[
    "send_input",
    "end_stream",
    "fetch_output",
    "stopword",
    "error",
    "warning",
    "log",
    "update_connection",
]


def create_message(type: MessageType, data: list[object] | str) -> str:
    """Return the text of a message to the client, for a handler's ``send_message``.

    Args:
        type: what the message is about.
        data: its content, of values with a JSON form.

    Raises:
        TypeError: a value has no JSON form.
    """
    return json.dumps({"type": type, "data": data})
