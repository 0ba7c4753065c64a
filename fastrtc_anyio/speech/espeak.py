"""Text to speech with espeak-ng, a small program that speaks a hundred languages offline.

espeak-ng is under the GPL, so each sentence runs it as a separate process, which takes about 10 ms.
The text goes to standard input, where it cannot be parsed as an option and does not appear in the
process list. The output is a WAV file with meaningless sizes, because the program writes the header
before it knows them.
"""

from __future__ import annotations

import re
import shutil
import struct
import subprocess
from contextlib import suppress
from dataclasses import dataclass

import anyio
import numpy as np
from anyio.abc import ByteReceiveStream, Process

from fastrtc_anyio._core.options import check_number, short_repr
from fastrtc_anyio._core.threads import hold_virtual_clock
from fastrtc_anyio._media.frames import Int16Array
from fastrtc_anyio.errors import UnsupportedFormat

from .sentences import speakable
from .tts import SentenceTTS, TTSOptions

__all__ = ["EspeakOptions", "EspeakTTSModel"]

VOICE = re.compile(r"[A-Za-z0-9][A-Za-z0-9+_-]*")
# Characters of a failed program's output that an error quotes.
LONGEST_COMPLAINT = 500


@dataclass(frozen=True)
class EspeakOptions(TTSOptions):
    """Options of espeak-ng.

    Attributes:
        voice: a language, and a variant after a ``+``: ``"en-us"``, ``"en-gb+f3"``, ``"de"``.
        speed: words per minute, 80 to 450.
        pitch: 0 to 99.

    Raises:
        TypeError: a number is not an int.
        ValueError: a number is out of range, or ``voice`` is not a voice name.
    """

    voice: str = "en-us"
    speed: int = 175
    pitch: int = 50

    def __post_init__(self) -> None:
        voice: object = self.voice
        if not isinstance(voice, str) or not VOICE.fullmatch(voice):
            raise ValueError(f'voice must be a name such as "en-us+f3"; got {short_repr(voice)}')
        check_number("speed", self.speed, at_least=80, at_most=450, integer=True)
        check_number("pitch", self.pitch, at_least=0, at_most=99, integer=True)


class EspeakTTSModel(SentenceTTS[EspeakOptions]):
    """Speak with espeak-ng: 22050 Hz, int16.

    Args:
        program: name or path of the program.

    Raises:
        FileNotFoundError: the program was not found.
    """

    def __init__(self, program: str = "espeak-ng") -> None:
        found = shutil.which(program)
        if found is None:
            raise FileNotFoundError(
                f"the program {program} was not found; install it with `apt install espeak-ng`, or "
                "pass its path as program="
            )
        self._program = found

    def speak(self, sentence: str, options: EspeakOptions | None) -> tuple[int, Int16Array]:
        """Synthesise one sentence.

        Raises:
            RuntimeError: the program failed; quotes its error output.
            UnsupportedFormat: the program did not write a WAV file.
        """
        finished = subprocess.run(
            self._command(options),
            input=speakable(sentence).encode(),
            capture_output=True,
            check=False,
        )
        return self._speech(finished.returncode, finished.stdout, finished.stderr)

    async def speak_async(
        self, sentence: str, options: EspeakOptions | None
    ) -> tuple[int, Int16Array]:
        """Synthesise one sentence; raises the same errors as `speak`.

        Cancellation:
            Kills the program.
        """
        output, complaint = bytearray(), bytearray()
        with hold_virtual_clock.get()(self._program):  # As for a thread.
            async with await anyio.open_process(self._command(options)) as process:
                try:
                    await _converse(process, speakable(sentence).encode(), output, complaint)
                    status = await process.wait()
                except BaseException:
                    with suppress(ProcessLookupError):
                        process.kill()
                    raise
        return self._speech(status, bytes(output), bytes(complaint))

    def _command(self, options: EspeakOptions | None) -> list[str]:
        options = options or EspeakOptions()
        numbers = ["-s", str(options.speed), "-p", str(options.pitch)]
        return [self._program, "--stdout", "-v", options.voice, *numbers]

    def _speech(self, status: int, output: bytes, complaint: bytes) -> tuple[int, Int16Array]:
        if status:
            said = complaint.decode(errors="replace").strip()[:LONGEST_COMPLAINT]
            raise RuntimeError(
                f"{self._program} failed with status {status}: {said or '(no output)'}"
            )
        if not output:  # The sentence is punctuation alone.
            return 22050, np.zeros((1, 0), np.int16)
        try:
            return _read_wav(output)
        except UnsupportedFormat as exc:
            exc.add_note(f"written by {self._program}")
            raise


async def _converse(process: Process, text: bytes, output: bytearray, complaint: bytearray) -> None:
    """Write and read concurrently: a pipe's buffer is smaller than the speech of a sentence."""
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None

    async def collect(stream: ByteReceiveStream, into: bytearray) -> None:
        async for data in stream:
            into += data

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(collect, process.stdout, output)
        tasks.start_soon(collect, process.stderr, complaint)
        # A program that fails stops reading. Its exit status explains more than the broken pipe.
        with suppress(anyio.BrokenResourceError, anyio.ClosedResourceError):
            await process.stdin.send(text)
        await process.stdin.aclose()


def _read_wav(data: bytes) -> tuple[int, Int16Array]:
    """Read a WAV file of 16-bit mono PCM, ignoring sizes beyond its end.

    Raises:
        UnsupportedFormat: for another format.
    """
    wanted = "expected a WAV file of 16-bit mono PCM"
    if data[:4] != b"RIFF" or data[8:12] != b"WAVE":
        raise UnsupportedFormat(f"{wanted}, got {len(data)} bytes that begin with {data[:12]!r}")
    rate, position = 0, 12
    while position + 8 <= len(data):
        name = data[position : position + 4]
        size = int.from_bytes(data[position + 4 : position + 8], "little")
        body = data[position + 8 : position + 8 + size]
        if name == b"fmt " and len(body) >= 16:
            form, channels, rate, _, _, bits = struct.unpack("<HHIIHH", body[:16])
            if (form, channels, bits) != (1, 1, 16) or not rate:
                raise UnsupportedFormat(
                    f"{wanted}, got format {form}, {channels} channels, {bits} bits, {rate} Hz"
                )
        if name == b"data" and rate:
            samples = np.frombuffer(body, "<i2", len(body) // 2)
            return rate, samples.astype(np.int16).reshape(1, -1)
        position += 8 + size + size % 2
    raise UnsupportedFormat(f"{wanted}, got one without samples")
