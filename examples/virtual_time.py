"""A handler that is all about time, with its test: more than a minute of a call, in no time.

Run this file, or ``pytest virtual_time.py``.
"""

import anyio
import numpy as np
import pytest
from trio.testing import MockClock

from fastrtc_anyio import AsyncStreamHandler, CloseReason, CloseStream, Stream
from fastrtc_anyio.testing import open_call, speech_like, tone

PATIENCE = 20.0  # seconds
BEEP = (24_000, tone(880, 24_000, 0.5))


class Reminder(AsyncStreamHandler):
    """Beeps when the client has said nothing for 20 s, and hangs up 20 s later."""

    def __init__(self) -> None:
        super().__init__()
        self.silent_since = anyio.current_time()
        self.reminded = False

    async def receive(self, frame):
        _, samples = frame
        if samples.max() > 1000:
            self.silent_since, self.reminded = anyio.current_time(), False

    async def emit(self):
        while anyio.current_time() < self.silent_since + PATIENCE:
            await anyio.sleep_until(self.silent_since + PATIENCE)
        if self.reminded:
            return CloseStream("Nobody is there.")
        self.silent_since, self.reminded = anyio.current_time(), True
        return BEEP

    def copy(self):
        return Reminder()


stream = Stream(Reminder, modality="audio", mode="send-receive")


@pytest.fixture
def anyio_backend():
    return "trio", {"clock": MockClock()}


@pytest.mark.anyio
async def test_who_falls_silent_is_reminded_once() -> None:
    began = anyio.current_time()
    async with open_call(Reminder()) as call:
        await call.speak(speech_like(48_000, seconds=30))
        await call.ended.wait()
    assert anyio.current_time() - began == pytest.approx(30 + 2 * PATIENCE, abs=0.5)
    assert call.session.closed is not None
    assert call.session.closed.reason is CloseReason.HANDLER_CLOSED
    beeps = np.flatnonzero(call.heard[0]) / 24_000
    assert beeps.min() == pytest.approx(30 + PATIENCE, abs=0.5)
    assert beeps.max() - beeps.min() == pytest.approx(0.5, abs=0.01)


if __name__ == "__main__":
    anyio.run(
        test_who_falls_silent_is_reminded_once,
        backend="trio",
        backend_options={"clock": MockClock()},
    )
    print("passed")
