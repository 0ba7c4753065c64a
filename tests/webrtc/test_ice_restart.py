"""ICE restarts: the call goes on over another path, and its handler does not notice."""

from __future__ import annotations

import re
from typing import Any

import anyio
import pytest
from anyio import to_thread

from fastrtc_anyio import InvalidOffer, InvalidStateError, RequestLimits, Stream
from fastrtc_anyio._peers.webrtc import WebRTCPeer
from fastrtc_anyio.errors import LimitExceeded, UnknownSession
from tests.kit.aiortc_client import AiortcClient, open_client
from tests.kit.calls import make_offer, make_stream, only_session, place_call
from tests.kit.handlers import AsyncEcho
from tests.kit.network import open_network
from tests.kit.waiting import wait_until


async def offer_restart(client: AiortcClient) -> str:
    return await to_thread.run_sync(client.run, client.offer_restart)


async def send(stream: Stream, sdp: str, **more: Any) -> dict[str, Any]:
    (session,) = stream.sessions.values()
    return await stream.offer({"type": "offer", "sdp": sdp, "webrtc_id": session.alias, **more})


async def hears(client: AiortcClient) -> None:
    """Wait for sound that arrives from now on."""
    while not client.heard.empty():
        client.heard.get()
    await wait_until(lambda: client.heard.qsize() > 10, "sound")


def credentials(sdp: str) -> set[str]:
    return set(re.findall(r"a=ice-(?:ufrag|pwd):(\S+)", sdp))


async def test_call_continues_over_the_path_of_a_restart() -> None:
    with open_network() as network:
        stream = make_stream(AsyncEcho)
        async with stream, place_call(stream, network=network) as client:
            session = only_session(stream)
            handler = session.driver.handler
            await hears(client)
            answers = [client.answer["sdp"]]
            for _ in range(2):
                network.outage = True  # for the old path; the client's new one is direct
                answer = await send(stream, await offer_restart(client))
                await to_thread.run_sync(client.run, client.accept_restart, answer["sdp"])
                answers.append(answer["sdp"])
                client.send_message("still here")
                await hears(client)
            versions = [int(sdp.split("o=- ")[1].split()[1]) for sdp in answers]
            assert versions == [versions[0], versions[0] + 1, versions[0] + 2]
            assert not credentials(answers[0]) & credentials(answers[1])
            kept = [re.sub(r"a=ice-.*|o=.*", "", sdp) for sdp in answers]
            assert kept[0] == kept[1] == kept[2]
            assert only_session(stream) is session
            assert session.driver.handler is handler
            assert session.statistics().messages.received == 2


async def test_unfinished_restarts_leave_the_call_as_it_is() -> None:
    stream = make_stream(AsyncEcho, request_limits=RequestLimits(restarts=3))
    async with stream, place_call(stream) as client:
        sdp = await offer_restart(client)
        sdp = re.sub(r"a=candidate.*\r\n", "", sdp)
        for number in range(3):  # the client never uses any
            await send(
                stream,
                sdp.replace("a=ice-ufrag:", f"a=ice-ufrag:{number}").replace(
                    "a=ice-pwd:", f"a=ice-pwd:{number}"
                ),
            )
            await hears(client)
        with pytest.raises(LimitExceeded, match="3 times a minute") as caught:
            await send(stream, sdp)
        assert caught.value.status_hint == 429
        await hears(client)


async def test_offer_that_does_not_restart_its_session_is_refused() -> None:
    stream = make_stream(AsyncEcho)
    async with stream, place_call(stream) as client:
        sdp = await offer_restart(client)
        other = re.sub(r"(a=fingerprint:sha-256 )..", r"\1AA", sdp)
        same = client.pc.localDescription.sdp  # its credentials are not new
        for refused in (other, same):
            with pytest.raises(InvalidStateError, match="is in use"):
                await send(stream, refused)
        changes = {
            "must be sendrecv; got recvonly": sdp.replace("a=sendrecv", "a=recvonly"),
            "must have 2 sections; got 3": sdp + "m=audio 9 RTP/AVP 0\r\na=mid:9\r\n",
            "must have opus as payload type 96": sdp.replace("opus/48000", "L16/48000"),
        }
        for text, changed in changes.items():
            with pytest.raises(InvalidOffer, match=text):
                await send(stream, changed)
        with pytest.raises(UnknownSession):
            await stream.offer(
                {"type": "offer", "sdp": sdp, "webrtc_id": "another", "restart": True}
            )
        assert len(stream.sessions) == 1
        await hears(client)


async def test_restart_connects_a_call_that_has_not_connected_yet() -> None:
    stream = make_stream(AsyncEcho)
    async with stream, open_client() as client:
        body = {"type": "offer", "webrtc_id": "x", "sdp": await make_offer(client)}
        await stream.offer(body)  # the client never uses this answer
        answer = await stream.offer(body | {"sdp": await offer_restart(client)})
        await to_thread.run_sync(client.run, client.connect_restart, answer["sdp"])
        peer = only_session(stream).peer
        assert isinstance(peer, WebRTCPeer)

        async def is_connected() -> bool:
            pc = peer._connection._pc
            return pc is not None and pc.iceConnectionState == "completed"

        with anyio.fail_after(10):
            while not await peer._portal.call(is_connected):
                await anyio.sleep(0.02)
