"""The command ``call`` after a lost connection: attempts, pauses, and the report."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import httpx
import numpy as np
import pytest

from fastrtc_anyio._cli import client
from fastrtc_anyio._cli.call import _print_table
from fastrtc_anyio._cli.client import CallOptions
from fastrtc_anyio._cli.remote_stream import CallFailed, RemoteStream
from tests.conftest import anyio_backend as anyio_backend  # virtual time

FULL = CallFailed("full", 503, is_passing=True, retry_after=20)
GONE = CallFailed("gone", is_passing=True)
FORBIDDEN = CallFailed("forbidden", 403)


class Monitor:
    def __init__(self) -> None:
        self.losses: list[str] = []

    def connected(self, seconds: float) -> None: ...

    def progress(self, said: float, heard: float) -> None: ...

    def message(self, text: str) -> None: ...

    def lost(self, text: str) -> None:
        self.losses.append(text)


class Peer:
    async def aclose(self) -> None:
        await anyio.lowlevel.checkpoint()


class Caller(client._Caller):
    """Connects, or fails to, as the test says. The first calls are lost after 3 s."""

    def __init__(self, attempts: list[CallFailed | None], losses: int) -> None:
        options = CallOptions(Path(), 1.0, {}, None)
        unused: Any = None
        self.monitor = Monitor()
        super().__init__(unused, "", unused, np.zeros((1, 1), np.int16), options, self.monitor)
        self.attempts = attempts
        self.losses = losses
        self.times: list[float] = []

    @property
    def pauses(self) -> list[float]:
        return [round(later - earlier, 3) for earlier, later in pairwise(self.times)]

    async def _connect(self) -> Any:
        await anyio.lowlevel.checkpoint()
        self.times.append(anyio.current_time())
        if (error := self.attempts.pop(0)) is not None:
            raise error
        return Peer()

    async def _talk(self, peer: Any) -> Any:
        await anyio.sleep(3)
        self.losses -= 1
        if self.losses >= 0:
            raise client._ConnectionLost("nothing came")
        return {"ended": False}


async def test_report_says_how_often_the_connection_was_lost() -> None:
    caller = Caller([None] * 3, losses=2)
    assert await caller.call() == {"ended": False, "connections_lost": 2}
    text = "the connection is lost: nothing came; calling again"
    assert caller.monitor.losses == [text] * 2


async def test_attempts_have_pauses_and_wait_as_long_as_the_server_asks() -> None:
    caller = Caller([None, GONE, FULL, GONE, None], losses=1)
    assert (await caller.call())["connections_lost"] == 1
    assert caller.pauses == [3.3, 1.0, 20.0, 4.0]


@pytest.mark.parametrize(
    ("attempts", "losses", "text"),
    [
        ([FULL], 0, "^full"),
        ([None, *[GONE] * 4, FULL], 1, "and 5 attempts to call again failed: full"),
        ([None, FORBIDDEN], 1, "^forbidden"),
        ([None] * 4, 4, "the connection was lost 4 times: nothing came"),
    ],
)
async def test_call_fails_after_some_attempts_or_losses(
    attempts: list[CallFailed | None], losses: int, text: str
) -> None:
    caller = Caller(attempts.copy(), losses)
    with pytest.raises(CallFailed, match=text):
        await caller.call()
    assert len(caller.monitor.losses) == min(losses, 3)
    assert not caller.attempts


def test_table_has_the_losses(capsys: pytest.CaptureFixture[str]) -> None:
    _print_table({"connections_lost": 0})
    assert "lost" not in capsys.readouterr().out
    _print_table({"connections_lost": 2})
    assert capsys.readouterr().out == "connection lost      2 times before\n"


@pytest.mark.parametrize(
    ("given", "seconds"), [("7", 7), ("999", 120), ("-1", 0), ("nan", 0), ("Sat, 28 Nov", 0)]
)
async def test_requests_of_a_call(given: str, seconds: float) -> None:
    """Each offer has an id of its own, and the token of the latest answer."""
    offers: list[dict[str, Any]] = []
    refusal = {"meta": {"error": "concurrency_limit_reached", "message": "full"}}

    def answer(request: httpx.Request) -> httpx.Response:
        offers.append(json.loads(request.content))
        if len(offers) == 2:
            return httpx.Response(503, json=refusal, headers={"Retry-After": given})
        return httpx.Response(200, json={"sdp": "answer", "resume_token": f"token {len(offers)}"})

    async with httpx.AsyncClient(transport=httpx.MockTransport(answer)) as http:
        stream = RemoteStream(http, "http://server")
        assert await stream.send_offer("one") == "answer"
        with pytest.raises(CallFailed, match="the server refused the call: 503, full") as caught:
            await stream.send_offer("two")
        assert (caught.value.is_passing, caught.value.retry_after) == (True, seconds)
        await stream.send_offer("three")
    assert [offer.get("resume_token") for offer in offers] == [None, "token 1", "token 1"]
    assert len({offer["webrtc_id"] for offer in offers}) == 3
