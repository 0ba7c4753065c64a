"""What we need of ICE and DTLS that aiortc and aioice have no setting for."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

from aioice.ice import get_host_addresses
from aiortc.rtcdtlstransport import RTCDtlsTransport

from fastrtc_anyio.protocol.ice import RtcConfiguration

__all__ = ["Heartbeat", "choose_addresses", "local_addresses", "stop_consent"]

_LATE = 0.1
"""Seconds by which a timer may be late without anything being the matter."""

logger = logging.getLogger("fastrtc_anyio")


def local_addresses() -> tuple[str, ...]:
    """The IP addresses of this machine that ICE takes by default: all but loopback."""
    return tuple(get_host_addresses(use_ipv4=True, use_ipv6=True))


def choose_addresses(transport: RTCDtlsTransport, configuration: RtcConfiguration) -> None:
    """Take connections where the configuration says, and wait no longer for servers than it says.

    aioice takes every address but loopback's and waits 5 s, and has a setting for neither (checked
    in 0.13). One method of one object knows both.
    """
    connection: Any = transport.transport._connection
    gather = connection.get_component_candidates

    async def get_component_candidates(
        component: int, addresses: list[str], timeout: float = 0
    ) -> Any:
        if configuration.ice_transport_policy == "all":
            addresses = list(configuration.addresses or addresses or ("127.0.0.1",))
        return await gather(component, addresses, configuration.gather_timeout)

    connection.get_component_candidates = get_component_candidates


def stop_consent(transport: RTCDtlsTransport) -> None:
    """End the consent checks of a transport that is closed (RFC 7675)."""
    connection: Any = transport.transport._connection
    task = connection._query_consent_task
    if task is not None:
        task.cancel()


class Heartbeat:
    """When the client was last heard: by SRTP, SRTCP or a STUN check, each once authenticated."""

    def __init__(self) -> None:
        self._heard = 0.0

    def listen(self, transport: RTCDtlsTransport) -> None:
        """Note what comes over a transport. These methods are reached by authentic packets only."""

        def noting(function: Callable[..., Any]) -> Callable[..., Any]:
            def note(*args: Any, **kwargs: Any) -> Any:
                self.beat()
                return function(*args, **kwargs)

            return note

        connection: Any = transport.transport._connection
        connection.check_incoming = noting(connection.check_incoming)
        live: Any = transport
        live._handle_rtp_data = noting(live._handle_rtp_data)
        live._handle_rtcp_data = noting(live._handle_rtcp_data)

    def beat(self) -> None:
        """The client was heard."""
        self._heard = asyncio.get_running_loop().time()

    async def wait_silent(self, limit: float, transport: RTCDtlsTransport) -> None:
        """Wait until the client was not heard for ``limit`` seconds.

        A muted or hidden client sends little, yet it answers when it is asked. After half the time
        it is.
        """
        loop = asyncio.get_running_loop()
        self.beat()
        async with asyncio.TaskGroup() as asking:
            while (silent := loop.time() - self._heard) < limit:
                if silent >= limit / 2:
                    asking.create_task(self._ask(transport))
                pause = min(limit / 5, limit - silent)
                due = loop.time() + pause
                await asyncio.sleep(pause)
                # While this process stood still nobody was heard, whoever may have spoken.
                self._heard += max(0.0, loop.time() - due - _LATE)

    async def _ask(self, transport: RTCDtlsTransport) -> None:
        """One STUN binding request on the selected pair, as for consent (RFC 7675 5.1)."""
        connection: Any = transport.transport._connection
        pair = connection._nominated.get(1)
        if pair is None:
            return
        request = connection.build_request(pair, nominate=False)
        key = connection.remote_password.encode()
        try:
            await pair.protocol.request(
                request, pair.remote_addr, integrity_key=key, retransmissions=0
            )
        except Exception as exc:  # a transaction that fails in any way says: not heard
            logger.debug("no answer from the client: %r", exc)
        else:
            self.beat()
