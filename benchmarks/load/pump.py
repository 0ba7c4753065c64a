"""One thread that sends and receives the packets of all calls.

The sending times of calls are spread over the interval of frames. Sockets are read every 10 ms,
which is enough because the kernel notes the times of arrival.
"""

from __future__ import annotations

import heapq
import threading
import time
from contextlib import suppress
from itertools import count

from benchmarks.load.call import Call
from benchmarks.load.line import Faults, Line
from benchmarks.load.media import Media

READ_INTERVAL = 0.01


class _Sender:
    """Sends the prepared frames of one call."""

    def __init__(self, call: Call, media: Media, begin: float, line: Line) -> None:
        self.call = call
        self.due = begin
        self._media = media
        self._line = line
        self._number = 0

    def prepare(self, lateness: float) -> list[tuple[float, bytes]]:
        """Return the packets of the next frame that are not lost, with their times of sending."""
        media, number = self._media, self._number
        payloads = media.frames[number % len(media.frames)]
        packets: list[tuple[float, bytes]] = []
        for payload in payloads:
            marker = media.video and payload is payloads[-1]
            data = self.call.protect(payload, number * media.increment, marker)
            sends = self._line.transmit(self.due, number)
            if sends is not None:
                packets.append((sends, data))
        self.call.sent.append(self.due + lateness)
        self._number += 1
        self.due += media.interval
        return packets


class Pump:
    """The thread. Use as a context manager."""

    def __init__(self, media: Media) -> None:
        self.lateness: list[float] = []
        """Seconds by which each packet was sent too late."""
        self._media = media
        self._calls: list[Call] = []
        self._added = 0
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

    def add(self, call: Call, faults: Faults | None = None) -> None:
        """Send the media into a call from now on."""
        index = self._added
        self._added += 1
        # Each next call is in the middle of a gap that earlier ones left: any number is spread.
        phase = index * 0.618 % 1
        now, interval = time.time(), self._media.interval
        begin = (now // interval + 1 + phase) * interval
        self._calls = [*self._calls, call]
        self._new.append(_Sender(call, self._media, begin, Line(faults or Faults(), index)))

    def remove(self, call: Call) -> None:
        """Stop sending and receiving."""
        call.ended = True
        self._calls = [one for one in self._calls if one is not call]

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
                    if call.read_by_pump:
                        call.read()
                next_read += READ_INTERVAL * (1 + (now - next_read) // READ_INTERVAL)

    def _push(self, at: float, sender: _Sender, data: bytes | None) -> None:
        heapq.heappush(self._events, (at, next(self._number), sender, data))

    def _step(self, now: float) -> None:
        """Prepare the next frame of a call, or send a packet that the line has delayed."""
        at, _, sender, data = heapq.heappop(self._events)
        if sender.call.ended:
            return
        if data is not None:
            self._send(sender.call, data, now - at)
            return
        for sends, packet in sender.prepare(now - at):
            if sends > now:
                self._push(sends, sender, packet)
            else:
                self._send(sender.call, packet, now - at)
        self._push(sender.due, sender, None)

    def _send(self, call: Call, data: bytes, lateness: float) -> None:
        self.lateness.append(lateness)
        with suppress(OSError):  # refused: the server has ended the call
            call.socket.sendto(data, call.peer)
