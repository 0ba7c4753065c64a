"""An in-memory call under trio never imports asyncio."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

SCRIPT = """
    import sys
    import anyio, numpy as np, trio.testing
    from fastrtc_anyio import AsyncStreamHandler, AudioFrame, StreamHandler
    from fastrtc_anyio.testing import open_call

    class Async(AsyncStreamHandler):
        def __init__(self):
            super().__init__()
            self.frames = []
        async def receive(self, frame): self.frames.append(frame)
        async def emit(self): return self.frames.pop() if self.frames else None
        def copy(self): return Async()

    class Plain(StreamHandler):
        def __init__(self):
            super().__init__()
            self.frames = []
        def receive(self, frame): self.frames.append(frame)
        def emit(self): return self.frames.pop() if self.frames else None
        def copy(self): return Plain()

    async def main():
        for handler in (Async(), Plain()):
            async with open_call(handler) as call:
                for _ in range(50):
                    call.client.send_audio(AudioFrame(48_000, np.full((2, 960), 900, np.int16)))
                    await anyio.sleep(0.02)
            assert any(frame.any() for frame in call.client.heard)
            handler.set_args([1])

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
    print(sorted({"asyncio", "aiortc", "av"} & set(sys.modules)))
"""


def test_in_memory_call_under_trio_never_imports_asyncio() -> None:
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(SCRIPT)],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"
