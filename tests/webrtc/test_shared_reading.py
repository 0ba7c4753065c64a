"""UDP sockets that are read together at the ticks of a loop, on the loopback interface."""

from __future__ import annotations

import asyncio
import errno
import os
import selectors
import socket
from collections.abc import AsyncGenerator, Coroutine
from contextlib import asynccontextmanager
from contextvars import ContextVar
from typing import Any, cast

import pytest

from fastrtc_anyio._peers.webrtc.sockets import SharedReading, UdpTransport, open_socket
from fastrtc_anyio._peers.webrtc.ticks import PERIOD, Registration

HOST = "127.0.0.1"


def run(main: Coroutine[Any, Any, None]) -> None:
    with asyncio.Runner() as runner:
        runner.run(asyncio.wait_for(main, 20))


class Receiver(asyncio.DatagramProtocol):
    """Records what a socket receives, and when it is lost."""

    def __init__(self) -> None:
        self.made: Any = None
        self.received: list[tuple[bytes, Any]] = []
        self.errors: list[Exception] = []
        self.lost: list[Exception | None] = []
        self.changed = asyncio.Condition()

    def connection_made(self, transport: Any) -> None:
        self.made = transport

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self.received.append((data, addr))

    def error_received(self, exc: Exception) -> None:
        self.errors.append(exc)

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.append(exc)

    async def wait(self, number: int) -> None:
        while len(self.received) < number:
            await asyncio.sleep(0.001)


class Line:
    """A socket with a sender to it."""

    def __init__(self, receiver: Receiver | None = None, host: str = HOST) -> None:
        self.receiver = receiver or Receiver()
        self.loop = asyncio.get_running_loop()
        transport, protocol = open_socket(self.loop, lambda: self.receiver, (host, 0))
        assert protocol is self.receiver is not None
        assert self.receiver.made is transport
        self.transport = cast(UdpTransport, transport)
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.sender = socket.socket(family, socket.SOCK_DGRAM)
        self.sender.bind((host, 0))
        self.address = self.transport.get_extra_info("sockname")

    def send(self, *data: bytes) -> None:
        for one in data:
            self.sender.sendto(one, self.address)

    def is_shared(self) -> bool:
        selector = SharedReading.of(self.loop)._selector
        sock = self.transport.get_extra_info("socket")
        return selector is not None and sock in selector.get_map()

    async def share(self) -> None:
        """Have the socket read at ticks."""
        self.transport.read_at_ticks()
        self.send(b"first")
        await self.receiver.wait(1)
        assert self.is_shared()

    def close(self) -> None:
        self.transport.close()
        self.sender.close()


@asynccontextmanager
async def lines(*receivers: Receiver | None, host: str = HOST) -> AsyncGenerator[list[Line], None]:
    before = open_files()
    opened = [Line(one, host) for one in receivers]
    try:
        yield opened
    finally:
        for line in opened:
            line.close()
    assert open_files() <= before
    await asyncio.sleep(0)
    assert [len(line.receiver.lost) for line in opened] == [1] * len(opened)


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.parametrize("host", [HOST, "::1"])
@pytest.mark.parametrize("at_ticks", [False, True])
def test_datagrams_arrive_in_order_and_leave(host: str, at_ticks: bool) -> None:
    async def main() -> None:
        async with lines(None, host=host) as (line,):
            if at_ticks:
                await line.share()
            data = [bytes([number]) * 1500 for number in range(20)]
            line.send(*data)
            await line.receiver.wait(len(data) + at_ticks)
            assert [one for one, _ in line.receiver.received[at_ticks:]] == data
            source = line.receiver.received[0][1]
            assert source == line.sender.getsockname()
            line.transport.sendto(b"back", source[:2])
            line.sender.settimeout(5)
            assert line.sender.recv(10) == b"back"

    run(main())


def test_address_in_use_is_an_error_without_a_leak() -> None:
    async def main() -> None:
        async with lines(None) as (line,):
            before = open_files()
            for address in (line.address, ("192.0.2.1", 0)):
                with pytest.raises(OSError, match=r"Cannot assign|in use") as caught:
                    open_socket(asyncio.get_running_loop(), Receiver, address)
                assert caught.value.errno in (errno.EADDRINUSE, errno.EADDRNOTAVAIL)
            assert open_files() == before

    run(main())


def test_sockets_are_read_in_turns_and_a_flood_waits_for_the_next_tick(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("fastrtc_anyio._peers.webrtc.sockets._ROUNDS", 5)

    async def main() -> None:
        async with lines(None, None) as (flooded, other):
            for line in (flooded, other):
                await line.share()
            shared = SharedReading.of(asyncio.get_running_loop())
            flooded.send(*[b"flood"] * 12)
            other.send(b"a", b"b")
            counts = []
            for _ in range(3):  # without a pass of the loop between them
                shared._read()
                counts.append([len(line.receiver.received) - 1 for line in (flooded, other)])
            assert counts == [[5, 2], [10, 2], [12, 2]]

    run(main())


def test_silent_socket_is_read_by_events_until_the_next_datagram() -> None:
    async def main() -> None:
        async with lines(None, None) as (line, other):
            for one in (line, other):
                await one.share()
            shared = SharedReading.of(asyncio.get_running_loop())
            for _ in range(250):
                other.send(b"again")
                shared._read()
            assert not line.is_shared()
            assert other.is_shared()
            line.send(b"second")
            await line.receiver.wait(2)
            assert line.is_shared()

    run(main())


def test_last_shared_socket_stops_the_ticks() -> None:
    registrations: list[Registration] = []

    async def main() -> None:
        async with lines(None, None) as opened:
            shared = SharedReading.of(asyncio.get_running_loop())
            for line in opened:
                await line.share()
            registration = shared._registration
            assert registration is not None
            opened[0].close()
            assert registration.active
            opened[1].close()
            assert shared._selector is None
            registrations.append(registration)

    run(main())
    assert not registrations[0].active


def test_close_within_a_datagram_ends_reading() -> None:
    class Closing(Receiver):
        def datagram_received(self, data: bytes, addr: Any) -> None:
            super().datagram_received(data, addr)
            if data == b"close":
                for line in opened:
                    line.transport.close()

    opened: list[Line] = []

    async def main() -> None:
        async with lines(Closing(), None) as found:
            opened.extend(found)
            for line in opened:
                await line.share()
            opened[0].send(b"close", b"late")
            opened[1].send(b"late", b"late")
            SharedReading.of(asyncio.get_running_loop())._read()
            assert [len(line.receiver.received) for line in opened] in ([2, 1], [2, 2])
            for line in opened:
                assert line.transport.is_closing()
                line.transport.sendto(b"after", line.sender.getsockname())
                assert line.receiver.lost == []  # it is called later, as by asyncio

    run(main())


owner: ContextVar[str] = ContextVar("owner")


@pytest.mark.parametrize("at_ticks", [False, True])
@pytest.mark.parametrize("error", [ValueError("injected"), SystemExit(3)])
def test_failure_of_a_protocol_ends_its_socket_alone(at_ticks: bool, error: Any) -> None:
    class Failing(Receiver):
        def datagram_received(self, data: bytes, addr: Any) -> None:
            if data == b"bad":
                raise error
            super().datagram_received(data, addr)

    reported: list[Any] = []

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(
            lambda _, details: reported.append((details["exception"], owner.get("none")))
        )
        token = owner.set("failing")
        bad = Line(Failing())
        owner.reset(token)
        async with lines(None) as (good,):
            if at_ticks:
                await good.share()
                await bad.share()
            bad.send(b"bad", b"more")
            while not bad.receiver.lost:
                await asyncio.sleep(0.001)
            good.send(b"still read")
            await good.receiver.wait(1 + at_ticks)
            assert good.is_shared() == at_ticks
        bad.close()
        assert reported == [(error, "failing")]
        assert len(bad.receiver.received) == at_ticks

    run(main())


def test_fault_of_shared_reading_leaves_sockets_that_are_read_by_events(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def main() -> None:
        async with lines(None, None) as opened:
            for line in opened:
                await line.share()
            shared = SharedReading.of(asyncio.get_running_loop())
            monkeypatch.setattr(shared._selector, "select", fail)
            while shared._selector is not None:
                await asyncio.sleep(PERIOD)
            for line in opened:
                line.send(b"next")
                await line.receiver.wait(2)

    def fail(*args: Any) -> Any:
        raise RuntimeError("injected")

    run(main())


class Full:
    """A socket without room, or with another error."""

    def __init__(self, error: OSError) -> None:
        self.error = error

    def sendto(self, data: bytes, address: Any) -> None:
        raise self.error


@pytest.mark.parametrize("number", [errno.EAGAIN, errno.ENOBUFS, errno.EINTR, errno.ENETUNREACH])
def test_full_socket_drops_a_datagram_and_other_errors_are_reported(number: int) -> None:
    async def main() -> None:
        async with lines(None) as (line,):
            sock = line.transport._socket
            error = OSError(number, os.strerror(number))
            line.transport._socket = cast(Any, Full(error))
            line.transport.sendto(b"data", line.address)
            line.transport._socket = sock
            is_dropped = number != errno.ENETUNREACH
            assert line.transport.dropped == is_dropped
            assert line.receiver.errors == ([] if is_dropped else [error])

    run(main())


def test_error_of_the_network_is_reported() -> None:
    """As of asyncio: an ICMP message does not end the socket."""

    class Refused:
        def recvfrom(self, size: int) -> Any:
            raise ConnectionRefusedError

    async def main() -> None:
        async with lines(None) as (line,):
            sock = line.transport._socket
            line.transport._socket = cast(Any, Refused())
            line.transport.read()
            line.transport._socket = sock
            assert [type(one) for one in line.receiver.errors] == [ConnectionRefusedError]
            line.send(b"data")
            await line.receiver.wait(1)

    run(main())


class Unreachable:
    """A socket that neither receives nor sends."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sock, name)

    def recvfrom(self, size: int) -> Any:
        raise ConnectionRefusedError

    def sendto(self, data: bytes, address: Any) -> Any:
        raise OSError(errno.ENETUNREACH, os.strerror(errno.ENETUNREACH))


@pytest.mark.parametrize("action", ["read by events", "read at ticks", "send"])
@pytest.mark.parametrize("error", [ValueError("injected"), SystemExit(3)])
def test_failure_to_report_an_error_of_the_network_ends_that_socket_alone(
    action: str, error: Any
) -> None:
    class Failing(Receiver):
        def error_received(self, exc: Exception) -> None:
            raise error

    reported: list[Any] = []

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(
            lambda _, details: reported.append(details["exception"])
        )
        async with lines(Failing(), None) as (bad, good):
            if action == "read at ticks":
                await bad.share()
                await good.share()
            bad.transport._socket = cast(Any, Unreachable(bad.transport._socket))
            if action == "send":
                bad.transport.sendto(b"data", bad.address)
            else:
                bad.send(b"data")
            while not bad.receiver.lost:
                await asyncio.sleep(0.001)
            good.send(b"still read")
            await good.receiver.wait(1 + (action == "read at ticks"))
            assert good.is_shared() == (action == "read at ticks")
        assert reported == [error]

    run(main())


def test_without_descriptors_sockets_are_read_by_events(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> Any:
        raise OSError(errno.EMFILE, "Too many open files")

    async def main() -> None:
        async with lines(None) as (line,):
            monkeypatch.setattr(selectors, "DefaultSelector", fail)
            line.transport.read_at_ticks()
            for number in range(1, 4):
                line.send(b"data")
                await line.receiver.wait(number)
            assert not line.is_shared()

    run(main())


def test_without_resources_of_a_selector_sockets_are_read_by_events(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*args: Any) -> Any:
        raise OSError(errno.ENOSPC, "No space left on device")

    async def main() -> None:
        async with lines(None) as (line,):
            line.transport.read_at_ticks()
            monkeypatch.setattr(selectors.DefaultSelector, "register", fail)
            line.send(b"data")
            await line.receiver.wait(1)
            monkeypatch.undo()
            shared = SharedReading.of(line.loop)
            assert shared._selector is None
            assert shared._registration is None or not shared._registration.active
            assert not line.receiver.lost

    run(main())


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), MemoryError()])
def test_socket_that_events_cannot_watch_is_lost_alone(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        async with lines(None, None) as (bad, good):
            for line in (bad, good):
                await line.share()
            add = bad.loop.add_reader

            def fail(sock: Any, *args: Any) -> Any:
                if sock is bad.transport.get_extra_info("socket"):
                    raise error
                return add(sock, *args)

            monkeypatch.setattr(bad.loop, "add_reader", fail)
            SharedReading.of(bad.loop)._release(silent_only=False)
            good.send(b"still read")
            await good.receiver.wait(2)
            assert bad.receiver.lost == [error]
            assert not good.receiver.lost

    run(main())
