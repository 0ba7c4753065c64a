"""Offers of many clients: each is answered in the client's form, or refused with a reason."""

from __future__ import annotations

import logging
import os
import re
from contextlib import AsyncExitStack
from typing import Any

import anyio
import pytest

from fastrtc_anyio import CloseReason, InvalidOffer, Session, Stream
from fastrtc_anyio.errors import LimitExceeded
from tests.kit.calls import make_stream
from tests.kit.offers import DIRECTIONS, OFFERS, Offer, mutate
from tests.kit.waiting import wait_until

MUTATIONS = int(os.environ.get("FASTRTC_MUTATED_OFFERS", "60"))
_FOREIGN = re.compile(
    r"NoneType|has no attribute|Error\b|Traceback|invalid literal|unpack|<class|level DEBUG"
)
"""Words of Python, and of a refusal by aiortc."""


class Streams:
    """One open stream for each modality and mode."""

    def __init__(self, stack: AsyncExitStack) -> None:
        self._stack = stack
        self._open: dict[tuple[str, str], Stream] = {}

    async def answer(self, offer: Offer) -> str:
        key = offer.modality, offer.mode
        if key not in self._open:
            options: Any = {"modality": offer.modality, "mode": offer.mode}
            self._open[key] = await self._stack.enter_async_context(make_stream(idle, **options))
        answer: str = (await self._open[key].offer({"type": "offer", "sdp": offer.sdp}))["sdp"]
        return answer

    async def hang_up(self) -> None:
        for stream in self._open.values():
            for session in list(stream.sessions.values()):
                session.close(CloseReason.HUNG_UP)
        await wait_until(lambda: not any(s.sessions for s in self._open.values()), "the end")


async def idle(session: Session) -> None:
    await anyio.sleep_forever()


def split(sdp: str) -> tuple[list[str], list[list[str]]]:
    lines = sdp.splitlines()
    starts = [i for i, line in enumerate(lines) if line.startswith("m=")]
    ends = [*starts[1:], len(lines)]
    return lines[: starts[0]], [lines[i:j] for i, j in zip(starts, ends, strict=True)]


def check_answer(offer: str, answer: str) -> tuple[str, ...]:
    """Check an answer against RFC 8829 5.3 and RFC 9143, and return the use of each section."""
    head, sections = split(answer)
    offered = split(offer)[1]
    assert len(sections) == len(offered)
    bundled = [line.split()[1:] for line in head if line.startswith("a=group:BUNDLE")]
    used = []
    for theirs, ours in zip(offered, sections, strict=True):
        wanted, media = theirs[0].split(), ours[0].split()
        assert (media[0], media[2]) == (wanted[0], wanted[2])
        assert set(media[3:]) <= set(wanted[3:])
        mid = next((line[6:].strip() for line in theirs if line.startswith("a=mid:")), None)
        mids = [line[6:] for line in ours if line.startswith("a=mid:")]
        assert mids == ([] if mid is None else [mid])
        if media[1] == "0":
            assert not any(mid in group for group in bundled)
            used.append("rejected")
            continue
        names = [line.partition(":")[0] for line in ours]
        for name in ("a=ice-ufrag", "a=ice-pwd", "a=fingerprint", "a=setup"):
            assert name in names, f"{name} is missing"
        assert ("a=setup:active" in ours) != ("a=setup:passive" in ours)
        given = [line[2:] for line in ours if line[2:] in DIRECTIONS]
        used.append(given[0] if media[0] != "m=application" else "application")
    return tuple(used)


async def test_each_offer_is_answered_in_its_form_or_refused_with_the_reason() -> None:
    failed: dict[str, object] = {}
    async with AsyncExitStack() as stack:
        streams = Streams(stack)
        for name, offer in OFFERS.items():
            try:
                answer = await streams.answer(offer)
                found: object = check_answer(offer.sdp, answer)
                if found != offer.answer:
                    failed[name] = found
            except AssertionError as exc:
                failed[name] = f"the answer is invalid: {exc}"
            except InvalidOffer as exc:
                if isinstance(offer.answer, tuple) or not re.search(offer.answer, str(exc)):
                    failed[name] = str(exc)
        await streams.hang_up()
    assert failed == {}
    assert len(OFFERS) >= 40


async def test_broken_offers_are_answered_or_refused_in_our_words(
    caplog: pytest.LogCaptureFixture,
) -> None:
    refused = 0
    async with AsyncExitStack() as stack:
        streams = Streams(stack)
        for seed in range(MUTATIONS):
            offer = mutate(seed)
            try:
                answer = await streams.answer(offer)
            except (InvalidOffer, LimitExceeded) as exc:
                text = str(exc)
            else:
                check_answer(offer.sdp, answer)
                continue
            refused += 1
            assert not _FOREIGN.search(text), f"seed {seed}: {text}"
            assert re.search(r"line|section|a=|sdp", text), f"seed {seed}: {text}"
            if refused % 30 == 0:
                await streams.hang_up()
        await streams.hang_up()
    assert 0.05 < refused / MUTATIONS < 0.95
    assert [r for r in caplog.records if r.levelno > logging.WARNING] == []
