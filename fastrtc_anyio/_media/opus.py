"""libopus by ctypes: encoding, and decoding with concealment and forward error correction (FEC).

PyAV decodes Opus, but can neither conceal a lost packet nor read the copy of it in the next one.
It encodes to the same bytes, in 30 us more for each packet. Its wheels contain libopus, whose
interface has been stable since version 1.0. This library, or the system's, is used after it has
decoded a known tone and encoded another one. Otherwise `load_libopus` returns None, and
:mod:`.decode` and :mod:`.encode` use PyAV.

The functions are called with the GIL held (``PyDLL``). A packet is decoded in 10 to 30 us and
encoded in 40 to 200 us, but a thread that releases the GIL gets it back only after 5 ms if a
handler computes.
"""

from __future__ import annotations

import ctypes
import re
from base64 import b64decode
from collections.abc import Iterator, Mapping
from ctypes import (
    POINTER,
    Array,
    addressof,
    c_char,
    c_char_p,
    c_int,
    c_int16,
    c_int32,
    c_void_p,
    string_at,
)
from functools import cache, partial
from pathlib import Path

import numpy as np

from fastrtc_anyio._core.log import logger

from .frames import FRAMES_PER_SECOND, Int16Array

# RFC 6716 3.2.5: a packet lasts at most 120 ms.
_MAX_SECONDS = 0.12
_MAX_FRAMES = 48
_OLDEST = (1, 1)
# RFC 6716 3.1: configurations from 16 on are CELT, which has no redundancy.
_FIRST_CELT = 16

# RFC 6716 3.2.1: a frame has at most 1275 bytes, behind one byte of configuration.
_MAX_PACKET = 1276

# Constants of opus_defines.h.
_APPLICATIONS = {"voip": 2048, "audio": 2049, "lowdelay": 2051}
_CONTROLS = {
    "bitrate": 4002,
    "vbr": 4006,
    "complexity": 4010,
    "inband_fec": 4012,
    "packet_loss_percent": 4014,
    "dtx": 4016,
    "vbr_constraint": 4020,
}

_Signature = tuple[type[object] | None, tuple[type[object], ...]]
_SIGNATURES: dict[str, _Signature] = {
    "opus_get_version_string": (c_char_p, ()),
    "opus_decoder_get_size": (c_int, (c_int,)),
    "opus_decoder_init": (c_int, (c_void_p, c_int32, c_int)),
    "opus_decode": (c_int, (c_void_p, c_char_p, c_int32, c_void_p, c_int, c_int)),
    "opus_encoder_get_size": (c_int, (c_int,)),
    "opus_encoder_init": (c_int, (c_void_p, c_int32, c_int, c_int)),
    "opus_encode": (c_int32, (c_void_p, c_void_p, c_int, c_void_p, c_int32)),
    # Variadic: only the fixed arguments, because Apple's arm64 passes the others elsewhere.
    "opus_encoder_ctl": (c_int, (c_void_p, c_int)),
    "opus_packet_get_samples_per_frame": (c_int, (c_char_p, c_int32)),
    "opus_packet_get_nb_channels": (c_int, (c_char_p,)),
    "opus_packet_parse": (
        c_int,
        (c_char_p, c_int32, c_void_p, c_void_p, POINTER(c_int16), POINTER(c_int)),
    ),
}


_Sizes = c_int16 * _MAX_FRAMES


@cache
def _buffer_type(size: int) -> type[Array[c_char]]:
    """Return the type of a buffer. ctypes makes another one each time, with reference cycles."""
    return c_char * size


class OpusError(ValueError):
    """libopus rejected a packet, samples or an argument."""


class LibOpus:
    """A loaded libopus.

    Raises:
        OSError: no library exists at ``path``.
        ValueError: the library is too old or lacks a function.

    Attributes:
        version: its version string.
    """

    def __init__(self, path: str) -> None:
        self._library = ctypes.PyDLL(path)
        for name, (result, arguments) in _SIGNATURES.items():
            function = getattr(self._library, name, None)
            if function is None:
                raise ValueError(f"{path} has no {name}")
            function.restype, function.argtypes = result, arguments
        self.version: str = self._library.opus_get_version_string().decode("ascii", "replace")
        found = re.match(r"libopus (\d+)\.(\d+)", self.version)
        if found is None or (int(found[1]), int(found[2])) < _OLDEST:
            raise ValueError(f"{path} must be libopus 1.1 or later; got {self.version!r}")

    def create_decoder(self, sample_rate: int, channels: int) -> Array[c_char]:
        """Return the state of a new decoder. It is freed as any object of Python."""
        state = _buffer_type(self._library.opus_decoder_get_size(channels))()
        if self._library.opus_decoder_init(state, sample_rate, channels) != 0:
            raise OpusError(f"libopus cannot decode to {channels} channels at {sample_rate} Hz")
        return state

    def decode(
        self, decoder: Array[c_char], payload: bytes | None, pcm: int, samples: int, *, fec: bool
    ) -> int:
        """Decode to the address ``pcm``; return the number of samples per channel.

        Args:
            payload: a packet; None to conceal a lost one.
            samples: the room at ``pcm``, per channel; without a payload or with ``fec``, the
                duration to produce.
            fec: decode the copy of the audio before the packet in place of the packet.
        """
        length = 0 if payload is None else len(payload)
        count = int(self._library.opus_decode(decoder, payload, length, pcm, samples, fec))
        if count < 0:
            raise OpusError(f"libopus cannot decode the packet: error {count}")
        return count

    def create_encoder(
        self, sample_rate: int, channels: int, application: str, controls: Mapping[str, int]
    ) -> Array[c_char]:
        """Return the state of a new encoder. It is freed as any object of Python."""
        state = _buffer_type(self._library.opus_encoder_get_size(channels))()
        mode = _APPLICATIONS[application]
        if self._library.opus_encoder_init(state, sample_rate, channels, mode) != 0:
            raise OpusError(f"libopus cannot encode {channels} channels at {sample_rate} Hz")
        for name, value in controls.items():
            if self._library.opus_encoder_ctl(state, _CONTROLS[name], c_int32(value)) != 0:
                raise OpusError(f"libopus cannot set {name} to {value}")
        return state

    def encode(self, encoder: Array[c_char], pcm: int, samples: int, packet: int, size: int) -> int:
        """Encode from the address ``pcm`` to the address ``packet``; return the packet's length.

        Args:
            samples: the duration, in samples per channel.
            size: the room at ``packet``, in bytes.
        """
        length = int(self._library.opus_encode(encoder, pcm, samples, packet, size))
        if length < 0:
            raise OpusError(f"libopus cannot encode the samples: error {length}")
        return length

    def redundancy(self, payload: bytes, sample_rate: int) -> int:
        """Return the samples per channel before a packet of which it contains a copy, or 0.

        RFC 6716 4.2.3 and 4.2.4: a SILK frame begins, for each channel, with one voice activity
        flag per 20 ms, followed by the flag for redundancy (LBRR).
        """
        offset = c_int()
        sizes = _Sizes()
        count = self._library.opus_packet_parse(
            payload, len(payload), None, None, sizes, ctypes.byref(offset)
        )
        if count <= 0 or payload[0] >> 3 >= _FIRST_CELT or sizes[0] == 0:
            return 0
        flags = payload[offset.value]
        per_frame = int(self._library.opus_packet_get_samples_per_frame(payload, sample_rate))
        voiced = max(1, per_frame * 50 // sample_rate)
        present = flags >> (7 - voiced) & 1
        if self._library.opus_packet_get_nb_channels(payload) == 2:
            present |= flags >> (6 - 2 * voiced) & 1
        return per_frame if present else 0


class NativeOpusDecoder:
    """Decoder of libopus.

    Args:
        library: the library.
        sample_rate: 8000, 12000, 16000, 24000 or 48000 Hz.
        channels: 1 or 2; packets may have either.
    """

    def __init__(self, library: LibOpus, sample_rate: int, channels: int) -> None:
        self._library = library
        self._sample_rate = sample_rate
        self._pcm = np.empty((round(_MAX_SECONDS * sample_rate), channels), np.int16)
        self._address = self._pcm.ctypes.data
        self._step = sample_rate // 400
        self._decoder = library.create_decoder(sample_rate, channels)

    def decode(self, payload: bytes) -> Int16Array:
        """Decode a packet to int16 PCM, shape ``(channels, n)``.

        Raises:
            OpusError: the packet is malformed.
        """
        return self._decode(payload, self._pcm.shape[0], fec=False)

    def conceal(self, samples: int) -> Int16Array:
        """Extrapolate ``samples`` samples per channel; at most 120 ms.

        libopus extrapolates multiples of 2.5 ms. The rest of the last one is skipped.
        """
        count = -(-samples // self._step) * self._step
        return self._decode(None, count, fec=False)[:, :samples]

    def redundancy(self, payload: bytes) -> int:
        """Return the samples per channel before a packet of which it contains a copy, or 0."""
        return self._library.redundancy(payload, self._sample_rate)

    def recover(self, payload: bytes, samples: int) -> Int16Array:
        """Decode the copy of the ``samples`` samples before a packet.

        Raises:
            OpusError: the packet is malformed.
        """
        return self._decode(payload, samples, fec=True)

    def _decode(self, payload: bytes | None, samples: int, *, fec: bool) -> Int16Array:
        count = self._library.decode(self._decoder, payload, self._address, samples, fec=fec)
        return self._pcm[:count].T.copy()


class NativeOpusEncoder:
    """Encoder of libopus for frames of 20 ms.

    Args:
        library: the library.
        sample_rate: 8000, 12000, 16000, 24000 or 48000 Hz.
        channels: 1 or 2.
        application: "voip", "audio" or "lowdelay".
        controls: values of libopus's settings: "bitrate", "complexity", "inband_fec",
            "packet_loss_percent", "dtx".

    Raises:
        OpusError: libopus refuses one of them: raised with the first frame.
    """

    def __init__(
        self,
        library: LibOpus,
        sample_rate: int,
        channels: int,
        application: str,
        controls: Mapping[str, int],
    ) -> None:
        self._library = library
        self._samples = sample_rate // FRAMES_PER_SECOND
        # Reused for every frame, because numpy takes a microsecond to tell an array's address.
        self._pcm = np.empty((self._samples, channels), np.int16)
        self._planar = self._pcm.T
        self._address = self._pcm.ctypes.data
        self._packet = _buffer_type(_MAX_PACKET)()
        self._packet_address = addressof(self._packet)
        controls = {"vbr": 1, "vbr_constraint": 0, **controls}
        # Made for the first frame: it has 33 kB, which a client that never connects need not cost.
        self._create = partial(library.create_encoder, sample_rate, channels, application, controls)
        self._encoder: Array[c_char] | None = None

    def encode(self, samples: Int16Array) -> bytes:
        """Encode one frame: int16, shape ``(channels, sample_rate // 50)``."""
        self._planar[...] = samples
        if (encoder := self._encoder) is None:
            encoder = self._encoder = self._create()
        length = self._library.encode(
            encoder, self._address, self._samples, self._packet_address, _MAX_PACKET
        )
        return string_at(self._packet_address, length)


@cache
def load_libopus() -> LibOpus | None:
    """Return the first libopus that passes the self-test; None if there is none."""
    for path in _find_libraries():
        try:
            library = LibOpus(path)
            check_library(library)
        except (OSError, ValueError) as exc:
            logger.info("libopus at %s is not usable: %s", path, exc, event="opus.library_unusable")
        else:
            return library
    logger.warning(
        "no usable libopus: PyAV encodes and decodes Opus, and conceals losses by repetition, "
        "without FEC",
        event="opus.library_missing",
    )
    return None


def _find_libraries() -> Iterator[str]:
    import av

    package = Path(av.__file__).parent
    # The folders that auditwheel and delvewheel (av.libs) and delocate (.dylibs) make in wheels.
    for folder in (package.with_name("av.libs"), package / ".dylibs"):
        yield from sorted(map(str, folder.glob("*opus*")))
    from ctypes.util import find_library  # runs ldconfig or a compiler

    if found := find_library("opus"):
        yield found


# Three packets of a tone of 440 Hz at a quarter of full scale: SILK at 16 kHz.
_TONE_HZ = 440
_TONE_SHARE = 0.9
_TONE_RATE = 48_000
_TONE = (
    "SILiA2yemawAAALCgO/g/0Rauit3rfgKSVAZWyZWg3HlCUt4ZYKrzPtVVa32IdLsX465mxkN+mvxUSCXfKKlsP2A",
    "SKcZH1fjKbySaIK/8SfrKaumwigotOaS5ucsvHr5bUZZzGlzEeKpjCgxn4DMnyr0gA==",
    "SJ1pzBBZ0mbTL5B1/bFzxXhm3xIOq5jSSK14Hfc64R84HoCn+INtsBsQbfA=",
)


def check_library(library: LibOpus) -> None:
    """Decode and conceal a known tone, and encode and decode another one.

    Raises:
        ValueError: the result is not that tone.
    """
    decoder = NativeOpusDecoder(library, _TONE_RATE, 1)
    heard = [decoder.decode(b64decode(packet)) for packet in _TONE]
    heard.append(decoder.conceal(_TONE_RATE // FRAMES_PER_SECOND))
    _check_tone(library, "decodes", heard)
    controls = {"bitrate": 64_000, "complexity": 5, "inband_fec": 1, "packet_loss_percent": 5}
    encoder = NativeOpusEncoder(library, _TONE_RATE, 1, "audio", controls)
    phase = 2 * np.pi * _TONE_HZ * np.arange(_TONE_RATE * len(_TONE) // FRAMES_PER_SECOND)
    tone = np.rint(8_000 * np.sin(phase / _TONE_RATE)).astype(np.int16).reshape(len(_TONE), 1, -1)
    decoder = NativeOpusDecoder(library, _TONE_RATE, 1)
    _check_tone(library, "encodes", [decoder.decode(encoder.encode(frame)) for frame in tone])


def _check_tone(library: LibOpus, action: str, heard: list[Int16Array]) -> None:
    # 20 ms have a spectrum of 50 Hz to a line. A windowed tone is four lines wide.
    line = _TONE_HZ // 50
    for samples in heard[1:]:  # the first packet contains the onset
        if samples.shape == (1, 960):
            spectrum = np.square(np.abs(np.fft.rfft(samples[0] * np.hanning(960))))
            if spectrum[line - 2 : line + 4].sum() > _TONE_SHARE * spectrum.sum():
                continue
        raise ValueError(f"{library.version} {action} a tone of {_TONE_HZ} Hz to something else")
