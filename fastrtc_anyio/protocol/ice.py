"""How a peer finds a way to the other: W3C RTCConfiguration, and what a server adds to it."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["IceServer", "RtcConfiguration"]


@dataclass(frozen=True)
class IceServer:
    """W3C RTCIceServer: a STUN or TURN server."""

    urls: tuple[str, ...]
    username: str | None = None
    credential: str | None = None


@dataclass(frozen=True)
class RtcConfiguration:
    """W3C RTCConfiguration of this side.

    A server with a public address needs no ICE servers, and the default has none: an unanswered
    STUN server would hold every answer back.
    """

    ice_servers: tuple[IceServer, ...] = ()
    ice_transport_policy: str = "all"
    """``"all"``, or ``"relay"`` to use TURN only."""
    addresses: tuple[str, ...] | None = None
    """The local IP addresses to take connections on. None: all but loopback, or loopback if the
    machine has no other."""
    gather_timeout: float = 2.0
    """Seconds that STUN and TURN servers get before the answer goes out without them."""

    def __post_init__(self) -> None:
        if self.ice_transport_policy not in ("all", "relay"):
            raise ValueError(
                f'ice_transport_policy must be "all" or "relay"; got {self.ice_transport_policy!r}'
            )
        for address in self.addresses or ():
            ipaddress.ip_address(address)  # raises ValueError, naming the address

    @classmethod
    def parse(cls, value: RtcConfiguration | Mapping[str, Any] | None) -> RtcConfiguration:
        """Read a W3C dictionary: ``iceServers`` and ``iceTransportPolicy``.

        Raises:
            ValueError: it has a key or a value nobody knows.
        """
        if value is None:
            return cls()
        if isinstance(value, RtcConfiguration):
            return value
        unknown = set(value) - {"iceServers", "iceTransportPolicy", "addresses"}
        if unknown:
            raise ValueError(
                "an RTC configuration has iceServers, iceTransportPolicy and addresses; "
                f"got also {', '.join(sorted(map(str, unknown)))}"
            )
        addresses = value.get("addresses")
        return cls(
            ice_servers=tuple(_parse_server(server) for server in value.get("iceServers") or ()),
            ice_transport_policy=value.get("iceTransportPolicy") or "all",
            addresses=None if addresses is None else tuple(addresses),
        )


def _parse_server(value: IceServer | Mapping[str, Any]) -> IceServer:
    if isinstance(value, IceServer):
        return value
    urls: str | Sequence[str] | None = value.get("urls")
    if not urls:
        raise ValueError(f'an ICE server is a mapping with "urls"; got {value!r}')
    return IceServer(
        (urls,) if isinstance(urls, str) else tuple(urls),
        value.get("username"),
        value.get("credential"),
    )
