"""Fallback to the regular paths of aiortc if a private name is missing, or on request."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from aiortc import RTCRtpSender

from fastrtc_anyio._peers.webrtc import fast_internals


@pytest.fixture(autouse=True)
def forget_names() -> Iterator[None]:
    fast_internals.missing_names.cache_clear()
    yield
    fast_internals.missing_names.cache_clear()


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


def test_variable_selects_the_regular_paths_silently(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv(fast_internals.VARIABLE, "0")
    assert not fast_internals.is_usable()
    monkeypatch.setenv(fast_internals.VARIABLE, "1")
    assert fast_internals.is_usable()
    assert caplog.records == []
