"""Tokens with which clients continue a session, over HTTP: who receives and who may use them."""

from __future__ import annotations

import json
import logging
import secrets

import httpx
import pytest
from starlette.applications import Starlette

from fastrtc_anyio import CloseReason, Resumed
from fastrtc_anyio.server.launch import open_server
from tests.kit.calls import make_stream, only_session
from tests.kit.handlers import Quiet
from tests.kit.waiting import wait_until

from .test_ownership import OFFER, SDP, authenticate

# httpx nests async generators to read a body, and closes the outermost only.
pytestmark = pytest.mark.filterwarnings("ignore:Async generator 'http:ResourceWarning")
SECRET = "the conversation so far"


def offer(token: object = None) -> dict[str, object]:
    named = {} if token is None else {"resume_token": token}
    return {"type": "offer", "sdp": OFFER, "webrtc_id": secrets.token_hex(16), **named}


async def test_only_the_client_of_a_session_continues_it(caplog: pytest.LogCaptureFixture) -> None:
    stream = make_stream(Quiet, authenticate=authenticate)
    app = Starlette()
    stream.mount(app)
    caplog.set_level(logging.DEBUG)
    ada, bo = {"x-user": "ada"}, {"x-user": "bo"}
    async with open_server(app) as url, httpx.AsyncClient(base_url=url) as http:

        async def call(user: dict[str, str], token: object = None) -> httpx.Response:
            return await http.post("/webrtc/offer", json=offer(token), headers=user)

        answer = await call(ada)
        token = answer.json()["resume_token"]
        assert len(token) >= 43, "256 random bits"
        first = only_session(stream)
        await first.save(SECRET)
        assert SECRET not in json.dumps(stream.describe(first.id))
        assert token not in json.dumps(stream.describe(first.id))
        first.close(CloseReason.VANISHED)
        await wait_until(lambda: not stream.sessions)
        assert (await call({}, token)).status_code == 401
        assert (await call(ada, [token])).status_code == 400
        other = await call(bo, token)
        assert other.json()["resume_token"] != token
        session = only_session(stream)
        assert session.resumed_from is None
        session.close(CloseReason.HUNG_UP)
        await wait_until(lambda: not stream.sessions)
        assert (await call(ada, token)).status_code == 200
        assert only_session(stream).resumed_from == Resumed(first.id, SECRET)
    assert token not in caplog.text
    assert SECRET not in caplog.text


async def test_whip_has_no_token() -> None:
    stream = make_stream(Quiet)
    app = Starlette()
    stream.mount(app)
    async with open_server(app) as url, httpx.AsyncClient(base_url=url) as http:
        answer = await http.post("/whip", content=OFFER, headers=SDP)
        assert answer.status_code == 201
        assert "token" not in str(answer.headers) + answer.text
        await only_session(stream).save(SECRET)
        assert only_session(stream).saved is None
