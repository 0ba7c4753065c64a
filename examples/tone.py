"""A generator function for listeners: play a scale, then hang up.

Run it and open the page at the printed address.

Install: ``pip install 'fastrtc-anyio[server]'``
"""

import numpy as np

from fastrtc_anyio import Stream

SAMPLE_RATE = 24_000
C_MAJOR = (262, 294, 330, 349, 392, 440, 494, 523)  # Hz


def scale():
    """Yield half a second of audio for each note, ahead of playback."""
    seconds = np.arange(SAMPLE_RATE // 2) / SAMPLE_RATE
    loudness = 0.3 * np.hanning(seconds.size)  # fade in and out: no clicks
    for frequency in C_MAJOR:
        note = loudness * np.sin(2 * np.pi * frequency * seconds)
        yield SAMPLE_RATE, note.astype(np.float32)


stream = Stream(scale, modality="audio", mode="receive")

if __name__ == "__main__":
    stream.launch()
