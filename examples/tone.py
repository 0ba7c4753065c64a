"""A generator function for clients that only listen: plays a scale, then hangs up.

Run it and open the page it names.
"""

import numpy as np

from fastrtc_anyio import Stream

SAMPLE_RATE = 24_000
C_MAJOR = (262, 294, 330, 349, 392, 440, 494, 523)  # Hz


def scale():
    """Yields half a second of sound for each note, ahead of what is played."""
    seconds = np.arange(SAMPLE_RATE // 2) / SAMPLE_RATE
    loudness = 0.3 * np.hanning(seconds.size)  # from silence to silence: no clicks
    for frequency in C_MAJOR:
        note = loudness * np.sin(2 * np.pi * frequency * seconds)
        yield SAMPLE_RATE, note.astype(np.float32)


stream = Stream(scale, modality="audio", mode="receive")

if __name__ == "__main__":
    stream.launch()
