"""Prepared media: what clients send, without an encoder in the measurement."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Media:
    """Frames that repeat for ever.

    Attributes:
        frames: the RTP payloads of each frame.
        interval: seconds between two frames.
        increment: RTP timestamps between two frames.
        video: whether the last packet of a frame has the marker bit.
    """

    frames: list[list[bytes]]
    interval: float
    increment: int
    video: bool = False
