"""Encoders: one packet per frame in every format, decodable as a browser does it."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import pytest
from av import AudioCodecContext, CodecContext, Packet
from numpy.typing import NDArray

from fastrtc_anyio._media import encode
from fastrtc_anyio._media.convert import AudioConverter
from fastrtc_anyio._media.decode import create_decoder
from fastrtc_anyio._media.encode import AudioEncoder, OpusEncoder, OpusOptions, create_encoder
from fastrtc_anyio._media.frames import AudioFrame, Int16Array
from fastrtc_anyio._media.g711 import decode_alaw, decode_mulaw
from fastrtc_anyio._media.playout import PlayoutBuffer
from fastrtc_anyio.errors import UnsupportedFormat
from tests.kit.loss import read_speech

OPUS_RATES = [8000, 12000, 16000, 24000, 48000]
LEFT_HZ, RIGHT_HZ = 440, 1000


@pytest.fixture(params=["libopus", "PyAV"])
def library(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Encode Opus with each library."""
    if request.param == "PyAV":
        monkeypatch.setattr(encode, "load_libopus", lambda: None)
    return str(request.param)


def tones(rate: int, channels: int, seconds: float = 2.0) -> Int16Array:
    time = np.arange(int(rate * seconds)) / rate
    left = 12000 * np.sin(2 * np.pi * LEFT_HZ * time)
    right = 9000 * np.sin(2 * np.pi * RIGHT_HZ * time)
    both: NDArray[np.float64] = np.stack([left, right])
    return np.rint(both[:channels]).astype(np.int16)


def tone_snr(samples: NDArray[Any], frequency: float, rate: int) -> float:
    """Return the SNR of a tone of unknown amplitude and phase, in dB."""
    angle = 2 * np.pi * frequency * np.arange(samples.shape[0]) / rate
    basis = np.stack([np.sin(angle), np.cos(angle)], axis=1)
    values = samples.astype(np.float64)
    gram = np.array([[np.sum(a * b) for b in basis.T] for a in basis.T])
    weights = np.linalg.solve(gram, np.array([np.sum(a * values) for a in basis.T]))
    fit = basis[:, 0] * weights[0] + basis[:, 1] * weights[1]
    return float(10 * np.log10(np.mean(fit**2) / np.mean((values - fit) ** 2)))


def encode_all(encoder: AudioEncoder, samples: Int16Array) -> list[bytes]:
    size = encoder.sample_rate // 50
    frames = [samples[:, i : i + size] for i in range(0, samples.shape[1], size)]
    return [encoder.encode(frame) for frame in frames]


def decode_with(
    codec: str, rate: int, channels: int, payloads: list[bytes]
) -> tuple[Int16Array, list[int]]:
    """Decode as aiortc does; also return the number of samples in each payload."""
    context = CodecContext.create(codec, "r")
    assert isinstance(context, AudioCodecContext)
    context.format = "s16"
    context.layout = "mono" if channels == 1 else "stereo"
    context.sample_rate = rate
    parts: list[Int16Array] = []
    counts: list[int] = []
    for payload in payloads:
        frames = context.decode(Packet(payload))
        counts.append(sum(frame.samples for frame in frames))
        for frame in frames:
            parts.append(frame.to_ndarray().reshape(-1, channels).T.astype(np.int16))
    return np.concatenate(parts, axis=1), counts


def speech(rate: int, channels: int = 1) -> list[Int16Array]:
    """Return 4 s of speech in frames; the channels differ."""
    mono = AudioConverter(rate, 1)(AudioFrame(16_000, read_speech()))[0]
    both = np.stack([mono, np.roll(mono, 77)])[:channels]
    size = rate // 50
    return [both[:, i : i + size] for i in range(0, both.shape[1] - size + 1, size)]


@pytest.mark.usefixtures("library")
@pytest.mark.parametrize("application", ["voip", "audio", "lowdelay"])
@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("rate", OPUS_RATES)
def test_48_khz_stereo_decoder_decodes_opus(rate: int, channels: int, application: Any) -> None:
    encoder = OpusEncoder(rate, channels, OpusOptions(application=application))
    payloads = encode_all(encoder, tones(rate, channels))
    encoder.close()
    assert len(payloads) == 100
    output, counts = decode_with("libopus", 48000, 2, payloads)
    assert set(counts) == {960}
    settled = output[:, 24000:72000]
    assert tone_snr(settled[0], LEFT_HZ, 48000) > 30
    assert tone_snr(settled[1], RIGHT_HZ if channels == 2 else LEFT_HZ, 48000) > 30


def packets_with_redundancy(payloads: list[bytes]) -> int:
    # RFC 6716 3.1: configurations below 16 hold SILK. 4.2.3: its first two bits, for a mono
    # frame of 20 ms, are the voice activity and the LBRR flag (a copy of the previous frame).
    return sum(payload[0] >> 3 < 16 and bool(payload[1] & 0x40) for payload in payloads)


@pytest.mark.usefixtures("library")
def test_opus_fec_is_sent_if_loss_is_expected() -> None:
    generator = np.random.default_rng(0)
    swell = 0.5 - 0.5 * np.cos(2 * np.pi * 4 * np.arange(32000) / 16000)
    voice = (generator.normal(0, 3000, (1, 32000)) * swell).astype(np.int16)
    with_fec = OpusOptions(inband_fec=True, packet_loss_percent=15, bitrate=24_000)
    without = OpusOptions(packet_loss_percent=15, bitrate=24_000)
    assert packets_with_redundancy(encode_all(OpusEncoder(16000, 1, with_fec), voice)) > 50
    assert packets_with_redundancy(encode_all(OpusEncoder(16000, 1, without), voice)) == 0


@pytest.mark.usefixtures("library")
@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("rate", OPUS_RATES)
def test_opus_with_fec_is_decodable(rate: int, channels: int) -> None:
    options = OpusOptions(inband_fec=True, packet_loss_percent=10, complexity=5)
    payloads = encode_all(OpusEncoder(rate, channels, options), tones(rate, channels))
    output, counts = decode_with("libopus", 48000, 2, payloads)
    assert set(counts) == {960}
    assert tone_snr(output[0, 24000:72000], LEFT_HZ, 48000) > 10


@pytest.mark.usefixtures("library")
@pytest.mark.parametrize(
    ("options", "channels", "application"),
    [
        ({}, 1, "lowdelay"),
        ({}, 2, "lowdelay"),
        ({"bitrate": 64_000}, 1, "lowdelay"),
        ({"bitrate": 64_000}, 2, "audio"),
        ({"bitrate": 63_000}, 1, "audio"),
        ({"inband_fec": True, "packet_loss_percent": 10}, 1, "audio"),
    ],
)
def test_opus_has_the_short_delay_if_it_costs_no_fidelity(
    options: dict[str, Any], channels: int, application: Any
) -> None:
    """A step of the level arrives 2.5 ms later with "lowdelay", otherwise 6.5 ms later."""
    noise = np.random.default_rng(0).integers(-9000, 9000, (channels, 48_000)).astype(np.int16)
    encoder, decoder = OpusEncoder(48_000, channels, OpusOptions(**options)), create_decoder("opus")
    payloads = encode_all(encoder, noise)
    heard = np.concatenate([decoder.decode(payload) for payload in payloads], axis=1)[0]
    shifts = {"lowdelay": 120, "audio": 312}
    likeness = {
        name: float(np.corrcoef(heard[9600 + shift : 38400 + shift], noise[0, 9600:38400])[0, 1])
        for name, shift in shifts.items()
    }
    assert max(likeness, key=lambda name: likeness[name]) == application
    assert likeness[application] > 0.3


@pytest.mark.usefixtures("library")
def test_opus_meets_its_bitrate() -> None:
    generator = np.random.default_rng(0)
    samples = generator.integers(-9000, 9000, (1, 48000)).astype(np.int16)
    for bitrate in (16_000, 64_000, 128_000):
        payloads = encode_all(OpusEncoder(24000, 1, OpusOptions(bitrate=bitrate)), samples)
        assert sum(map(len, payloads)) * 8 / 2 == pytest.approx(bitrate, rel=0.2)


@pytest.mark.usefixtures("library")
def test_opus_encoder_keeps_state_between_frames() -> None:
    samples = tones(24000, 1, seconds=0.2)
    kept = encode_all(OpusEncoder(24000, 1), samples)
    anew = [OpusEncoder(24000, 1).encode(samples[:, i : i + 480]) for i in range(0, 4800, 480)]
    assert kept[0] == anew[0]
    assert kept[1:] != anew[1:]


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("rate", OPUS_RATES)
@pytest.mark.parametrize(
    "options",
    [
        OpusOptions(),
        OpusOptions(bitrate=24_000, application="voip", complexity=3),
        OpusOptions(bitrate=20_000, application="voip", inband_fec=True, packet_loss_percent=20),
        OpusOptions(application="lowdelay", complexity=0),
    ],
)
def test_both_libraries_encode_to_the_same_bytes(
    rate: int, channels: int, options: OpusOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    native = OpusEncoder(rate, channels, options)
    monkeypatch.setattr(encode, "load_libopus", lambda: None)
    fallback = OpusEncoder(rate, channels, options)
    assert type(native._codec) is not type(fallback._codec)
    for frame in speech(rate, channels)[40:140]:
        assert native.encode(frame) == fallback.encode(frame)


def test_dtx_sends_two_packets_a_second_in_silence() -> None:
    encoder = OpusEncoder(16_000, 1, OpusOptions(bitrate=24_000, application="voip", dtx=True))
    frames = speech(16_000)[:60] + [np.zeros((1, 320), np.int16)] * 200
    lengths = [len(encoder.encode(frame)) for frame in frames]
    assert min(lengths[:50]) > 2
    assert 6 <= sum(length > 0 for length in lengths[100:]) <= 8
    assert OpusEncoder(16_000, 1).encode(frames[-1])


class CountedEncoder(AudioEncoder):
    """Wraps an encoder, and counts the frames that it has encoded."""

    def __init__(self, encoder: AudioEncoder) -> None:
        super().__init__("counted", encoder.sample_rate, encoder.channels, encoder.clock_rate)
        self.encoder = encoder
        self.count = 0

    def _encode(self, samples: Int16Array) -> bytes:
        self.count += 1
        return self.encoder._encode(samples)


def silence(rate: int) -> Int16Array:
    frame = np.zeros((1, rate // 50), np.int16)
    frame.flags.writeable = False
    return frame


@pytest.mark.usefixtures("library")
@pytest.mark.parametrize("name", ["opus", "PCMU"])
def test_payload_of_lasting_silence_is_kept(name: str) -> None:
    encoder = CountedEncoder(create_encoder(name, 16_000, 1))
    quiet = silence(encoder.sample_rate)
    payloads = [encoder.encode(quiet) for _ in range(500)]
    assert encoder.count < 150
    assert len(set(payloads[encoder.count :])) == 1
    # Another array, or one that may change, is encoded.
    counted = encoder.count
    changing = quiet.copy()
    for _ in range(100):
        encoder.encode(changing)
    assert encoder.count == counted + 100
    encoder.encode(quiet)
    assert encoder.count == counted + 101


def test_silence_between_replies_is_encoded_for_a_second() -> None:
    """Playout returns the same frame of silence as long as there is nothing to play."""
    playout = PlayoutBuffer(24_000, 1, 10.0)
    encoder = CountedEncoder(create_encoder("opus", 24_000, 1))
    for _ in range(3):
        playout.push(tones(24_000, 1, 0.1))
        encoded = encoder.count
        for _ in range(300):
            encoder.encode(playout.pull())
        assert 5 < encoder.count - encoded < 100


def test_payloads_of_g722_are_not_kept() -> None:
    """Its code for silence never settles."""
    encoder = CountedEncoder(create_encoder("G722", 16_000, 1))
    quiet = silence(16_000)
    for _ in range(300):
        encoder.encode(quiet)
    assert encoder.count == 300


@pytest.mark.usefixtures("library")
@pytest.mark.parametrize("rate", [16_000, 24_000, 48_000])
@pytest.mark.parametrize(
    "options", [OpusOptions(), OpusOptions(bitrate=24_000, application="voip")]
)
@pytest.mark.parametrize("sound", ["speech", "tone"])
def test_sound_after_kept_silence_is_as_good_as_before(
    rate: int, options: OpusOptions, sound: str
) -> None:
    before = speech(rate)[:150]
    pause = [silence(rate)] * 400
    tone = tones(rate, 1, 1.0)
    size = rate // 50
    after = {
        "speech": speech(rate)[60:110],
        "tone": [tone[:, i : i + size] for i in range(0, rate, size)],
    }[sound]

    def transmit(encoder: AudioEncoder) -> NDArray[np.float64]:
        decoder = create_decoder("opus", rate, 1)
        frames = [*before, *pause, *after]
        heard = [decoder.decode(encoder.encode(frame))[0] for frame in frames]
        return np.concatenate(heard[len(before) + len(pause) - 5 :]).astype(float)

    kept = CountedEncoder(OpusEncoder(rate, 1, options))
    heard = transmit(kept)
    assert kept.count < len(before) + len(after) + 150
    pause = [frame.copy() for frame in pause]  # that may change, so each is encoded
    wanted = transmit(OpusEncoder(rate, 1, options))
    begin = slice(0, 10 * size)
    error = heard - wanted
    assert np.sum(error[begin] ** 2) < np.sum(wanted[begin] ** 2) / 100
    assert np.abs(np.diff(heard)).max() < 1.1 * np.abs(np.diff(wanted)).max() + 20


@pytest.mark.parametrize(
    "options",
    [
        {"bitrate": 5999},
        {"bitrate": 510_001},
        {"bitrate": 0},
        {"packet_loss_percent": -1},
        {"packet_loss_percent": 101},
        {"complexity": 11},
        {"application": "music"},
    ],
)
def test_opus_options_out_of_range_are_rejected(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(options))} must be"):
        OpusOptions(**options)


@pytest.mark.parametrize(
    "options",
    [{"dtx": 1}, {"inband_fec": "no"}, {"complexity": 5.0}, {"bitrate": True}],
)
def test_opus_options_of_another_type_are_rejected(options: dict[str, Any]) -> None:
    with pytest.raises(TypeError, match=f"{next(iter(options))} must be"):
        OpusOptions(**options)


@pytest.mark.parametrize(
    ("name", "codec", "snr"), [("G722", "g722", 40), ("PCMU", None, 35), ("PCMA", None, 35)]
)
def test_telephony_codecs_have_fixed_formats(name: str, codec: str | None, snr: float) -> None:
    encoder = create_encoder(name, 24000, 2)
    assert (encoder.channels, encoder.clock_rate, encoder.rtp_increment) == (1, 8000, 160)
    payloads = encode_all(encoder, tones(encoder.sample_rate, 1))
    assert {len(payload) for payload in payloads} == {160}
    if codec:
        output = decode_with(codec, encoder.sample_rate, 1, payloads)[0][0]
    else:
        output = {"PCMU": decode_mulaw, "PCMA": decode_alaw}[name](b"".join(payloads))
    assert output.shape == (encoder.sample_rate * 2,)
    assert tone_snr(output[encoder.sample_rate // 2 :], LEFT_HZ, encoder.sample_rate) > snr


@pytest.mark.parametrize("name", ["opus", "Opus", "OPUS"])
@pytest.mark.parametrize(
    ("rate", "wanted"),
    [
        (8000, 8000),
        (8050, 12000),
        (11025, 12000),
        (16000, 16000),
        (22050, 24000),
        (24000, 24000),
        (32000, 48000),
        (44100, 48000),
        (48000, 48000),
    ],
)
def test_opus_uses_the_next_rate_up(name: str, rate: int, wanted: int) -> None:
    for channels in (1, 2):
        encoder = create_encoder(name, rate, channels, OpusOptions(bitrate=64_000))
        assert (encoder.sample_rate, encoder.channels) == (wanted, channels)
        assert (encoder.clock_rate, encoder.rtp_increment) == (48000, 960)


@pytest.mark.usefixtures("library")
@pytest.mark.parametrize("options", [None, OpusOptions(bitrate=96_000)])
def test_limit_of_the_client_bounds_the_bitrate_and_nothing_else(
    options: OpusOptions | None,
) -> None:
    """Also with steady tones, whose frames take up to twice the bitrate without a limit."""
    samples = tones(48_000, 2)

    def rate(options: OpusOptions | None, max_bitrate: int | None) -> float:
        encoder = create_encoder("opus", 48_000, 2, options, max_bitrate)
        return 8 * sum(map(len, encode_all(encoder, samples))) / 2

    for limit in (16_000, 32_000, 64_000):
        assert limit / 2 < rate(options, limit) < 1.2 * limit
    assert rate(options, 120_000) < 1.1 * 120_000
    assert rate(options, 510_000) == rate(options, None) > 130_000


@pytest.mark.parametrize("name", ["g722", "G722", "pcmu", "PCMU", "pcma", "PcMa"])
def test_codec_names_are_case_insensitive(name: str) -> None:
    assert create_encoder(name, 48000, 2).sample_rate == (16000 if "722" in name else 8000)


def test_unknown_codecs_and_formats_are_rejected() -> None:
    with pytest.raises(UnsupportedFormat, match="opus, G722, PCMU, PCMA; got 'vp8'"):
        create_encoder("vp8", 48000, 1)
    for channels in (0, 3):
        with pytest.raises(UnsupportedFormat, match=f"channels must be 1 or 2; got {channels}"):
            create_encoder("opus", 48000, channels)
    for rate in (0, 96000):
        with pytest.raises(UnsupportedFormat, match=f"got {rate}"):
            create_encoder("opus", rate, 1)
    with pytest.raises(
        UnsupportedFormat, match="8000, 12000, 16000, 24000, 48000 Hz for Opus; got 44100"
    ):
        OpusEncoder(44100, 1)
    with pytest.raises(UnsupportedFormat, match="got 3"):
        OpusEncoder(48000, 3)


@pytest.mark.parametrize("name", ["opus", "G722", "PCMU", "PCMA"])
def test_unsupported_frames_and_closed_encoder_raise(name: str) -> None:
    encoder = create_encoder(name, 16000, 1)
    size = encoder.sample_rate // 50
    wrong: list[Any] = [
        np.zeros((1, size - 1), np.int16),
        np.zeros((2, size), np.int16),
        np.zeros(size, np.int16),
        np.zeros((1, size), np.float32),
    ]
    for samples in wrong:
        with pytest.raises(UnsupportedFormat, match=rf"shape \(1, {size}\); got {samples.dtype}"):
            encoder.encode(samples)
    # The encoder is usable after a rejected frame.
    assert encoder.encode(np.zeros((1, size), np.int16))
    encoder.close()
    encoder.close()
    with pytest.raises(RuntimeError, match="closed"):
        encoder.encode(np.zeros((1, size), np.int16))


@pytest.mark.parametrize("name", ["opus", "G722"])
@pytest.mark.usefixtures("no_garbage_collection")
def test_closing_frees_the_native_encoder_without_a_garbage_collection(name: str) -> None:
    before = len(os.listdir("/proc/self/task"))
    encoders = [create_encoder(name, 16000, 1) for _ in range(10)]
    for encoder in encoders:
        encoder.encode(np.zeros((1, 320), np.int16))
    for encoder in encoders:
        encoder.close()
    assert len(os.listdir("/proc/self/task")) <= before
