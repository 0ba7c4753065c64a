"""Offers of many clients: each is answered in the client's form, or refused with a reason."""

from __future__ import annotations

import asyncio
import logging
import os
import re
from contextlib import AsyncExitStack
from typing import Any

import anyio
import pytest

from fastrtc_anyio import CloseReason, InvalidOffer, Session, Stream
from fastrtc_anyio._peers.portal import open_portal
from fastrtc_anyio.errors import LimitExceeded
from tests.kit.calls import make_stream
from tests.kit.jsep import check_answer
from tests.kit.offer_corpus import OFFERS
from tests.kit.offers import Offer, mutate
from tests.kit.waiting import POLL, SECONDS, wait_until

MUTATIONS = int(os.environ.get("FASTRTC_MUTATED_OFFERS", "60"))
_FOREIGN = re.compile(
    r"aiortc|None|object|attribute |Error|Exception|assert|Traceback|invalid literal|unpack|index "
    r"|expected|<class|level DEBUG"
)
"""Words of Python and of aiortc, and of a refusal by aiortc."""
_PLACE = re.compile(
    r"^line \d+: |section \d+ \((audio|video|application), (mid .+|no mid)\) "
    r"|^the offer has (no (audio|video) section|\d+ (lines|sections))"
    r"|^a=(mid|group)|^a session description must begin"
)
"""The line or the section that an error names."""


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
    refused: dict[int, str] = {}
    async with open_portal() as portal, AsyncExitStack() as stack:
        before = await portal.call(count_tasks)
        streams = Streams(stack)
        valid = [offer for offer in OFFERS.values() if isinstance(offer.answer, tuple)]
        for seed in range(MUTATIONS):
            offer = mutate(valid, seed)
            try:
                check_answer(offer.sdp, await streams.answer(offer))
            except (InvalidOffer, LimitExceeded) as exc:
                refused[seed] = str(exc)
            if seed % 30 == 0:
                await streams.hang_up()
        await streams.hang_up()
        with anyio.fail_after(SECONDS):
            while await portal.call(count_tasks) > before:
                await anyio.sleep(POLL)
    assert 0.05 < len(refused) / MUTATIONS < 0.95
    assert {s: t for s, t in refused.items() if _FOREIGN.search(t) or not _PLACE.search(t)} == {}
    assert [r for r in caplog.records if r.levelno > logging.WARNING] == []


async def count_tasks() -> int:
    return len(asyncio.all_tasks())
