"""The reports of ``getStats()`` in libwebrtc, with which both Node and browsers call."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

import anyio
import pytest

from tests.kit.waiting import SECONDS

Reports: TypeAlias = list[dict[str, Any]]
_RTCP_REPORTS = 4
"""Reports of the server to wait for: one comes every 0.5 to 1.5 s."""
_NEAR = 0.5
"""Seconds between two times that a machine without load has within some milliseconds."""


def find(reports: Reports, type_: str, kind: str = "audio") -> dict[str, Any]:
    """Return the report of a type on a kind of media, or an empty one."""
    found = [one for one in reports if one["type"] == type_ and one.get("kind") == kind]
    assert len(found) <= 1, found
    return found[0] if found else {}


def _is_complete(reports: Reports, kind: str) -> bool:
    sent = find(reports, "remote-outbound-rtp", kind).get("reportsSent", 0)
    answered = find(reports, "remote-inbound-rtp", kind).get("roundTripTimeMeasurements", 0)
    return bool(min(sent, answered) >= _RTCP_REPORTS)


async def _wait_complete(get_stats: Callable[[], Awaitable[Reports]], kind: str) -> Reports:
    with anyio.fail_after(SECONDS):
        while not _is_complete(reports := await get_stats(), kind):
            await anyio.sleep(0.1)
    return reports


async def check_reports(get_stats: Callable[[], Awaitable[Reports]]) -> None:
    """Check what a client of an echo, which has spoken for a second, reports on its call.

    A client whose machine is busy conceals some audio. Bounds on time are therefore wide.
    """
    begin = await get_stats()
    reports = await _wait_complete(get_stats, "audio")
    _check_reception(find(begin, "inbound-rtp"), find(reports, "inbound-rtp"))
    _check_sender_reports(find(reports, "inbound-rtp"), find(reports, "remote-outbound-rtp"))
    _check_receiver_reports(find(reports, "outbound-rtp"), find(reports, "remote-inbound-rtp"))


async def check_video_reports(get_stats: Callable[[], Awaitable[Reports]]) -> None:
    """Check what a client, which sees its pictures come back, reports on them."""
    begin = find(await get_stats(), "inbound-rtp", "video")
    shown = begin["framesDecoded"] + 30
    with anyio.fail_after(SECONDS):
        while find(await get_stats(), "inbound-rtp", "video")["framesDecoded"] < shown:
            await anyio.sleep(0.1)
    reports = await _wait_complete(get_stats, "video")
    inbound, outbound = (find(reports, f"{way}-rtp", "video") for way in ("inbound", "outbound"))
    seconds = (inbound["timestamp"] - begin["timestamp"]) / 1000
    grown = {
        key: inbound[key] - begin[key]
        for key in ("framesReceived", "framesDecoded", "keyFramesDecoded", "packetsReceived")
    }
    print(f"in {seconds:.2f} s {grown}; requests for key frames: {inbound['pliCount']}")
    assert inbound["packetsLost"] == 0
    assert inbound["jitter"] < 0.1
    assert inbound["keyFramesDecoded"] >= 1
    assert grown["framesDecoded"] >= 0.8 * grown["framesReceived"]
    # Key frames are for requests, and for the estimate of the bitrate, which rises at first.
    assert grown["keyFramesDecoded"] <= 2 + seconds / 2 + inbound["pliCount"]
    remote = find(reports, "remote-outbound-rtp", "video")
    _check_sender_reports(inbound, remote)
    _check_receiver_reports(outbound, find(reports, "remote-inbound-rtp", "video"))


def _check_reception(begin: dict[str, Any], inbound: dict[str, Any]) -> None:
    seconds = (inbound["timestamp"] - begin["timestamp"]) / 1000
    grown = {
        key: inbound[key] - begin[key]
        for key in ("totalSamplesReceived", "concealedSamples", "packetsReceived")
    }
    print(f"jitter {inbound['jitter']} s, in {seconds:.2f} s {grown}")
    assert inbound["mid"] == "0"
    assert inbound["packetsLost"] == 0
    assert inbound["jitter"] < 0.1
    assert grown["totalSamplesReceived"] / 48_000 == pytest.approx(seconds, rel=0.1)
    assert grown["packetsReceived"] / 50 == pytest.approx(seconds, rel=0.1)
    assert grown["concealedSamples"] < 0.2 * grown["totalSamplesReceived"]
    assert inbound["totalAudioEnergy"] > begin["totalAudioEnergy"]


def _check_sender_reports(inbound: dict[str, Any], remote: dict[str, Any]) -> None:
    """Check the server's counts, and its times, which are of the same clock."""
    print(f"server: {remote}")
    assert remote["ssrc"] == inbound["ssrc"]
    # The last report is 1.5 s old at most. Packets of silence are smaller than others.
    assert 0.5 * inbound["packetsReceived"] < remote["packetsSent"] <= inbound["packetsReceived"]
    assert 0.2 * inbound["bytesReceived"] < remote["bytesSent"] <= inbound["bytesReceived"]
    sent_at, came_at = remote["remoteTimestamp"] / 1000, remote["timestamp"] / 1000
    assert sent_at == pytest.approx(came_at, abs=_NEAR)


def _check_receiver_reports(outbound: dict[str, Any], remote: dict[str, Any]) -> None:
    print(f"server about the client: {remote}")
    assert remote["ssrc"] == outbound["ssrc"]
    assert remote["packetsLost"] == remote["fractionLost"] == 0
    assert remote["jitter"] < 0.1
    assert 0 <= remote["roundTripTime"] < _NEAR
