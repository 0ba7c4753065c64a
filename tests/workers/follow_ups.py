"""Calls to several processes, and requests about them."""

from __future__ import annotations

import secrets
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import anyio
import httpx
from anyio import to_thread

from fastrtc_anyio._signaling.session_ids import owner_of
from tests.kit.aiortc_client import AiortcClient, open_client
from tests.kit.calls import accept, make_offer, place_call
from tests.kit.waiting import wait_until

from .program import TOKEN


class Cluster(Protocol):
    """Running processes."""

    @property
    def url(self) -> str: ...

    def client(self) -> httpx.AsyncClient:
        """A client that opens a connection for each request, to any process."""
        ...


@dataclass
class Call:
    """A call whose audio is counted."""

    id: str
    client: AiortcClient
    owner: str = ""
    lost: int = 0
    frames: int = 0
    _number: int | None = None

    def count(self, packet: Any) -> None:
        number = packet.sequence_number
        if self._number is not None:
            self.lost += (number - self._number - 1) % 65_536
        self._number = number
        self.frames += 1

    async def hang_up(self) -> None:
        self.client.hang_up()
        await wait_until(self.client.closed.is_set, "the end of the call")


@asynccontextmanager
async def open_calls(cluster: Cluster, count: int) -> AsyncGenerator[list[Call], None]:
    """Open some calls, to any process."""
    async with AsyncExitStack() as stack, cluster.client() as http:
        calls = []
        for _ in range(count):
            webrtc_id = secrets.token_hex(16)
            client = await stack.enter_async_context(
                place_call(cluster.url, webrtc_id, token=TOKEN)
            )
            described = await http.get(f"/sessions/{webrtc_id}")
            owner = owner_of(described.json()["session_id"])
            assert owner is not None
            call = Call(webrtc_id, client, owner)
            _listen(call)
            calls.append(call)
        yield calls


def _listen(call: Call) -> None:
    (receiver,) = [t.receiver for t in call.client.pc.getTransceivers() if t.kind == "audio"]
    one: Any = receiver
    handle = one._handle_rtp_packet

    async def count(packet: Any, arrival_time_ms: int) -> None:
        call.count(packet)
        await handle(packet, arrival_time_ms)

    one._handle_rtp_packet = count


async def follow_up(http: httpx.AsyncClient, call: Call, number: int) -> str:
    """Send a request about a call, and return what is wrong with the response."""
    match number % 4:
        case 0:
            body = {"webrtc_id": call.id, "level": number}
            reply = await http.post("/input_hook", json=body)
        case 1:
            reply = await http.get(f"/sessions/{call.id}")
            if not reply.text.count(f'"{call.owner}.'):
                return f"answered by another process: {reply.text}"
        case 2:
            body = {"type": "ice-candidate", "candidate": {"candidate": "x"}, "webrtc_id": call.id}
            reply = await http.post("/webrtc/offer", json=body)
            # Only the process that has the session sees that it is malformed.
            return "" if reply.status_code == 400 else f"{reply.status_code} {reply.text}"
        case _:
            body = {"type": "offer", "sdp": "v=0\r\n", "webrtc_id": call.id, "restart": True}
            reply = await http.post("/webrtc/offer", json=body)
            # Another process knows no session to restart. This one might, with another offer.
            return "" if reply.status_code in (409, 503) else f"{reply.status_code} {reply.text}"
    return "" if reply.status_code == 200 else f"{reply.status_code} {reply.text}"


async def check_outputs(http: httpx.AsyncClient, call: Call, level: int) -> None:
    """Check that an input comes back as an output: both reach the session."""
    async with http.stream("GET", f"/outputs?webrtc_id={call.id}") as outputs:
        assert outputs.status_code == 200
        await http.post("/input_hook", json={"webrtc_id": call.id, "level": level})
        with anyio.fail_after(10):
            async for line in outputs.aiter_lines():
                if line.startswith("data:") and str(level) in line:
                    return
    raise AssertionError("the stream of outputs has ended")


async def check_whip(http: httpx.AsyncClient) -> None:
    """Check that every request about the resource of a WHIP session reaches it."""
    async with open_client() as client:
        sdp = await to_thread.run_sync(client.run, client.make_offer, None, False, "sendonly")
        headers = {"Content-Type": "application/sdp"}
        reply = await http.post("/whip", content=sdp, headers=headers)
        assert reply.status_code == 201, reply.text
        await accept(client, reply.text)
        resource = httpx.URL(reply.headers["location"]).path
        headers = {"Content-Type": "application/trickle-ice-sdpfrag", "If-Match": "*"}
        section = "a=mid:0\r\na=candidate:1 1 udp 9 127.0.0.1 9 typ host\r\n"
        for _ in range(20):
            patched = await http.patch(resource, content=section, headers=headers)
            assert patched.status_code == 204, patched.text
        assert (await http.delete(resource)).status_code == 200
        assert {(await http.delete(resource)).status_code for _ in range(10)} == {404}


async def check_taken(http: httpx.AsyncClient, call: Call) -> None:
    """Check that no process accepts another offer with the id of a call."""
    async with open_client() as other:
        body = {"type": "offer", "sdp": await make_offer(other), "webrtc_id": call.id}
        for _ in range(10):
            assert (await http.post("/webrtc/offer", json=body)).status_code == 409
