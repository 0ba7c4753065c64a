"""Decoders: formats, losses, malformed packets, with libopus and without."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastrtc_anyio._media import decode
from fastrtc_anyio._media.decode import (
    AudioDecoder,
    MalformedPacket,
    OpusDecoder,
    WaveformDecoder,
    create_decoder,
)
from fastrtc_anyio._media.encode import OpusOptions, create_encoder
from fastrtc_anyio._media.frames import Int16Array
from fastrtc_anyio.errors import UnsupportedFormat
from fastrtc_anyio.testing import tone, tone_snr
from tests.kit.loss import read_speech

FORMATS = {"opus": (48_000, 2), "G722": (16_000, 1), "PCMU": (8_000, 1), "PCMA": (8_000, 1)}
LIMIT = 0.08
"""Seconds after which every decoder's concealment is silent."""


@pytest.fixture(params=["libopus", "PyAV"])
def library(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Decode Opus with each library."""
    if request.param == "PyAV":
        monkeypatch.setattr(decode, "load_libopus", lambda: None)
    return str(request.param)


def packets(name: str, sound: Int16Array, options: OpusOptions | None = None) -> list[bytes]:
    """Encode a sound, at the encoder's rate."""
    encoder = create_encoder(name, 48_000, 1, options)
    size = encoder.sample_rate // 50
    return [encoder.encode(sound[:, i : i + size]) for i in range(0, sound.shape[1], size)]


def a_tone(name: str, frequency: float = 440) -> list[bytes]:
    return packets(name, tone(frequency, FORMATS[name][0], 0.6))


def play(decoder: AudioDecoder[bytes], payloads: list[bytes], lost: range) -> Int16Array:
    return np.concatenate(
        [
            decoder.conceal(decoder.sample_rate // 50) if i in lost else decoder.decode(payload)
            for i, payload in enumerate(payloads)
        ],
        axis=1,
    )


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.usefixtures("library")
def test_each_codec_decodes_to_its_format(name: str) -> None:
    rate, channels = FORMATS[name]
    decoder = create_decoder(name.upper())
    assert (decoder.sample_rate, decoder.channels) == (rate, channels)
    assert decoder.clock_rate == (48_000 if name == "opus" else 8_000)
    heard = play(decoder, a_tone(name), range(0))
    assert heard.dtype == np.int16
    assert heard.shape == (channels, rate * 6 // 10)
    assert tone_snr(heard[0, rate // 10 :], 440, rate) > 30


def test_libopus_is_used_if_there_is_one(library: str) -> None:
    wanted = OpusDecoder if library == "libopus" else WaveformDecoder
    assert type(create_decoder("opus")) is wanted


@pytest.mark.parametrize("rate", [8_000, 12_000, 16_000, 24_000, 48_000])
@pytest.mark.parametrize("channels", [1, 2])
def test_opus_decodes_at_any_of_its_rates(rate: int, channels: int, library: str) -> None:
    """FFmpeg decodes at 48 kHz alone."""
    decoder = create_decoder("opus", rate, channels)
    rate = rate if library == "libopus" else 48_000
    assert (decoder.sample_rate, decoder.channels) == (rate, channels)
    heard = play(decoder, a_tone("opus"), range(10, 12))
    assert heard.shape == (channels, rate * 6 // 10)
    assert tone_snr(heard[-1, rate // 2 :], 440, rate) > 25


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("count", [1, 3, 8])
@pytest.mark.usefixtures("library")
def test_loss_is_concealed_without_a_click(name: str, count: int) -> None:
    rate = FORMATS[name][0]
    decoder = create_decoder(name)
    heard = play(decoder, a_tone(name, 200), range(10, 10 + count))[0]
    size = rate // 50
    steps = np.abs(np.diff(heard.astype(int)))
    assert steps.max() < steps[: 9 * size].max() * 1.3 + 100
    # As loud as before at first, and back within a packet.
    levels = np.abs(heard.astype(int)).reshape(-1, size).max(axis=1)
    assert levels[10] > 0.7 * levels[8]
    assert levels[11 + count] > 0.9 * levels[8]


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.usefixtures("library")
def test_concealment_fades_to_exact_silence(name: str) -> None:
    decoder = create_decoder(name)
    for payload in a_tone(name)[:10]:
        decoder.decode(payload)
    size = decoder.sample_rate // 100
    concealed = np.concatenate([decoder.conceal(size) for _ in range(20)], axis=1)
    end = round(LIMIT * decoder.sample_rate)
    assert concealed.any()
    assert not concealed[:, end:].any()
    assert decoder.concealable <= LIMIT
    assert np.abs(np.diff(concealed.astype(int), axis=1)).max() < 3000


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("bad", [b"", b"\xff\xff\xff", b"\x03"])
@pytest.mark.usefixtures("library")
def test_decoder_survives_a_malformed_packet(name: str, bad: bytes) -> None:
    payloads, decoder = a_tone(name), create_decoder(name)
    for payload in payloads[:10]:
        decoder.decode(payload)
    if bad and name != "opus":
        assert decoder.decode(bad).shape[1] > 0  # every byte is valid
    else:
        with pytest.raises(MalformedPacket, match=r"packet"):
            decoder.decode(bad)
    heard = np.concatenate([decoder.decode(payload) for payload in payloads[10:]], axis=1)
    rate = decoder.sample_rate
    assert heard.shape[1] == rate * 4 // 10
    assert tone_snr(heard[0, rate // 10 :], 440, rate) > 25


@pytest.mark.parametrize("name", FORMATS)
@given(payloads=st.lists(st.binary(max_size=80), max_size=8))
def test_any_bytes_decode_or_raise_malformed_packet(name: str, payloads: list[bytes]) -> None:
    decoder = create_decoder(name)
    for payload in payloads:
        redundant = decoder.redundancy(payload)
        if redundant:
            assert decoder.recover(payload, redundant).shape == (decoder.channels, redundant)
        try:
            samples = decoder.decode(payload)
        except MalformedPacket:
            continue
        assert samples.shape[0] == decoder.channels


def test_redundancy_restores_a_lost_packet() -> None:
    """Restored speech correlates with the lost speech, concealed speech hardly does."""
    options = OpusOptions(bitrate=24_000, application="voip", inband_fec=True,
                          packet_loss_percent=20)  # fmt: skip
    encoder = create_encoder("opus", 16_000, 1, options)
    speech = read_speech()
    payloads = [encoder.encode(speech[:, i : i + 320]) for i in range(0, 320 * 200, 320)]
    clean = create_decoder("opus", 16_000, 1)
    whole = [clean.decode(payload) for payload in payloads]

    def likeness(heard: Int16Array, said: Int16Array) -> float:
        return float(np.corrcoef(heard[0], said[0])[0, 1])

    restored: list[float] = []
    concealed: list[float] = []
    for lost in range(60, 190, 3):
        if np.abs(whole[lost]).max() < 2000:
            continue
        decoder, other = create_decoder("opus", 16_000, 1), create_decoder("opus", 16_000, 1)
        for payload in payloads[:lost]:
            decoder.decode(payload)
            other.decode(payload)
        behind = payloads[lost + 1]
        if decoder.redundancy(behind):
            assert decoder.redundancy(behind) == 320
            restored.append(likeness(decoder.recover(behind, 320), whole[lost]))
            concealed.append(likeness(other.conceal(320), whole[lost]))
    assert len(restored) > 20
    assert np.median(restored) > 0.85
    assert np.median(restored) > np.median(concealed) + 0.1


def test_packets_of_speech_without_fec_have_no_redundancy() -> None:
    decoder = create_decoder("opus")
    speech = np.repeat(read_speech()[:, 8000:24000], 3, axis=1)
    options = OpusOptions(bitrate=24_000, application="voip")
    assert not any(decoder.redundancy(payload) for payload in packets("opus", speech, options))
    assert decoder.recover(packets("opus", speech, options)[5], 960).shape == (2, 960)


def test_unknown_codecs_are_rejected() -> None:
    with pytest.raises(UnsupportedFormat, match="opus, G722, PCMU, PCMA; got 'vp8'"):
        create_decoder("vp8")
