"""Pictures that tell when they were sent: each has its number, and a texture that moves."""

from __future__ import annotations

import asyncio
from fractions import Fraction
from functools import cache
from typing import Any

import numpy as np
from aiortc import MediaStreamTrack
from av import VideoFrame as AvVideoFrame

FPS = 20
WIDTH, HEIGHT = 320, 240
_BITS = 10
"""A number is unique for 51 s."""
_SIDE = WIDTH // _BITS
_MOVES = 4
"""Pixels by which the texture moves in each picture."""
_DIFFERENT = 20.0
"""Mean difference of the levels of a picture that is not what was sent. Codecs cause 3 to 8."""


@cache
def _texture() -> Any:
    """Return levels that take a codec about 500 kbit/s."""
    noise = np.random.default_rng(0).normal(size=(HEIGHT // 4, WIDTH // 4))
    return np.clip(128 + 50 * np.kron(noise, np.ones((4, 4))), 16, 235).astype(np.uint8)


def draw(number: int) -> Any:
    """Return the levels of a picture, shape ``(HEIGHT, WIDTH)``."""
    picture = np.roll(_texture(), _MOVES * number, axis=1)
    bits = [235 if number >> bit & 1 else 16 for bit in range(_BITS)]
    picture[:_SIDE] = np.repeat(np.array(bits, np.uint8), _SIDE)
    return picture


def read_number(picture: Any, newest: int) -> int | None:
    """Return the number of a picture, of which ``newest`` was sent last; None if it is broken."""
    margin = _SIDE // 4
    squares = picture[margin : _SIDE - margin].reshape(-1, _BITS, _SIDE)[..., margin:-margin]
    levels = squares.mean(axis=(0, 2))
    read = int((levels > 128) @ (1 << np.arange(_BITS)))
    number = newest - (newest - read) % (1 << _BITS)
    different = np.abs(picture.astype(np.int16) - draw(number)).mean()
    return number if different < _DIFFERENT else None


class NumberedCamera(MediaStreamTrack):
    """Sends the pictures, and notes when."""

    kind = "video"

    def __init__(self) -> None:
        super().__init__()
        self._begin: float | None = None
        self.sent: list[float] = []
        """Times of the loop."""

    async def recv(self) -> AvVideoFrame:
        loop = asyncio.get_running_loop()
        self._begin = loop.time() if self._begin is None else self._begin
        number = len(self.sent)
        await asyncio.sleep(max(self._begin + number / FPS - loop.time(), 0))
        levels = np.full((HEIGHT * 3 // 2, WIDTH), 128, np.uint8)
        levels[:HEIGHT] = draw(number)
        frame = AvVideoFrame.from_ndarray(levels, format="yuv420p")
        frame.pts, frame.time_base = number * 90_000 // FPS, Fraction(1, 90_000)
        self.sent.append(loop.time())
        return frame


class Watcher:
    """Reads pictures that arrive."""

    def __init__(self, camera: NumberedCamera) -> None:
        self._sent = camera.sent
        self._number = -1
        self.whole: list[tuple[float, float]] = []
        """Times of arrival and delays in seconds, of each new whole picture."""
        self.broken: list[float] = []
        """Times of arrival of broken pictures."""

    def see(self, picture: Any, now: float) -> None:
        """Read a picture that arrives now, shape ``(HEIGHT, WIDTH)``."""
        number = read_number(picture, len(self._sent) - 1)
        if number is None or number < 0:
            self.broken.append(now)
        elif number > self._number:
            self._number = number
            self.whole.append((now, now - self._sent[number]))
