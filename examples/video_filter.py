"""A function as a video handler: show the edges of the camera picture.

Run it, open the page at the printed address, and look into the camera.

Install: ``pip install 'fastrtc-anyio[server]'``
"""

import numpy as np

from fastrtc_anyio import Stream


def edges(frame):
    """Take a picture, uint8 of shape (height, width, 3) in the order blue, green, red; return gray.

    A synchronous function runs on a thread of its call. If it is slower than the camera, it
    receives fewer pictures, never old ones.
    """
    green = frame[..., 1].astype(np.int16)  # green has most of the luminance
    across = np.abs(np.diff(green, axis=1, append=green[:, -1:]))
    down = np.abs(np.diff(green, axis=0, append=green[-1:]))
    return np.minimum(across + down, 255).astype(np.uint8)


stream = Stream(edges, modality="video", mode="send-receive")

if __name__ == "__main__":
    stream.launch()
