"""libopus by ctypes: finding and checking it, and its answers to any bytes."""

from __future__ import annotations

import _ctypes
import ctypes
import logging
import subprocess
import sys
from collections.abc import Generator
from typing import Any

import numpy as np
import pytest
from av import AudioCodecContext, CodecContext
from hypothesis import given
from hypothesis import strategies as st

from fastrtc_anyio._media import opus
from fastrtc_anyio._media.av_frames import to_av
from fastrtc_anyio._media.frames import AudioFrame, Int16Array
from fastrtc_anyio._media.opus import (
    LibOpus,
    NativeOpusDecoder,
    NativeOpusEncoder,
    OpusError,
    check_library,
)
from tests.kit.loss import read_speech

LIBRARY = opus.load_libopus()
assert LIBRARY is not None, "PyAV's wheels contain libopus"


@pytest.fixture
def found(monkeypatch: pytest.MonkeyPatch) -> Generator[list[str], None, None]:
    """Paths to search in place of those on this machine."""
    paths: list[str] = []
    monkeypatch.setattr(opus, "_find_libraries", lambda: iter(paths))
    opus.load_libopus.cache_clear()
    yield paths
    opus.load_libopus.cache_clear()


def test_wheel_of_pyav_contains_libopus() -> None:
    assert any("av" in path for path in opus._find_libraries())


def test_unusable_libraries_are_passed_over(
    found: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    assert LIBRARY is not None
    found += ["/nowhere/libopus.so", _ctypes.__file__, LIBRARY._library._name]
    with caplog.at_level(logging.WARNING, "fastrtc_anyio"):
        library = opus.load_libopus()
    assert library is not None
    assert library.version == LIBRARY.version
    assert not caplog.records


def test_missing_library_is_logged_once(found: list[str], caplog: pytest.LogCaptureFixture) -> None:
    found.append("/nowhere/libopus.so")
    with caplog.at_level(logging.INFO, "fastrtc_anyio"):
        assert opus.load_libopus() is None
        assert opus.load_libopus() is None
    levels = [record.levelno for record in caplog.records]
    assert levels == [logging.INFO, logging.WARNING]
    assert "/nowhere/libopus.so" in caplog.text
    assert "without FEC" in caplog.text


def test_module_loads_nothing_on_import() -> None:
    code = (
        "import ctypes, sys\n"
        "ctypes.PyDLL = ctypes.CDLL = None\n"
        "import fastrtc_anyio._media.decode, fastrtc_anyio._media.opus\n"
        "assert 'av' not in sys.modules and 'ctypes.util' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


class Fake:
    """A library with every function."""

    def __init__(self, version: bytes, missing: str = "") -> None:
        self.version, self.missing = version, missing

    def __getattr__(self, name: str) -> Any:
        if name == self.missing:
            raise AttributeError(name)

        def function(*_: Any) -> Any:
            return self.version

        return function


@pytest.mark.parametrize(
    ("library", "message"),
    [
        (Fake(b"libopus 1.0.3"), "must be libopus 1.1 or later; got 'libopus 1.0.3'"),
        (Fake(b"libsomething 9.1"), "must be libopus 1.1 or later"),
        (Fake(b"libopus 1.6", missing="opus_decode"), "has no opus_decode"),
    ],
)
def test_old_or_other_library_is_refused(
    monkeypatch: pytest.MonkeyPatch, library: Fake, message: str
) -> None:
    monkeypatch.setattr(ctypes, "PyDLL", lambda path: library)
    with pytest.raises(ValueError, match=message):
        LibOpus("libopus.so")


@pytest.mark.parametrize("version", [b"libopus 1.1", b"libopus 1.6.1", b"libopus 2.0-fixed"])
def test_newer_versions_are_accepted(monkeypatch: pytest.MonkeyPatch, version: bytes) -> None:
    monkeypatch.setattr(ctypes, "PyDLL", lambda path: Fake(version))
    assert LibOpus("libopus.so").version == version.decode()


@pytest.mark.parametrize("broken", ["silent", "loud", "empty"])
def test_self_test_rejects_a_library_that_decodes_something_else(broken: str) -> None:
    class Broken(LibOpus):
        def __init__(self) -> None:
            assert LIBRARY is not None
            self._library, self.version = LIBRARY._library, LIBRARY.version

        def decode(self, decoder: Any, payload: Any, pcm: int, samples: int, *, fec: bool) -> int:
            count = super().decode(decoder, payload, pcm, samples, fec=fec)
            noise = np.random.default_rng(0).integers(-9000, 9000, count).astype(np.int16)
            value = noise if broken == "loud" else np.zeros_like(noise)
            ctypes.memmove(pcm, value.ctypes.data, value.nbytes)
            return 0 if broken == "empty" else count

    with pytest.raises(ValueError, match="something else"):
        check_library(Broken())


@pytest.mark.parametrize("broken", ["silent", "refused"])
def test_self_test_rejects_a_library_that_encodes_something_else(broken: str) -> None:
    class Broken(LibOpus):
        def __init__(self) -> None:
            assert LIBRARY is not None
            self._library, self.version = LIBRARY._library, LIBRARY.version

        def encode(self, encoder: Any, pcm: int, samples: int, packet: int, size: int) -> int:
            if broken == "silent":
                ctypes.memset(pcm, 0, samples * 2)
                return super().encode(encoder, pcm, samples, packet, size)
            return super().encode(encoder, pcm, samples - 1, packet, size)

    message = "encodes a tone of 440 Hz to something else" if broken == "silent" else "error -1"
    with pytest.raises(ValueError, match=message):
        check_library(Broken())


def test_unknown_setting_is_refused() -> None:
    assert LIBRARY is not None
    encoder = NativeOpusEncoder(LIBRARY, 48_000, 1, "audio", {"complexity": 11})
    with pytest.raises(OpusError, match="cannot set complexity to 11"):
        encoder.encode(np.zeros((1, 960), np.int16))
    encoder = NativeOpusEncoder(LIBRARY, 44_100, 1, "audio", {})
    with pytest.raises(OpusError, match="cannot encode 1 channels at 44100 Hz"):
        encoder.encode(np.zeros((1, 882), np.int16))


def encode(speech: Int16Array, channels: int, milliseconds: int, bitrate: int) -> list[bytes]:
    """Encode with packets of any duration, with redundancy."""
    context = CodecContext.create("libopus", "w")
    assert isinstance(context, AudioCodecContext)
    context.sample_rate, context.format, context.bit_rate = 16_000, "s16", bitrate
    context.layout = "mono" if channels == 1 else "stereo"
    context.options = {
        "application": "voip", "frame_duration": str(milliseconds), "fec": "1", "packet_loss": "20"
    }  # fmt: skip
    context.open()
    both = np.stack([speech[0], np.roll(speech[0], 40)])[:channels]
    size = 16 * milliseconds
    payloads: list[bytes] = []
    for start in range(0, 16_000, size):
        frame = to_av(AudioFrame(16_000, both[:, start : start + size]))
        frame.pts = start
        payloads += [bytes(packet) for packet in context.encode(frame)]
    return payloads


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("milliseconds", [10, 20, 40, 60])
def test_redundancy_is_what_libopus_says(channels: int, milliseconds: int) -> None:
    """``opus_packet_has_lbrr`` has existed since 1.5; the wheel's library has it."""
    assert LIBRARY is not None
    has_lbrr = LIBRARY._library.opus_packet_has_lbrr
    has_lbrr.argtypes = (ctypes.c_char_p, ctypes.c_int32)
    found = 0
    for bitrate in (16_000, 32_000, 64_000):
        for payload in encode(read_speech()[:, 8_000:], channels, milliseconds, bitrate):
            redundant = LIBRARY.redundancy(payload, 48_000)
            assert (redundant > 0) == has_lbrr(payload, len(payload))
            assert redundant in (0, 48 * milliseconds)
            found += redundant > 0
    assert found


@given(st.binary(max_size=60), st.sampled_from([8_000, 24_000, 48_000]), st.sampled_from([1, 2]))
def test_any_bytes_decode_or_raise_the_documented_error(
    payload: bytes, rate: int, channels: int
) -> None:
    assert LIBRARY is not None
    decoder = NativeOpusDecoder(LIBRARY, rate, channels)
    redundant = decoder.redundancy(payload)
    assert 0 <= redundant <= rate * 0.06
    for decode in (decoder.decode, lambda p: decoder.recover(p, rate // 50)):
        try:
            samples = decode(payload)
        except OpusError:
            continue
        assert samples.shape[0] == channels
        assert samples.shape[1] <= rate * 0.12
        assert samples.flags.c_contiguous
    assert decoder.conceal(rate // 50).shape == (channels, rate // 50)


@given(st.integers(1, 5760))
def test_any_number_of_samples_can_be_concealed(count: int) -> None:
    assert LIBRARY is not None
    assert NativeOpusDecoder(LIBRARY, 48_000, 2).conceal(count).shape == (2, count)


def test_unknown_rate_is_refused() -> None:
    assert LIBRARY is not None
    with pytest.raises(OpusError, match="2 channels at 44100 Hz"):
        NativeOpusDecoder(LIBRARY, 44_100, 2)
