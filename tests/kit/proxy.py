"""A reverse proxy on the loopback interface, as a web server does it: HTTP and WebSockets."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import anyio
from anyio import create_task_group
from anyio.abc import ByteReceiveStream, ByteSendStream, SocketAttribute, SocketStream
from anyio.streams.buffered import BufferedByteReceiveStream

_UNKNOWN = b"HTTP/1.1 404 Not Found\r\nContent-Length: 5\r\nConnection: close\r\n\r\nproxy"
_MAX_HEAD = 65_536


@asynccontextmanager
async def open_proxy(
    upstream: str,
    prefix: str,
    *,
    strip: bool = True,
    host: str | None = None,
    headers: Mapping[str, str] | None = None,
) -> AsyncGenerator[str, None]:
    """Pass requests below ``prefix`` on to the server at ``upstream``, and answer others with 404.

    Args:
        upstream: URL of the server.
        prefix: percent-encoded path.
        strip: whether to remove ``prefix`` from the path.
        host: the ``Host`` of requests to the server; by default the client's.
        headers: further headers for the server.

    Yields:
        The URL of ``prefix`` at the proxy.
    """
    port = urlsplit(upstream).port
    assert port is not None

    async def pass_on(client: SocketStream) -> None:
        incoming = BufferedByteReceiveStream(client)
        try:
            head = (await incoming.receive_until(b"\r\n\r\n", _MAX_HEAD)).decode("latin-1")
        except (anyio.EndOfStream, anyio.IncompleteRead, anyio.BrokenResourceError):
            await client.aclose()
            return
        method, target, version = head.partition("\r\n")[0].split(" ")
        path, mark, query = target.partition("?")
        if not f"{path}/".startswith(f"{prefix}/"):
            await client.send(_UNKNOWN)
            await client.aclose()
            return
        if strip:
            path = path.removeprefix(prefix) or "/"
        given = dict(line.split(": ", 1) for line in head.split("\r\n")[1:])
        given = {name.title(): value for name, value in given.items()} | dict(headers or {})
        if "Upgrade" not in given:
            given["Connection"] = "close"  # one request for each connection
        if host is not None:
            given["Host"] = host
        lines = [f"{method} {path}{mark}{query} {version}"]
        lines += [f"{name}: {value}" for name, value in given.items()]
        async with client, await anyio.connect_tcp("127.0.0.1", port) as server:
            await server.send(("\r\n".join(lines) + "\r\n\r\n").encode("latin-1"))
            async with create_task_group() as tasks:
                tasks.start_soon(_pump, incoming, server)
                await _pump(server, client)
                tasks.cancel_scope.cancel()

    async with (
        await anyio.create_tcp_listener(local_host="127.0.0.1") as listener,
        create_task_group() as tasks,
    ):
        tasks.start_soon(listener.serve, pass_on)
        own = listener.extra(SocketAttribute.local_port)
        yield f"http://127.0.0.1:{own}{prefix}"
        tasks.cancel_scope.cancel()


async def _pump(source: ByteReceiveStream, sink: ByteSendStream) -> None:
    try:
        async for data in source:
            await sink.send(data)
    except (anyio.BrokenResourceError, anyio.ClosedResourceError):
        pass  # the other side learns of it when its connection closes
