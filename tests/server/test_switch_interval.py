"""Threads that compute in Python make way for the calls sooner than by default."""

from __future__ import annotations

import sys

import pytest

from fastrtc_anyio.server.launch import SWITCH_INTERVAL, open_page
from tests.kit.calls import make_stream


@pytest.mark.parametrize("usual", [0.005, SWITCH_INTERVAL / 2])
async def test_threads_give_way_sooner_while_a_stream_is_launched(
    usual: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    intervals = [usual]
    monkeypatch.setattr(sys, "getswitchinterval", lambda: intervals[-1])
    monkeypatch.setattr(sys, "setswitchinterval", intervals.append)
    async with make_stream() as stream, open_page(stream, "127.0.0.1", 0):
        assert intervals[-1] == min(usual, SWITCH_INTERVAL)
    assert intervals[-1] == usual
