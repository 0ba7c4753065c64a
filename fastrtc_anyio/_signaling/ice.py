"""ICE of the server: W3C's RTCConfiguration, and further settings."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fastrtc_anyio._core.options import check_choice, check_number, check_type, short_repr

from .address_policy import AddressPolicy

_URL = re.compile(r"(stuns?:[^?\s]+|turns?:[^?\s]+(\?transport=(udp|tcp))?)", re.IGNORECASE)
"""RFC 7064 and RFC 7065."""


_UNUSED = {"bundlePolicy", "certificates", "iceCandidatePoolSize", "rtcpMuxPolicy"}
"""Members of W3C's dictionary that a server has no use for."""


@dataclass(frozen=True)
class IceServer:
    """W3C RTCIceServer: a STUN or TURN server.

    Raises:
        ValueError: a URL is not that of a STUN or TURN server.
    """

    urls: tuple[str, ...]
    username: str | None = None
    credential: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        for url in self.urls:
            if not _URL.fullmatch(url):
                raise ValueError(
                    "the URL of an ICE server is stun:HOST[:PORT] or "
                    f"turn:HOST[:PORT][?transport=udp|tcp]; got {url!r}"
                )


@dataclass(frozen=True)
class RtcConfiguration:
    """W3C RTCConfiguration of the server.

    A server with a public address needs no ICE servers, and the default has none: a STUN server
    that does not respond delays every answer. The first STUN and the first TURN server are used.

    Raises:
        ValueError: a setting is unsuitable. The message names it and its possible values.
    """

    ice_servers: tuple[IceServer, ...] = ()
    ice_transport_policy: str = "all"
    """``"all"``, or ``"relay"`` to use TURN only."""
    addresses: tuple[str, ...] | None = None
    """Local IP addresses for connections. None: all but loopback, or loopback if the machine has no
    other address."""
    interfaces: tuple[str, ...] | None = None
    """Network interfaces for connections, such as ``"eth0"``, in place of ``addresses``."""
    ports: tuple[int, int] | None = None
    """First and last UDP port for connections, for a firewall; None for any. Each connection needs
    one port for each address. Connections to TURN servers and their relayed ports use others."""
    gather_timeout: float = 2.0
    """Seconds for STUN and TURN servers to respond. The answer does not wait longer."""
    address_policy: AddressPolicy = field(default_factory=AddressPolicy)
    """Addresses of clients that connections use."""

    def __post_init__(self) -> None:
        check_type("address_policy", self.address_policy, AddressPolicy)
        check_choice("ice_transport_policy", self.ice_transport_policy, ("all", "relay"))
        for address in self.addresses or ():
            ipaddress.ip_address(address)  # raises ValueError, naming the address
        if self.interfaces is not None and self.addresses is not None:
            raise ValueError("give addresses or interfaces, not both")
        if self.ports is not None:
            match self.ports:
                case (int(first), int(last)) if 0 < first <= last < 65_536:
                    pass
                case _:
                    got = short_repr(self.ports)
                    raise ValueError(f"ports are the first and the last, 1 to 65535; got {got}")
        check_number("gather_timeout", self.gather_timeout, above=0, finite=False, unit="s")
        if self.ice_transport_policy == "relay" and not any(
            url.lower().startswith("turn") for server in self.ice_servers for url in server.urls
        ):
            raise ValueError('ice_transport_policy "relay" needs a TURN server; there is none')

    @classmethod
    def parse(cls, value: RtcConfiguration | Mapping[str, object] | None) -> RtcConfiguration:
        """Read a W3C dictionary, which may also hold this class's further attributes.

        Raises:
            ValueError: a key or a value is unknown.
        """
        if value is None:
            return cls()
        if isinstance(value, RtcConfiguration):
            return value
        sequences = {"addresses", "interfaces", "ports"}
        own = (sequences | {"gather_timeout", "address_policy"}) & set(value)
        unknown = set(value) - own - {"iceServers", "iceTransportPolicy"} - _UNUSED
        if unknown:
            raise ValueError(
                "an RTC configuration has iceServers, iceTransportPolicy, addresses, interfaces, "
                "ports, gather_timeout and address_policy; got also "
                f"{', '.join(sorted(map(str, unknown)))}"
            )
        given: dict[str, Any] = {key: value[key] for key in own if value[key] is not None}
        given |= {key: tuple(item) for key, item in given.items() if key in sequences}
        if "address_policy" in given:
            given["address_policy"] = AddressPolicy.parse(given["address_policy"])
        given["ice_transport_policy"] = value.get("iceTransportPolicy") or "all"
        return cls(ice_servers=parse_ice_servers(value.get("iceServers")), **given)


def parse_ice_servers(value: object) -> tuple[IceServer, ...]:
    """Read W3C's ``iceServers``: a sequence, or one mapping, as some providers send it.

    Raises:
        ValueError: ``value`` is neither.
    """
    if value is None:
        return ()
    servers = [value] if isinstance(value, Mapping | IceServer) else value
    if not isinstance(servers, Sequence) or isinstance(servers, str):
        raise ValueError(  # noqa: TRY004 - part of a configuration, not an argument
            f"iceServers is a list of ICE servers; got {type(value).__name__}"
        )
    return tuple(_parse_server(server) for server in servers)


def _parse_server(value: Any) -> IceServer:
    if isinstance(value, IceServer):
        return value
    urls: str | Sequence[str] | None = value.get("urls") if isinstance(value, Mapping) else None
    if not urls:
        # Not the values: one may be a credential.
        got = f"the keys {sorted(map(str, value))}" if isinstance(value, Mapping) else repr(value)
        raise ValueError(f'an ICE server is a mapping with "urls"; got {got}')
    return IceServer(
        (urls,) if isinstance(urls, str) else tuple(urls),
        value.get("username"),
        value.get("credential"),
    )
