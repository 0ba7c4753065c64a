"""Numbers in the documentation are those of the code."""

from __future__ import annotations

import re

import pytest

from fastrtc_anyio import RtcConfiguration, Stream, turn_servers
from fastrtc_anyio._driver import interruptions, replies
from fastrtc_anyio._media import conceal, gaps, playout, reorder
from fastrtc_anyio._media.read import MAX_RATE, MIN_RATE
from fastrtc_anyio._peers.streams import messages, paced, phone
from fastrtc_anyio._peers.streams.audio import BufferOptions
from fastrtc_anyio._peers.webrtc import consent
from fastrtc_anyio._signaling import requests
from fastrtc_anyio._wire import fastrtc, signatures
from fastrtc_anyio.cluster import _survey
from fastrtc_anyio.conversation import foreground, machine
from fastrtc_anyio.outputs import BACKLOG
from fastrtc_anyio.server import telephone_proof
from fastrtc_anyio.server.page.document import page_document
from fastrtc_anyio.testing import pytest_plugin
from fastrtc_anyio.testing.virtual_time import THREAD_LIMIT
from tests.kit.calls import echo
from tests.kit.documentation import HISTORY, PAGES, prose, read

NUMBERS = [
    (r"An id has at most (\d+) characters", requests.MAX_ID_LENGTH),
    (r"audio out \| (\d+) s", BufferOptions().output_s),
    (r"`live=True` \| ([\d.]+) s", BufferOptions.choose(True, None, 1.0).output_s),
    (r"messages, each direction \| (\d+)", messages.QUEUE_LIMIT),
    (r"outputs, for each reader \| (\d+)", BACKLOG),
    (r"with a fade of (\d+) ms", 1000 * playout.FADE_SECONDS),
    (r"at any rate from (\d+) to", MIN_RATE),
    (r"at any rate from \d+ to (\d+)", MAX_RATE),
    (r"to silence (\d+) ms after", 1000 * conceal.CONCEALED_SECONDS),
    (r"arrive, for (\d+) ms", 1000 * reorder.HOLD_SECONDS),
    (r"leaves (\d+) s, for which consent", consent.CONSENT),
    (r"without them; (\d+) by default", RtcConfiguration().gather_timeout),
    (r"not answer within (\d+) s", turn_servers._SECONDS),
    (r"(\d+) by default if `encoding`", fastrtc.DEFAULT_RATE),
    (r"20 ms, at most ([\d.]+) s ahead", paced.CLIENT_LEAD),
    (r"it sends at most ([\d.]+) s ahead", paced.LIVE_LEAD),
    (r"ed25519`, at most (\d+) minutes", telephone_proof.TELNYX_SECONDS / 60),
    (r"present it within (\d+) minutes", signatures.TOKEN_SECONDS / 60),
    (r"is sent at most ([\d.]+) s ahead", phone.PHONE_LEAD),
    (r"a mark after every ([\d.]+) s", phone.MARK_SECONDS),
    (r"takes more than (\d+) s is ignored", phone.OVERDUE_SECONDS),
    (r"begins ([\d.]+) s \(`pre_roll_s`\)", machine.PRE_ROLL_S),
    (r"is (\d+) dB \(`background_db`\)", foreground.BACKGROUND_DB),
    (r"arrived for ([\d.]+) s while", gaps.GRACE_S),
    (r"is (\d+) s of silence in one gap", gaps.LONGEST_GAP_S),
    (r"that has not answered within (\d+) s, or", _survey._SECONDS),
    (r"takes longer than (\d+) s \| the reply is", interruptions.UNDECIDED_S),
    (r"for this for at most (one) second", replies.UNWINDING_S),
    (r"for (\d+) s, and only from clients", replies.INPUTS_S),
    (r"fails after (an hour)", pytest_plugin._LIMIT / 3600),
    (r"more than (\d+) s of real time fails", THREAD_LIMIT),
]
WORDS = {"one": 1.0, "an hour": 1.0}


@pytest.mark.parametrize(("pattern", "value"), NUMBERS)
def test_number_is_that_of_the_code(pattern: str, value: float) -> None:
    """One sentence of all pages matches the pattern."""
    text = " ".join(" ".join(prose(read(page)).split()) for page in PAGES if page != HISTORY)
    found = [WORDS.get(number) or float(number) for number in re.findall(pattern, text)]
    assert found == [pytest.approx(value)], pattern


def test_size_of_the_page() -> None:
    (kilobytes,) = re.findall(r"one document of about (\d+) kB", read("docs/guides/page.md"))
    assert len(page_document().encode()) / 1000 == pytest.approx(int(kilobytes), abs=3)


ROWS = {
    "latency of an echo, 10 calls": ("echo", "10 calls", "p50 ms"),
    "the same, 10 s after a lost packet": ("recovery", "one lost packet", "after ms"),
    "CPU of an echo call, of 10": ("echo", "10 calls", "CPU % of a call"),
    "echo calls on one core": ("capacity", "capacity", "calls"),
    "CPU of a silent conversation, of 4": ("replies", "idle, 4 calls", "CPU % of a call"),
    "from the offer to the first audio": ("connections", "200 connections", "first audio ms"),
    "CPU time of connecting": ("connections", "200 connections", "CPU ms a connection"),
    "memory of a call": ("connections", "200 connections", "MB a call"),
    "import": ("imports", "import", "s"),
}
"""Rows of the README's comparison: the suite, the condition and the column of the measurement."""


def test_comparison_has_the_measured_figures() -> None:
    cells = [line.strip("| ").split(" | ") for line in read("README.md").splitlines()]
    compared = {row[0]: row[1:] for row in cells if len(row) == 3 and row[0] in ROWS}
    assert compared.keys() == ROWS.keys()
    for name, place in ROWS.items():
        ours, others = measured(*place)
        for text, value in zip(compared[name], (ours, others), strict=True):
            digits = text.split()[0]
            decimals = len(digits.partition(".")[2])
            assert float(digits) == pytest.approx(value, abs=0.51 * 10**-decimals), name


def measured(suite: str, condition: str, column: str) -> tuple[float, float]:
    """The medians of this package and of FastRTC, from the tables of docs/performance.md."""
    section = read("docs/performance.md").partition(f"### {suite}: ")[2].partition("\n### ")[0]
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in section.splitlines()
        if line.startswith("| ")
    ]
    place = rows[0].index(column) if column in rows[0] else len(rows[0])
    found = {row[1].partition("-")[0]: row[place] for row in reversed(rows) if row[0] == condition}
    return float(found["ours"].split()[0]), float(found["fastrtc"].split()[0])


def test_default_concurrency_limit_is_one() -> None:
    assert Stream(echo, modality="audio").concurrency_limit == 1
    assert Stream(echo, modality="audio", concurrency_limit=None).concurrency_limit is None
