"""Sessions of clients with an identity: only their owner reaches them, over every endpoint."""

from __future__ import annotations

import logging
import re
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import anyio
import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import HTTPConnection

from fastrtc_anyio import (
    AdditionalOutputs,
    Context,
    NotAuthenticated,
    RequestLimits,
    Session,
    Stream,
    Textbox,
    UnknownSession,
    get_current_context,
)
from fastrtc_anyio._signaling.requests import IceCandidate
from fastrtc_anyio._wire.events import Start
from fastrtc_anyio.server import admit, require_token
from fastrtc_anyio.server.launch import open_server
from tests.kit.calls import make_stream, only_session, place_call
from tests.kit.handlers import Quiet
from tests.kit.offers import audio, describe
from tests.kit.waiting import wait_until
from tests.kit.websockets import PCM_16K, open_client

# httpx nests async generators to read a body, and closes the outermost only.
pytestmark = pytest.mark.filterwarnings("ignore:Async generator 'http:ResourceWarning")

LINE = "candidate:1 1 udp 1 127.0.0.1 9 typ host"
CANDIDATE = {"candidate": LINE, "sdpMid": "0"}
OFFER = describe(audio("0", "sendrecv", f"a={LINE}"))
MEDIA = "m=audio 9 RTP/AVP 0\r\na=mid:0\r\n"
NEW = f"a=ice-ufrag:efgh\r\na=ice-pwd:{'y' * 22}\r\n"
SDP, TRICKLE = {"Content-Type": "application/sdp"}, "application/trickle-ice-sdpfrag"
OWNER, OTHERS = "ada", ("bo", "guest")
ABOUT_NO_SESSION = {
    *("health/live", "health/ready", "telephone/handler", "telephone/incoming", "webrtc/config"),
    "websocket/offer",
}


async def authenticate(connection: HTTPConnection) -> bool | str:
    """Return the user of a cookie or a header. "guest" is admitted without an identity."""
    await anyio.lowlevel.checkpoint()
    user = connection.cookies.get("user") or connection.headers.get("x-user", "")
    return user == "guest" or (user if user in (OWNER, *OTHERS) else False)


@dataclass
class Server:
    """A server, and one HTTP client for each user."""

    stream: Stream
    url: str
    users: dict[str, httpx.AsyncClient]

    async def begin(self, user: str, name: str, sdp: str = OFFER) -> None:
        body = {"type": "offer", "sdp": sdp, "webrtc_id": name}
        reply = await self.users[user].post("/webrtc/offer", json=body)
        assert reply.status_code == 200, reply.text


@asynccontextmanager
async def serve(stream: Stream) -> AsyncGenerator[Server, None]:
    app = Starlette()
    stream.mount(app)
    users = {name: httpx.AsyncClient(headers={"x-user": name}) for name in (OWNER, "bo", "")}
    users["guest"] = httpx.AsyncClient(cookies={"user": "guest"})
    async with open_server(app) as url:
        for user in users.values():
            user.base_url = url
        try:
            yield Server(stream, url, users)
        finally:
            for user in users.values():
                await user.aclose()


def make(**options: Any) -> Stream:
    return make_stream(
        Quiet,
        authenticate=authenticate,
        additional_inputs=[Textbox("A")],
        additional_outputs=[Textbox("B")],
        request_limits=RequestLimits(early_seconds=0.2),
        **options,
    )


Send = Callable[[httpx.AsyncClient, str], Awaitable[httpx.Response]]


def json_to(path: str, **body: Any) -> Send:
    async def send(http: httpx.AsyncClient, name: str) -> httpx.Response:
        return await http.post(path, json={"webrtc_id": name, **body})

    return send


def resource(method: str, body: str = "") -> Send:
    async def send(http: httpx.AsyncClient, name: str) -> httpx.Response:
        headers = {"If-Match": "*", "Content-Type": TRICKLE} if method == "PATCH" else {}
        return await http.request(method, f"/{name}", content=body, headers=headers)

    return send


async def read_outputs(http: httpx.AsyncClient, name: str) -> httpx.Response:
    async with http.stream("GET", "/outputs", params={"webrtc_id": name}) as reply:
        if reply.status_code != 200:
            await reply.aread()
        return reply


async def describe_session(http: httpx.AsyncClient, name: str) -> httpx.Response:
    return await http.get(f"/sessions/{name}")


def restart(name: str) -> dict[str, str]:
    """An offer with new ICE credentials."""
    sdp = OFFER.replace("a=ice-ufrag:abcd", f"a=ice-ufrag:{name}").replace("x" * 22, name * 6)
    return {"type": "offer", "sdp": sdp}


REQUESTS: list[tuple[str, Send, int, int]] = [
    # route, request, status for the owner, status for others
    ("input_hook", json_to("/input_hook", a="x"), 200, 404),
    ("outputs", read_outputs, 200, 404),
    ("sessions/{session_id}", describe_session, 200, 404),
    ("webrtc/offer", json_to("/webrtc/offer", **restart("efgh")), 200, 409),
    ("webrtc/offer", json_to("/webrtc/offer", **restart("ijkl"), restart=True), 200, 404),
]
RESOURCES: list[tuple[str, Send, int, int]] = [
    ("GET", resource("GET"), 204, 404),
    ("HEAD", resource("HEAD"), 204, 404),
    ("PATCH", resource("PATCH", f"{MEDIA}a={LINE}\r\n"), 204, 404),
    ("PATCH", resource("PATCH", f"{NEW}{MEDIA}a={LINE}\r\n"), 200, 404),
    ("DELETE", resource("DELETE"), 200, 404),
]


async def test_requests_of_other_identities_find_no_session() -> None:
    """The matrix of endpoints and clients: the owner, another one, a guest, and a stranger."""
    stream = make()
    async with serve(stream) as server:
        await server.begin(OWNER, "hers")
        routes = {"webrtc/offer"}
        for route, send, right, wrong in REQUESTS:
            routes.add(route)
            for user, status in [*((other, wrong) for other in OTHERS), ("", 401), (OWNER, right)]:
                reply = await send(server.users[user], "hers")
                assert reply.status_code == status, (route, user, reply.text)
        for protocol, direction in (("whip", "sendonly"), ("whep", "recvonly")):
            sdp = describe(audio("0", direction, f"a={LINE}"))
            made = await server.users[OWNER].post(f"/{protocol}", content=sdp, headers=SDP)
            assert made.status_code == 201, made.text
            routes |= {protocol, f"{protocol}/{{session}}"}
            for method, send, right, wrong in RESOURCES:
                for user, status in [*((o, wrong) for o in OTHERS), ("", 401), (OWNER, right)]:
                    reply = await send(server.users[user], made.headers["location"])
                    assert reply.status_code == status, (protocol, method, user)
    app = Starlette()
    stream.mount(app)
    mounted = {getattr(route, "path", "").removeprefix("/") for route in app.routes}
    assert mounted == routes | ABOUT_NO_SESSION, "add a new endpoint to one of the lists"


async def test_refusals_do_not_tell_foreign_session_from_unknown_one() -> None:
    """The responses are equal but for the id itself."""
    async with serve(make()) as server:
        await server.begin(OWNER, "hers")
        sends = [send for _, send, _, wrong in REQUESTS if wrong == 404]
        sends.append(json_to("/webrtc/offer", type="ice-candidate", candidate=CANDIDATE))
        sends.append(json_to("/webrtc/offer", type="ice-candidate", candidate=None))
        for send in sends:
            replies = [await send(server.users["bo"], name) for name in ("hers", "none")]
            assert replies[0].status_code == replies[1].status_code
            assert replies[0].text.replace("hers", "none") == replies[1].text


async def test_candidates_of_other_identities_do_not_reach_the_session(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Neither after the offer nor before it."""
    from fastrtc_anyio._peers.webrtc import WebRTCPeer

    reached: list[IceCandidate | None] = []

    async def add(_peer: WebRTCPeer, candidate: IceCandidate | None) -> None:
        await anyio.lowlevel.checkpoint()
        reached.append(candidate)

    monkeypatch.setattr(WebRTCPeer, "add_ice_candidate", add)
    stream = make()
    stream._service._offers._early._limits = RequestLimits()  # keep early candidates for longer
    async with serve(stream) as server:

        async def trickle(user: str) -> None:
            candidate = {**CANDIDATE, "usernameFragment": user}
            body = {"type": "ice-candidate", "candidate": candidate, "webrtc_id": "hers"}
            reply = await server.users[user].post("/webrtc/offer", json=body)
            assert (reply.status_code, reply.json()) == (200, {"status": "success"})

        for user in ("bo", OWNER, "guest"):
            await trickle(user)
        assert reached == []
        await server.begin(OWNER, "hers")
        for user in ("bo", OWNER, "guest"):
            await trickle(user)
    assert [candidate and candidate.username_fragment for candidate in reached] == [OWNER] * 2


async def test_waiting_readers_of_other_identities_get_no_outputs() -> None:
    stream = make()
    readers = stream._service.early_readers
    readers._limits = RequestLimits(early_seconds=1)
    statuses: dict[str, int] = {}

    async def read(user: str) -> None:
        statuses[user] = (await read_outputs(server.users[user], "hers")).status_code

    async with serve(stream) as server, anyio.create_task_group() as tg:
        for user in (OWNER, *OTHERS):
            tg.start_soon(read, user)
        await wait_until(lambda: len(readers) == 3)
        await server.begin(OWNER, "hers")
        await wait_until(lambda: len(statuses) == 3)
    assert statuses == {OWNER: 200, "bo": 404, "guest": 404}


async def test_sessions_of_guests_are_shared_by_guests_only() -> None:
    """A client without an identity reaches the sessions of such clients, as without identities."""
    async with serve(make()) as server:
        await server.begin("guest", "theirs")
        for user, status in (("guest", 200), (OWNER, 404), ("bo", 404)):
            reply = await json_to("/input_hook", a="x")(server.users[user], "theirs")
            assert reply.status_code == status, user


async def test_websocket_session_belongs_to_its_identity() -> None:
    """A logged-in user of a page: the cookie is the same on the WebSocket and in requests."""
    stream = make()
    async with serve(stream) as server:
        headers = {"Cookie": f"user={OWNER}"}
        async with open_client(server.url, Start("hers", PCM_16K), headers=headers):
            await wait_until(lambda: "hers" in stream.handlers)
            for user, status in (("bo", 404), ("guest", 404), (OWNER, 200)):
                reply = await json_to("/input_hook", a="x")(server.users[user], "hers")
                assert reply.status_code == status, user
            candidate = json_to("/webrtc/offer", type="ice-candidate", candidate=CANDIDATE)
            # For others it is a candidate before its offer, for the owner one of a WebSocket.
            assert (await candidate(server.users["bo"], "hers")).status_code == 200
            assert (await candidate(server.users[OWNER], "hers")).status_code == 409
            with pytest.raises(UnknownSession):
                stream.set_input("hers", 1, identity="bo")
            stream.set_input("hers", 1)  # the application reaches every session
            stream.set_input("hers", 1, identity=OWNER)


async def test_handler_finds_identity_and_application_restricts_its_methods() -> None:
    contexts: list[Context] = []

    async def serve_session(session: Session) -> None:
        contexts.append(get_current_context())
        session.send_outputs(AdditionalOutputs(session.identity))
        await anyio.sleep_forever()

    async with make_stream(serve_session) as stream:
        offer = stream.offer

        async def offer_as_owner(body: object, **_: Any) -> dict[str, str]:
            return await offer(body, identity=OWNER)

        stream.offer = offer_as_owner  # type: ignore[method-assign]
        async with place_call(stream, "hers"):
            await wait_until(lambda: contexts)
            assert contexts == [Context("hers", only_session(stream), None, OWNER)]
            for identity in ("bo", ""):
                with pytest.raises(UnknownSession):
                    await stream.fetch_latest_output("hers", identity=identity)
                with pytest.raises(UnknownSession):
                    stream.trigger_response("hers", identity=identity)
                with pytest.raises(UnknownSession):
                    stream.update_connection("hers", "closed", identity=identity)
            for allowed in (OWNER, None):
                latest = await stream.fetch_latest_output("hers", identity=allowed)
                assert latest.args == (OWNER,)
            async with stream.open_outputs("hers", identity=OWNER) as reader:
                assert (await anext(reader)).args == (OWNER,)
            stream.update_connection("hers", "closed", identity=OWNER)


def connection(authorization: str) -> HTTPConnection:
    headers = [(b"authorization", authorization.encode())]
    return HTTPConnection({"type": "http", "headers": headers, "method": "GET", "path": "/"})


async def test_require_token_returns_identity_of_the_token() -> None:
    @dataclass
    class Rules:
        authenticate: Any
        allowed_origins: tuple[str, ...] = ()

    named = Rules(require_token({"first": "ada", "second": "bo", "third": "ada"}))
    for token, identity in (("first", "ada"), ("second", "bo"), ("third", "ada")):
        assert await admit(named, connection(f"Bearer {token}")) == identity
    for wrong in ("Bearer ada", "Bearer fourth", "Basic first", "Bearer "):
        with pytest.raises(NotAuthenticated):
            await admit(named, connection(wrong))
    assert await admit(Rules(require_token("first")), connection("Bearer first")) == ""
    assert await admit(Rules(None), connection("")) == ""


@pytest.mark.parametrize(
    ("tokens", "error"),
    [
        ((), ValueError),
        (("",), ValueError),
        (({},), ValueError),
        (({"a": ""},), ValueError),
        (({"": "a"},), ValueError),
        (({"a": True},), TypeError),
        (({"a": 1},), TypeError),
        (({1: "a"},), TypeError),
        (({"a": "b"}, {"c": "d"}), TypeError),
        (("a", {"c": "d"}), TypeError),
    ],
)
def test_require_token_rejects_unsuitable_tokens(tokens: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="require_token"):
        require_token(*tokens)


async def test_ids_that_can_be_guessed_log_one_warning(caplog: pytest.LogCaptureFixture) -> None:
    """FastRTC's client makes ids of about 30 bits. The built-in page's have 128."""

    def warnings() -> list[str]:
        return [text for text in caplog.messages if "webrtc_id" in text]

    caplog.set_level(logging.WARNING, "fastrtc_anyio")
    async with make_stream(Quiet) as stream:
        for number, name in enumerate(("0f" * 16, "5f2k9a", "abcdef1")):
            body = {"type": "offer", "sdp": OFFER, "webrtc_id": name}
            await stream.offer(body)
            assert len(warnings()) == min(number, 1)
    (text,) = warnings()
    assert re.search(r"at most 31 bits.*at least 64.*authenticate\(\)", text)
    assert "5f2k9a" not in text
    caplog.clear()
    async with make_stream(Quiet) as stream:
        await stream.offer({"type": "offer", "sdp": OFFER, "webrtc_id": "me"}, identity=OWNER)
        await stream.offer({"type": "offer", "sdp": OFFER})
    assert warnings() == []
