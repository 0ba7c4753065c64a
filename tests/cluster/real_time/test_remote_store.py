"""The store of a cluster, in the process of its directory."""

from __future__ import annotations

import base64
import json
import socket

import anyio
import pytest

from fastrtc_anyio import SessionStore
from fastrtc_anyio._signaling.session_ids import make_session_id
from fastrtc_anyio.cluster import MemoryDirectory
from fastrtc_anyio.cluster._remote import RemoteDirectory, serve_directory
from tests.kit.backends import anyio_backend  # noqa: F401

pytestmark = pytest.mark.anyio
KEY = "a" * 64
LARGE = bytes(range(256)) * 550


async def test_values_pass_through_the_directory() -> None:
    async with anyio.create_task_group() as tasks:
        port = await tasks.start(serve_directory, MemoryDirectory(), "secret")
        store = RemoteDirectory(port, "secret")
        assert isinstance(store, SessionStore)
        assert await store.save(KEY, LARGE, 10.5)
        assert [await store.take(KEY), await store.take(KEY)] == [LARGE, None]
        assert await store.save(KEY, b"late", 10) is False
        await store.delete(KEY)
        assert await store.save(KEY, b"new", 10) is True
        with pytest.raises(OSError, match="closed the connection"):
            await RemoteDirectory(port, "wrong").take(KEY)
        tasks.cancel_scope.cancel()


def ask_and_leave(port: int, *request: object) -> None:
    """Send a request, and close the connection before the directory runs."""
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(json.dumps(["secret", *request]).encode() + b"\n")


async def test_claim_of_a_closed_connection_is_not_registered() -> None:
    """The process has cancelled its request, and may have released the claim since."""
    directory = MemoryDirectory()
    async with anyio.create_task_group() as tasks:
        port = await tasks.start(serve_directory, directory, "secret")
        await directory.join("one", "http://127.0.0.1:1")
        for number in range(10):
            ask_and_leave(port, "claim", f"{number}", make_session_id("one", "a" * 22))
        remote = RemoteDirectory(port, "secret")
        for number in range(10):
            assert await remote.find(f"{number}") is None
        tasks.cancel_scope.cancel()


async def test_value_of_a_closed_connection_is_not_saved() -> None:
    """The process has cancelled its request, and may have deleted the key since."""
    directory = MemoryDirectory()
    async with anyio.create_task_group() as tasks:
        port = await tasks.start(serve_directory, directory, "secret")
        value = base64.b64encode(LARGE[:10_000]).decode()
        for number in range(10):
            ask_and_leave(port, "save", f"{number}", value, 10)
        store = RemoteDirectory(port, "secret")
        for number in range(10):
            assert await store.take(f"{number}") is None
        tasks.cancel_scope.cancel()
    assert not directory._entries
