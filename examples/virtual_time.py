"""A handler with timeouts, and its test on virtual time: over a minute of a call in an instant.

Run this file, or copy it into your tests and run pytest.

Install: ``pip install fastrtc-anyio pytest``
"""

import anyio
import numpy as np
import pytest
import trio
from trio.testing import MockClock

from fastrtc_anyio import AsyncStreamHandler, CloseReason, CloseStream, Stream, testing

PATIENCE = 20.0  # seconds
BEEP = (24_000, testing.tone(880, 24_000, 0.5))


class Reminder(AsyncStreamHandler):
    """Beep after 20 s of silence, and hang up 20 s later."""

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
            await anyio.sleep_until(self.silent_since + PATIENCE)  # speech postpones it
        if self.reminded:
            return CloseStream("No answer.")
        self.silent_since, self.reminded = anyio.current_time(), True
        return BEEP

    def copy(self):
        return Reminder()


stream = Stream(Reminder, modality="audio", mode="send-receive")


async def test_silence_is_reminded_once_then_ends_the_call(open_call):
    """Tests with the fixture ``open_call`` of fastrtc_anyio's plugin run on virtual time."""
    async with open_call(Reminder()) as call:
        await call.speak(testing.speech_like(48_000, seconds=30))
        await call.ended.wait()
    assert call.session.closed.reason is CloseReason.HANDLER_CLOSED
    assert call.heard.shape[1] / 24_000 == pytest.approx(30 + 2 * PATIENCE, abs=0.5)
    beep = np.flatnonzero(call.heard[0]) / 24_000
    assert beep[0] == pytest.approx(30 + PATIENCE, abs=0.5)
    assert beep[-1] - beep[0] == pytest.approx(0.5, abs=0.01)


if __name__ == "__main__":
    clock = MockClock(autojump_threshold=0)
    trio.run(test_silence_is_reminded_once_then_ends_the_call, testing.open_call, clock=clock)
    print(f"passed, {clock.current_time():.0f} s later")
