"""Pictures that are small on the wire and large in memory."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fastrtc_anyio import RequestLimits
from tests.kit.calls import make_stream, only_session, place_call
from tests.kit.waiting import wait_until


@pytest.mark.parametrize("codec", ["VP8", "H264"])
async def test_large_picture_is_discarded_and_small_ones_go_on(codec: str) -> None:
    sizes: list[Any] = []

    def look(frame: Any) -> Any:
        sizes.append(frame.shape[:2])
        return frame

    limits = RequestLimits(picture_pixels=320 * 240)
    stream = make_stream(look, modality="video", request_limits=limits)
    async with stream, place_call(stream, audio=False, video="sendrecv", video_codec=codec) as call:
        session = only_session(stream)
        await wait_until(lambda: sizes)
        call.camera.picture = np.zeros((240, 336, 3), np.uint8)
        discarded = session.statistics
        await wait_until(lambda: discarded().discarded.video > 3)
        call.camera.picture = np.zeros((224, 320, 3), np.uint8)
        await wait_until(lambda: (224, 320) in sizes)
        assert (240, 336) not in sizes
        assert len(stream.sessions) == 1
