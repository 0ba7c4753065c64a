"""Counters of the streams of a connection.

Each queue owns one of these objects and counts in it. Callers get copies.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class AudioInStatistics:
    """Counters of an ``AudioReceiveStream``.

    ``received + silent == read + dropped + buffered``.
    """

    received: int = 0
    """Frames received from the client."""
    silent: int = 0
    """Frames of silence read in gaps in which the client sent no audio."""
    silence_seconds: float = 0.0
    """Duration of those frames, in seconds."""
    skipped_seconds: float = 0.0
    """Seconds of such gaps that were not read: beyond 60 s, or the reader was behind."""
    dropped: int = 0
    """Frames skipped because the reader was further behind than the bound."""
    buffered: int = 0
    """Frames waiting to be read."""
    buffered_seconds: float = 0.0
    """Duration of those frames, in seconds."""
    latency: float = 0.0
    """Delay of the frame read last against the newest frame, in seconds of audio."""
    bytes: int = 0
    """Bytes of PCM received."""
    lost: int = 0
    """Packets or numbered chunks that were lost, came too late or could not be decoded."""
    concealed_seconds: float = 0.0
    """Audio that replaces lost audio, in seconds."""
    recovered_seconds: float = 0.0
    """Lost audio decoded from the redundancy (FEC) in the next packet, in seconds."""


@dataclass
class AudioOutStatistics:
    """Counters of an ``AudioSendStream``, in samples per channel.

    ``sent == played + flushed + trimmed + buffered``.
    """

    sent: int = 0
    """Samples queued by ``send``, after conversion."""
    played: int = 0
    """Samples handed to the transport, without the silence played when the queue is empty."""
    flushed: int = 0
    """Samples dropped by ``flush``."""
    trimmed: int = 0
    """Samples skipped to end a standing delay after a stall."""
    buffered: int = 0
    """Samples waiting to be played."""
    underruns: int = 0
    """Times playout ran out of samples, the end of an utterance included."""
    latency: float = 0.0
    """Seconds until a sample sent now is played."""
    bytes: int = 0
    """Bytes of PCM queued by ``send``, after conversion."""


@dataclass
class VideoInStatistics:
    """Counters of a ``VideoReceiveStream``. ``received == read + dropped + buffered``."""

    received: int = 0
    """Frames received from the client."""
    dropped: int = 0
    """Frames replaced by a newer frame before they were read."""
    buffered: int = 0
    """Frames waiting to be read: 0 or 1."""
    latency: float = 0.0
    """Seconds that the frame read last had waited."""


@dataclass
class VideoOutStatistics:
    """Counters of a ``VideoSendStream``. ``sent == played + flushed + buffered``."""

    sent: int = 0
    """Frames given to ``send``."""
    played: int = 0
    """Frames handed to the transport. A still picture that is repeated counts once."""
    flushed: int = 0
    """Frames dropped by ``flush`` or by the end of the connection."""
    buffered: int = 0
    """Frames waiting for their time: 0 or 1."""
    latency: float = 0.0
    """Seconds that the frame played last had waited."""


@dataclass
class MessageStatistics:
    """Counters of a ``MessageStream``, in messages."""

    sent: int = 0
    """Messages given to ``send_nowait``."""
    received: int = 0
    """Messages received from the client."""
    dropped_out: int = 0
    """Messages given to ``send_nowait`` that never left: the outbox was full, the message was
    longer than the client accepts, or the connection ended."""
    dropped_in: int = 0
    """Messages pushed out of the full inbox before they were read."""
    waiting_out: int = 0
    """Messages in the outbox."""
    waiting_in: int = 0
    """Messages in the inbox."""
    bytes_sent: int = 0
    """Bytes of UTF-8 text given to ``send_nowait``."""
    bytes_received: int = 0
    """Bytes of UTF-8 text received."""


@dataclass
class DiscardStatistics:
    """Malformed items of a connection, which were discarded. The connection continued."""

    audio: int = 0
    """Audio packets that could not be decoded, and half samples before a gap or the end."""
    video: int = 0
    """Pictures that could not be decoded."""
    packets: int = 0
    """Authenticated packets that could not be processed."""
    datagrams: int = 0
    """Datagrams from the client's address that a library could not process, or that exceeded the
    queue."""
    candidates: int = 0
    """ICE candidates that were malformed or unusable."""
    events: int = 0
    """Events of a telephone's carrier with a malformed field."""
    messages_in: int = 0
    """Messages of the client that were not UTF-8, or longer than the limit."""
    messages_out: int = 0
    """Messages to the client that could not be sent, or only with characters replaced."""
