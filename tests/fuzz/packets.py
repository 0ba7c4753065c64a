"""Datagrams to a live call: from a stranger, and from its own client, plain and encrypted."""

from __future__ import annotations

import itertools
import socket
from collections.abc import AsyncGenerator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Any

import anyio
from anyio import to_thread

from fastrtc_anyio import CloseReason, Session
from tests.kit.aiortc_client import AiortcClient
from tests.kit.calls import place_call, wait_ended
from tests.kit.choices import Choices
from tests.kit.datagrams import any_datagram, rtcp, rtp, sctp
from tests.kit.own_words import check_own_words
from tests.kit.waiting import wait_until

from .targets import Target
from .worlds import World, open_world

_ROUND_TRIP = 1.0
"""Seconds for a message and its echo, after which the client's channel counts as broken."""
_ENDS = (CloseReason.PEER_FAILED, CloseReason.HUNG_UP)
"""Ends of a call whose own client broke the protocol, or sent a packet that says goodbye."""
_numbers = itertools.count()


class Line:
    """A live call, which is placed again when a feed has ended it."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.client: AiortcClient
        self.session: Session
        self._up, self._down = anyio.Event(), anyio.Event()

    async def run(self) -> None:
        while True:
            name = f"call {next(_numbers)}"
            async with place_call(self._world.stream, name) as self.client:
                self.session = self._world.stream.session(name)
                await wait_until(lambda: self.client.channel_is_open)
                self._up.set()
                await self._down.wait()
            await wait_ended(self._world.stream, self.session)
            self._down = anyio.Event()

    async def renew(self) -> None:
        """End the call; the next :meth:`wait_up` returns in another one."""
        self._up = anyio.Event()
        self._down.set()
        await self.wait_up()

    async def wait_up(self) -> None:
        with anyio.fail_after(30):
            await self._up.wait()

    async def is_answered(self) -> bool:
        """Send a message, and return whether the handler's answer arrives.

        Datagrams on the same path arrive in their order, so the earlier ones were processed.
        """
        text = f"message {next(_numbers)}"
        self.client.send_message(text)
        with anyio.move_on_after(_ROUND_TRIP), suppress(anyio.EndOfStream):
            while not (await self.client.receive_message()).endswith(text):
                pass
            return True
        return False

    async def hears(self) -> bool:
        """Return whether the session receives audio."""
        before = self.session.statistics().audio_in
        assert before is not None
        with anyio.move_on_after(_ROUND_TRIP):
            while True:
                await anyio.sleep(0.02)
                now = self.session.statistics().audio_in
                if now is not None and now.received > before.received:
                    return True
        return False


@asynccontextmanager
async def open_stranger() -> AsyncGenerator[Target, None]:
    """Datagrams from an address that the call does not know: they change nothing."""
    async with AsyncExitStack() as stack:
        stranger = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        world = await stack.enter_async_context(open_world())
        tasks = await stack.enter_async_context(anyio.create_task_group())
        line = Line(world)
        tasks.start_soon(line.run)

        async def feed(data: bytes) -> None:
            await line.wait_up()
            choices = Choices(data)
            lines = line.client.answer["sdp"].splitlines()
            ports = {int(one.split()[5]) for one in lines if one.startswith("a=candidate:")}
            for _ in range(1 + choices.number(8)):
                datagram = any_datagram(choices)
                for port in ports:
                    stranger.sendto(datagram, ("127.0.0.1", port))
            assert await line.is_answered(), "a stranger's datagram ended a call"
            assert await line.hears()
            world.records.check()

        yield feed
        tasks.cancel_scope.cancel()


@asynccontextmanager
async def open_packets() -> AsyncGenerator[Target, None]:
    """Packets of the call's own client: another call goes on, and this one ends for a reason."""
    async with open_world() as world, anyio.create_task_group() as tasks:
        line, other = Line(world), Line(world)
        tasks.start_soon(line.run)
        tasks.start_soon(other.run)

        async def feed(data: bytes) -> None:
            await line.wait_up()
            await other.wait_up()
            choices = Choices(data)
            session = line.session
            await to_thread.run_sync(line.client.run, _send_packets, line.client, choices)
            alive = await line.is_answered() and session.closed is None
            assert await other.is_answered(), "a client's packet ended another call"
            world.records.check()
            if session.closed is not None:
                assert session.closed.reason in _ENDS, session.closed
                check_own_words(session.closed.message)
            if not alive:  # its data channel is broken, or the whole call
                await line.renew()

        yield feed
        tasks.cancel_scope.cancel()


async def _send_packets(client: AiortcClient, choices: Choices) -> None:
    """Send packets as the client, on its loop."""
    channel: Any = client.pc.sctp
    transport = channel.transport
    own = [sender._ssrc for sender in client.pc.getSenders()]
    for _ in range(1 + choices.number(6)):
        # pylibsrtp does not encrypt everything, and a client that has ended sends nothing.
        with suppress(Exception):
            match choices.number(5):
                case 0:
                    await transport.transport._send(any_datagram(choices))
                case 1:
                    await transport._send_rtp(rtp(choices, *own * 4))
                case 2:
                    await transport._send_rtp(rtcp(choices))
                case 3:
                    tag = channel._remote_verification_tag
                    await transport._send_data(sctp(choices, tag))
                case _:
                    number, kind = choices.pick((1, 9, 65_535)), choices.pick((50, 51, 53, 56, 0))
                    await channel._send(number, kind, choices.take(1 + choices.number(20)))


TARGETS: Mapping[str, Any] = {"stranger": open_stranger, "packets": open_packets}
