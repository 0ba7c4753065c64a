"""A function from picture to picture is a handler of video. This one draws the edges.

Run it, open the page it names, and look into the camera.
"""

import numpy as np

from fastrtc_anyio import Stream


def edges(frame):
    """Takes uint8 of shape (height, width, 3), in the order blue, green, red; returns gray.

    A plain function runs on a thread of the call's own. If it is slower than the camera, it is
    given fewer pictures, never old ones.
    """
    green = frame[..., 1].astype(np.int16)  # most of the light
    across = np.abs(np.diff(green, axis=1, append=green[:, -1:]))
    down = np.abs(np.diff(green, axis=0, append=green[-1:]))
    return np.minimum(across + down, 255).astype(np.uint8)


stream = Stream(edges, modality="video", mode="send-receive")

if __name__ == "__main__":
    stream.launch()
