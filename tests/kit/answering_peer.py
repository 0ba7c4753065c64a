"""A peer in memory that answers offers, in place of WebRTC's."""

from __future__ import annotations

import itertools
from typing import Any

import anyio
from anyio.lowlevel import checkpoint

from fastrtc_anyio._peers.memory import MemoryPeer
from fastrtc_anyio._signaling.requests import SessionDescription

_numbers = itertools.count()


class AnsweringPeer(MemoryPeer):
    """A peer that answers an offer after a second, or as the test says."""

    delay = 1.0
    error: Exception | None = None

    def __init__(self, _portal: Any, **options: Any) -> None:
        super().__init__(media=options["media"])

    async def answer(self, _offer: SessionDescription) -> SessionDescription:
        await anyio.sleep(self.delay)
        if self.error is not None:
            raise self.error
        return SessionDescription("answer", f"answer {next(_numbers)}")

    async def restart(self, _offer: SessionDescription) -> None:
        await checkpoint()
