"""Addresses of a client to which a call may send."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from typing import TypeAlias

from fastrtc_anyio._core.options import check_type

_Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_SHARED = ipaddress.ip_network("100.64.0.0/10")
_THIS_NETWORK = ipaddress.ip_network("0.0.0.0/8")


@dataclass(frozen=True)
class AddressPolicy:
    """Remote ICE candidates that a call uses. Others are ignored.

    No policy permits multicast, broadcast, unspecified and reserved addresses, or port 0. An IPv6
    address that contains an IPv4 address (IPv4-mapped, NAT64, 6to4, Teredo) must be permitted as
    both.

    Raises:
        TypeError: a field has another type.
        ValueError: an item of ``denied`` is not a network.
    """

    private: bool = True
    """Whether to use private and shared addresses: 10.0.0.0/8, 172.16.0.0/12, 192.168.0.0/16,
    100.64.0.0/10, fc00::/7 and others that are not global. Clients in the server's own network have
    them."""
    link_local: bool = False
    """Whether to use 169.254.0.0/16 and fe80::/10. Clouds serve credentials at 169.254.169.254."""
    loopback: bool = False
    """Whether to use 127.0.0.0/8 and ::1. A server that itself has a candidate on loopback does so
    in any case, and so does a call whose client has sent an authentic check from there."""
    mdns: bool = True
    """Whether to resolve names that end in ``.local``. Browsers without access to a microphone
    have no other host candidates. The addresses must be permitted, too."""
    denied: tuple[str, ...] = ()
    """Networks not to use, such as ``"10.1.0.0/16"``."""

    def __post_init__(self) -> None:
        for field in fields(self):
            if field.name != "denied":
                check_type(f"AddressPolicy.{field.name}", getattr(self, field.name), bool)
        check_type("AddressPolicy.denied", self.denied, tuple)
        self._networks  # noqa: B018 - raises ValueError, naming the network

    @cached_property
    def _networks(self) -> tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...]:
        return tuple(ipaddress.ip_network(network) for network in self.denied)

    @classmethod
    def parse(cls, value: object) -> AddressPolicy:
        """Return a policy as it is, and make one of a mapping.

        Raises:
            TypeError, ValueError: a key or a value is unknown.
        """
        if isinstance(value, AddressPolicy):
            return value
        names = [field.name for field in fields(cls)]
        if not isinstance(value, Mapping) or not set(value) <= set(names):
            raise ValueError(
                f"address_policy must be an AddressPolicy or a mapping with {', '.join(names)}; "
                f"got {value!r}"
            )
        given = dict(value)
        if not isinstance(given.get("denied", ""), str):
            given["denied"] = tuple(given["denied"])
        return cls(**given)

    def permits(self, host: str, port: int) -> bool:
        """Return whether to send to an IP address; False for any other string."""
        try:
            address = ipaddress.ip_address(host)
        except ValueError:
            return False
        return port > 0 and all(self._permits(form) for form in _forms(address))

    def _permits(self, address: _Address) -> bool:
        if any(address in network for network in self._networks):
            return False
        if address.is_loopback:
            return self.loopback
        if address.is_link_local:
            return self.link_local
        if (
            address.is_multicast
            or address.is_unspecified
            or address.is_reserved
            or address in _THIS_NETWORK
        ):
            return False
        return self.private or not (address.is_private or _is_local(address))


def is_loopback(host: str) -> bool:
    """Return whether a string is a loopback address, in any of its forms."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    return any(form.is_loopback for form in _forms(address))


def _is_local(address: _Address) -> bool:
    if isinstance(address, ipaddress.IPv6Address):
        return address.is_site_local
    return address in _SHARED


def _forms(address: _Address) -> list[_Address]:
    """Return an address and the IPv4 addresses in it; of an IPv4-mapped address the latter only."""
    if isinstance(address, ipaddress.IPv4Address):
        return [address]
    if address.ipv4_mapped is not None:
        return [address.ipv4_mapped]
    found: list[_Address] = []
    if address in _NAT64:
        found.append(ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF))
    else:  # NAT64's prefix is among the reserved addresses
        found.append(address)
    if address.sixtofour is not None:
        found.append(address.sixtofour)
    if address.teredo is not None:
        found.append(address.teredo[1])  # the client's; the other is a server's
    return found
