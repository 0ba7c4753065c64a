"""Offers and questions on stdin, answers on stdout."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any

import anyio

from benchmarks.servers.memory import count_memory

LOOPBACK = "127.0.0.1"


class Answers:
    """The standard output of a server. Output of libraries goes to stderr instead."""

    def __init__(self) -> None:
        self._output = os.dup(1)
        os.dup2(2, 1)

    def write(self, line: dict[str, Any]) -> None:
        os.write(self._output, (json.dumps(line) + "\n").encode())


async def read_offers() -> AsyncGenerator[dict[str, Any], None]:
    """Yield offers until stdin ends. No thread waits for them."""
    os.set_blocking(0, False)
    buffer = b""
    while True:
        await anyio.wait_readable(0)
        data = os.read(0, 65_536)
        if not data:
            return
        *lines, buffer = (buffer + data).split(b"\n")
        for line in lines:
            yield json.loads(line)


async def answer_offers(answers: Answers, answer: Callable[[str, str], Awaitable[str]]) -> None:
    """Answer each offer in a task; ``answer(sdp, id)`` returns the answer's SDP."""

    async def reply(offer: dict[str, Any]) -> None:
        found = count_memory() if "sdp" not in offer else await answer(offer["sdp"], offer["id"])
        answers.write({"id": offer["id"], "answer": found})

    answers.write({"ready": True})
    async with anyio.create_task_group() as tasks:
        async for offer in read_offers():
            tasks.start_soon(reply, offer)
        tasks.cancel_scope.cancel()
