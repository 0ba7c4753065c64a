"""Recordings of a synthetic voice, short enough to be part of the package.

Made with ``espeak-ng -v en-us -s 150 --stdout TEXT``, converted to 16 kHz.
"""

from __future__ import annotations

import wave
from pathlib import Path

import numpy as np

from fastrtc_anyio._core.options import check_type
from fastrtc_anyio._media.frames import Int16Array

__all__ = ["RECORDINGS", "spoken"]

RECORDINGS = {
    "Hello, how are you today?": "hello.wav",
    "What time is it?": "time.wav",
    "Tell me a joke.": "joke.wav",
    "Yes, please.": "yes.wav",
    "Stop.": "stop.wav",
}
"""File of each recorded text."""


def spoken(text: str | None = None) -> tuple[int, Int16Array]:
    """Return recorded speech, which speech detection such as Silero's accepts.

    Tones and noise are not speech to such a model, so a test of
    :class:`~fastrtc_anyio.ReplyOnPause` needs a voice:
    ``await call.speak(spoken("What time is it?"))``.

    Args:
        text: a recorded text; case and punctuation do not matter. The first one by default. The
            texts are "Hello, how are you today?", "What time is it?", "Tell me a joke.",
            "Yes, please." and "Stop.".

    Returns:
        The sample rate, 16000 Hz, and int16 samples of shape ``(1, n)``. Each call returns a new
        array.

    Raises:
        TypeError: ``text`` is not a str.
        ValueError: the text is not recorded; lists the recorded ones.
    """
    check_type("text", text, str, optional=True)
    words = _words_of(next(iter(RECORDINGS)) if text is None else text)
    for known, name in RECORDINGS.items():
        if _words_of(known) == words:
            with wave.open(str(Path(__file__).with_name(name))) as file:
                data = file.readframes(file.getnframes())
                return file.getframerate(), np.frombuffer(data, "<i2").astype(np.int16)[np.newaxis]
    texts = ", ".join(map(repr, RECORDINGS))
    raise ValueError(f"text must be one of {texts}; got {text!r}")


def _words_of(text: str) -> list[str]:
    return "".join(c if c.isalnum() else " " for c in text.casefold()).split()
