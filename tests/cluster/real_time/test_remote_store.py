"""The store of a cluster, in the process of its directory."""

from __future__ import annotations

import base64
import json
import socket

import anyio
import pytest

from fastrtc_anyio import SessionStore
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


async def test_value_of_a_closed_connection_is_not_saved() -> None:
    """The process has cancelled its request, and may have deleted the key since."""
    directory = MemoryDirectory()
    async with anyio.create_task_group() as tasks:
        port = await tasks.start(serve_directory, directory, "secret")
        value = base64.b64encode(LARGE[:10_000]).decode()
        for number in range(10):
            line = json.dumps(["secret", "save", f"{number}", value, 10]).encode() + b"\n"
            with socket.create_connection(("127.0.0.1", port)) as connection:
                connection.sendall(line)  # the directory runs after the end of this block
        store = RemoteDirectory(port, "secret")
        for number in range(10):
            assert await store.take(f"{number}") is None
        tasks.cancel_scope.cancel()
    assert not directory._entries
