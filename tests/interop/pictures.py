"""Moving pictures that tests can read back.

A picture has a colour in each quarter, and across its middle a number: a row of black and white
blocks, the highest bit at the left. Pictures are numbered from 0 to 63 and begin again.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import av
import numpy as np
from numpy.typing import NDArray

__all__ = [
    "COUNT",
    "FPS",
    "HEIGHT",
    "QUARTERS",
    "WIDTH",
    "Look",
    "from_i420",
    "make_picture",
    "to_i420",
    "write_camera",
]

WIDTH, HEIGHT = 320, 240
FPS = 30
COUNT = 64
BITS = 8
"""Blocks of the number. The highest two are always 0 and 1, to calibrate black and white."""
QUARTERS: Final = ((220, 40, 40), (40, 180, 60), (40, 60, 220), (230, 200, 40))
"""Red, green, blue of the quarters: top left, top right, bottom left, bottom right."""
TOLERANCE = 45
"""Tolerated shift of a quarter's mean colour after two codecs and three conversions, of 255."""


def make_picture(number: int, width: int = WIDTH, height: int = HEIGHT) -> NDArray[np.uint8]:
    """Draw picture ``number``: uint8, shape ``(height, width, 3)``, bgr24."""
    picture = np.empty((height, width, 3), np.uint8)
    for i, colour in enumerate(QUARTERS):
        rows = slice(0, height // 2) if i < 2 else slice(height // 2, height)
        columns = slice(width // 2, width) if i % 2 else slice(0, width // 2)
        picture[rows, columns] = colour[::-1]
    block, top = width // BITS, height // 2 - height // 12
    for bit in range(BITS):
        level = 255 if (0x40 | number % COUNT) >> (BITS - 1 - bit) & 1 else 0
        picture[top : top + height // 6, bit * block : (bit + 1) * block] = level
    return picture


def write_camera(path: Path) -> None:
    """Write all pictures in the format of Chromium's fake camera, YUV4MPEG2."""
    with path.open("wb") as file:
        file.write(f"YUV4MPEG2 W{WIDTH} H{HEIGHT} F{FPS}:1 Ip A1:1 C420jpeg\n".encode())
        for number in range(COUNT):
            file.write(b"FRAME\n" + to_i420(make_picture(number)))


def to_i420(picture: NDArray[np.uint8]) -> bytes:
    """Convert bgr24 to three planes."""
    frame = av.VideoFrame.from_ndarray(picture, format="bgr24")
    return frame.reformat(format="yuv420p").to_ndarray().tobytes()


def from_i420(data: bytes, width: int, height: int) -> NDArray[np.uint8]:
    """Convert three planes to bgr24."""
    planes = np.frombuffer(data, np.uint8).reshape(height * 3 // 2, width)
    frame = av.VideoFrame.from_ndarray(planes, format="yuv420p")
    return np.asarray(frame.to_ndarray(format="bgr24"), np.uint8)


@dataclass(frozen=True)
class Look:
    """The number and the colours of a received picture."""

    quarters: tuple[tuple[float, ...], ...]
    """Mean red, green, blue in the centre of each quarter, in the order of ``QUARTERS``."""
    blocks: tuple[float, ...]
    """Mean level of each block, from left to right."""

    @classmethod
    def of(cls, picture: NDArray[np.uint8]) -> Look:
        """Read a bgr24 picture of any size."""
        height, width = picture.shape[:2]

        def mean(x: float, y: float) -> tuple[float, ...]:
            row, column = round(y * height), round(x * width)
            dy, dx = height // 24, width // 32
            patch = picture[row - dy : row + dy, column - dx : column + dx, ::-1]
            return tuple(float(level) for level in patch.mean(axis=(0, 1)))

        return cls(
            tuple(mean(x, y) for y in (0.2, 0.8) for x in (0.25, 0.75)),
            tuple(sum(mean((bit + 0.5) / BITS, 0.5)) / 3 for bit in range(BITS)),
        )

    @property
    def number(self) -> int:
        """The picture's number, or -1 if it is not readable."""
        dark, bright = self.blocks[:2]
        if bright - dark < 128:
            return -1
        middle = (dark + bright) / 2
        return sum((level > middle) << i for i, level in enumerate(reversed(self.blocks[2:])))

    def mirrored(self) -> Look:
        """The look of the mirrored picture."""
        a, b, c, d = self.quarters
        return Look((b, a, d, c), self.blocks[::-1])

    def inverted(self) -> Look:
        """The look of the picture with inverted colours."""

        def invert(levels: tuple[float, ...]) -> tuple[float, ...]:
            return tuple(255 - level for level in levels)

        return Look(tuple(invert(quarter) for quarter in self.quarters), invert(self.blocks))

    def resembles(self, quarters: Any = QUARTERS) -> bool:
        """Whether the quarters have these colours, within the tolerance."""
        return bool(np.abs(np.subtract(self.quarters, quarters)).max() <= TOLERANCE)
