"""Fallback to the regular paths of aiortc if a private name is missing, or on request."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pylibsrtp
import pytest
from aiortc import RTCRtpSender
from hypothesis import given
from hypothesis import strategies as st
from pylibsrtp import Policy, Session

from fastrtc_anyio._peers.webrtc import fast_internals
from fastrtc_anyio._peers.webrtc.fast_internals import SrtpBuffer
from fastrtc_anyio._peers.webrtc.feedback_internals import Refused
from fastrtc_anyio._peers.webrtc.rtp import Header

srtp: Any = pylibsrtp


@pytest.fixture(autouse=True)
def forget_names() -> Iterator[None]:
    caches = fast_internals.missing_names, fast_internals.warn_of_value
    for cached in caches:
        cached.cache_clear()
    yield
    for cached in caches:
        cached.cache_clear()


@pytest.fixture(autouse=True)
def no_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(fast_internals.VARIABLE, raising=False)


def test_installed_versions_have_all_names(caplog: pytest.LogCaptureFixture) -> None:
    assert fast_internals.is_usable()
    assert caplog.records == []


def test_missing_name_is_logged_once_and_not_used(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    required = {RTCRtpSender: ("_ssrc", "_no_such_name", "__none_either")}
    monkeypatch.setattr(fast_internals, "REQUIRED", required)
    assert not fast_internals.is_usable()
    assert not fast_internals.is_usable()
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert "lack RTCRtpSender._no_such_name, RTCRtpSender.__none_either" in record.getMessage()


@pytest.mark.parametrize("function", [None, srtp.lib.srtp_create])
def test_another_libsrtp_is_logged_and_not_used(
    function: object, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    library = SimpleNamespace(srtp_protect=srtp.lib.srtp_protect, srtp_unprotect=function)
    replaced = SimpleNamespace(ffi=srtp.ffi, lib=library)
    monkeypatch.setattr(fast_internals, "_pylibsrtp", replaced)
    assert not fast_internals.is_usable()
    (record,) = caplog.records
    assert "lack pylibsrtp.lib.srtp_unprotect:" in record.getMessage()


def test_variable_selects_the_regular_paths_silently(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv(fast_internals.VARIABLE, "0")
    assert not fast_internals.is_usable()
    monkeypatch.setenv(fast_internals.VARIABLE, "1")
    assert fast_internals.is_usable()
    assert caplog.records == []


def test_value_of_the_variable_without_a_meaning_is_logged_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv(fast_internals.VARIABLE, "")
    assert fast_internals.is_usable()
    assert caplog.records == []
    for value in ("false", "2", "false"):
        monkeypatch.setenv(fast_internals.VARIABLE, value)
        assert fast_internals.is_usable()
    assert [record.getMessage() for record in caplog.records] == [
        f"FASTRTC_ANYIO_FAST_PATH must be 0 or 1; got {value!r}, which has no effect"
        for value in ("false", "2")
    ]


def open_session(direction: int) -> Session:
    return Session(Policy(key=bytes(30), ssrc_type=direction))


@given(st.lists(st.binary(max_size=1300), min_size=1, max_size=5))
def test_packets_are_encrypted_and_decrypted_as_by_pylibsrtp(payloads: list[bytes]) -> None:
    protect = SrtpBuffer("srtp_protect", 1356)
    unprotect = SrtpBuffer("srtp_unprotect", 1500)
    sender, other = (open_session(Policy.SSRC_ANY_OUTBOUND) for _ in range(2))
    receiver = open_session(Policy.SSRC_ANY_INBOUND)
    header = Header(111, 1)
    for number, payload in enumerate(payloads):
        packet = header.pack(number, 960 * number, payload)
        encrypted = protect.process(sender, packet)
        assert encrypted == other.protect(packet)
        forged = encrypted[:-1] + bytes([encrypted[-1] ^ 1])
        with pytest.raises(Refused):
            unprotect.process(receiver, forged)
        assert unprotect.process(receiver, encrypted) == packet
        with pytest.raises(Refused):  # it came before
            unprotect.process(receiver, encrypted)


def test_packet_without_room_for_its_trailer_is_rejected() -> None:
    with pytest.raises(ValueError, match="at most 1356 bytes; got 1357"):
        SrtpBuffer("srtp_protect", 1356).process(None, bytes(1357))
