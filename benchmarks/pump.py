"""One thread that sends and receives the packets of all calls.

The sending times of calls are spread over 20 ms. Sockets are read every 10 ms, which is enough
because the kernel notes the times of arrival.
"""

from __future__ import annotations

import heapq
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from itertools import count

from benchmarks.call import Call
from benchmarks.line import Faults, Line

FRAME = 0.02
READ_INTERVAL = 0.01


class _Sender:
    """Sends the prepared packets of one call."""

    def __init__(self, call: Call, packets: Sequence[bytes], begin: float, line: Line) -> None:
        self.call = call
        self.due = begin
        self._packets = packets
        self._line = line
        self._number = 0

    def prepare(self, lateness: float) -> tuple[float, bytes] | None:
        """Return the time of sending and the next packet; None if the line loses it."""
        payload = self._packets[self._number % len(self._packets)]
        data = self.call.protect(payload, self._number * 960)
        self.call.sent.append(self.due + lateness)
        arrives = self._line.transmit(self.due)
        self._number += 1
        self.due += FRAME
        return None if arrives is None else (arrives, data)


class Pump:
    """The thread. Use as a context manager."""

    def __init__(self, packets: Sequence[bytes], faults: Faults) -> None:
        self.lateness: list[float] = []
        """Seconds by which each packet was sent too late."""
        self._packets = packets
        self._faults = faults
        self._calls: list[Call] = []
        self._new: list[_Sender] = []
        self._events: list[tuple[float, int, _Sender, bytes | None]] = []
        self._number = count()
        self._stopped = False
        self._thread = threading.Thread(target=self._run, name="pump")

    def __enter__(self) -> Pump:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stopped = True
        self._thread.join()

    def add(self, call: Call) -> None:
        """Send the speech into a call from now on."""
        index = len(self._calls)
        self._calls = [*self._calls, call]
        now = time.time()
        # Each next call is in the middle of a gap that earlier ones left: any number is spread.
        phase = index * 0.618 % 1 * FRAME
        begin = now - now % FRAME + FRAME + phase
        self._new.append(_Sender(call, self._packets, begin, Line(self._faults, index)))

    def _run(self) -> None:
        next_read = time.time()
        while not self._stopped:
            while self._new:
                sender = self._new.pop()
                self._push(sender.due, sender, None)
            due = min(next_read, self._events[0][0]) if self._events else next_read
            delay = due - time.time()
            if delay > 0:
                time.sleep(delay)
            now = time.time()
            while self._events and self._events[0][0] <= now:
                self._step(now)
            if next_read <= now:
                for call in self._calls:
                    call.read()
                next_read += READ_INTERVAL * (1 + (now - next_read) // READ_INTERVAL)

    def _push(self, at: float, sender: _Sender, data: bytes | None) -> None:
        heapq.heappush(self._events, (at, next(self._number), sender, data))

    def _step(self, now: float) -> None:
        """Prepare the next packet of a call, or send a packet that the line has delayed."""
        at, _, sender, data = heapq.heappop(self._events)
        if data is None:
            prepared = sender.prepare(now - at)
            self._push(sender.due, sender, None)
            if prepared is None:
                return
            sends, data = prepared
            if sends > now:
                self._push(sends, sender, data)
                return
        self.lateness.append(now - at)
        with suppress(OSError):  # refused: the server has ended the call
            sender.call.socket.sendto(data, sender.call.peer)
