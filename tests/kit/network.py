"""A network between clients and servers on the loopback interface: delay, loss, outages, NAT.

It runs in a thread with a separate asyncio loop, so it works under trio and asyncio, and a stall of
a client or a server does not stall it.
"""

from __future__ import annotations

import asyncio
import random
import socket
from collections import Counter
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal

from .aiortc_client import client_loop

Address = tuple[str, int]
Way = Literal["up", "down"]
"""To the server, or to the client."""
_HOST = "127.0.0.1"
_SIZE = 65_536
_DETOUR = 0.05
_QUEUE = 0.2


@dataclass
class Network:
    """A NAT in front of clients. It may be used from any thread, also during calls.

    It is like a router: the server sees its ports instead of the client's, and the client sends to
    it instead of to the server. Pass a client's offer through :meth:`hide_client`, and the answer
    through :meth:`hide_server`, and everything between the two passes the network.
    """

    loop: asyncio.AbstractEventLoop
    delay: float = 0.0
    """Seconds from one side to the other."""
    jitter: float = 0.0
    """Additional seconds, evenly distributed. Datagrams may then overtake each other."""
    loss: float = 0.0
    """Fraction of the datagrams that is lost, 0 to 1."""
    burst: int = 1
    """Datagrams that are lost in a row."""
    duplicates: float = 0.0
    """Fraction of the datagrams that arrive twice."""
    detours: float = 0.0
    """Fraction of the datagrams that take 50 ms longer, so that later ones overtake them."""
    rate: float = 0.0
    """Bits per second in each direction, with a queue of 200 ms; 0: unlimited."""
    seed: int = 0
    outage: bool = False
    """Whether everything is lost."""
    outage_up: bool = False
    """Whether everything to the server is lost."""
    passed: Counter[Way] = field(default_factory=Counter)
    """Datagrams that arrived, by direction."""
    lost: Counter[Way] = field(default_factory=Counter)
    media: Counter[Way] = field(default_factory=Counter)
    """Datagrams of RTP and RTCP that arrived, by direction."""
    stale: int = 0
    """Datagrams from servers to ports that the last :meth:`rebind` gave up."""
    checks: Counter[Address] = field(default_factory=Counter)
    """Datagrams from clients by the port that the server sees."""

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)
        self._losing: Counter[Way] = Counter()
        self._free_at: dict[Way, float] = {"up": 0.0, "down": 0.0}
        self._doors: dict[Address, socket.socket] = {}
        self._mappings: dict[tuple[Address, Address], socket.socket] = {}
        self._sockets: list[socket.socket] = []

    def hide_client(self, sdp: str) -> str:
        """Remove the candidates: the server learns the client's address from its checks."""
        hidden = ("a=candidate:", "a=end-of-candidates")
        return "".join(f"{line}\r\n" for line in sdp.splitlines() if not line.startswith(hidden))

    def hide_server(self, sdp: str) -> str:
        """Replace the addresses of the candidates by addresses of the network."""
        lines = []
        for line in sdp.splitlines():
            if line.startswith("a=candidate:"):
                parts = line.split()
                host, port = self._open_door((parts[4], int(parts[5])))
                line = " ".join([*parts[:4], host, str(port), *parts[6:]])
            lines.append(f"{line}\r\n")
        return "".join(lines)

    def rebind(self) -> None:
        """Use new ports from now on, as a NAT does, or a client in another network.

        Datagrams of servers to the former ports are lost.
        """
        self.loop.call_soon_threadsafe(self._mappings.clear)

    def _open_door(self, server: Address) -> Address:
        door = self._doors.get(server)
        if door is None:
            door = self._doors[server] = self._open()
            self.loop.call_soon_threadsafe(self.loop.add_reader, door, self._go_up, door, server)
        address: Address = door.getsockname()
        return address

    def _open(self) -> socket.socket:
        sock = socket.socket(type=socket.SOCK_DGRAM)
        sock.bind((_HOST, 0))
        sock.setblocking(False)
        self._sockets.append(sock)
        return sock

    def _go_up(self, door: socket.socket, server: Address) -> None:
        for data, client in _read(door):
            port = self._mappings.get((server, client))
            if port is None:
                port = self._mappings[server, client] = self._open()
                self.loop.add_reader(port, self._go_down, port, door, server, client)
            self.checks[port.getsockname()] += 1
            self._carry("up", port, data, server)

    def _go_down(
        self, port: socket.socket, door: socket.socket, server: Address, client: Address
    ) -> None:
        for data, _ in _read(port):
            if self._mappings.get((server, client)) is port:
                self._carry("down", door, data, client)
            else:
                self.stale += 1

    def _carry(self, way: Way, sock: socket.socket, data: bytes, to: Address) -> None:
        if self.outage or (self.outage_up and way == "up") or self._loses(way):
            self.lost[way] += 1
            return
        delay = self.delay + self.jitter * self._random.random()
        if self.rate:
            now = self.loop.time()
            wait = max(self._free_at[way] - now, 0.0)
            if wait > _QUEUE:
                self.lost[way] += 1
                return
            self._free_at[way] = now + wait + len(data) * 8 / self.rate
            delay += self._free_at[way] - now
        if self.detours and self._random.random() < self.detours:
            delay += _DETOUR
        copies = 2 if self.duplicates and self._random.random() < self.duplicates else 1
        for _ in range(copies):
            if delay > 0:
                self.loop.call_later(delay, self._deliver, way, sock, data, to)
            else:
                self._deliver(way, sock, data, to)

    def _loses(self, way: Way) -> bool:
        if self._losing[way] == 0 and self.loss > 0:
            # Chosen so that bursts of this length lose the given fraction.
            kept = self.burst * (1 - self.loss) / self.loss
            if self._random.random() * (1 + kept) < 1:
                self._losing[way] = self.burst
        if self._losing[way] == 0:
            return False
        self._losing[way] -= 1
        return True

    def _deliver(self, way: Way, sock: socket.socket, data: bytes, to: Address) -> None:
        self.passed[way] += 1
        self.media[way] += data[:1] > b"\x7f"
        try:
            sock.sendto(data, to)
        except OSError:  # a full buffer, or a network that is closing
            self.lost[way] += 1

    def _close(self) -> None:
        for sock in self._sockets:
            self.loop.remove_reader(sock)
            sock.close()


def _read(sock: socket.socket) -> Generator[tuple[bytes, Address], None, None]:
    while True:
        try:
            yield sock.recvfrom(_SIZE)
        except OSError:  # nothing more, or the other side's port is closed
            return


@contextmanager
def open_network(
    *, delay: float = 0.0, loss: float = 0.0, burst: int = 1, seed: int = 0
) -> Generator[Network, None, None]:
    """Open a network in a thread; its attributes can be changed at any time."""
    with client_loop() as loop:
        network = Network(loop, delay, loss=loss, burst=burst, seed=seed)
        try:
            yield network
        finally:
            asyncio.run_coroutine_threadsafe(_call(network._close), loop).result(10)


async def _call(function: Callable[[], None]) -> None:
    function()
