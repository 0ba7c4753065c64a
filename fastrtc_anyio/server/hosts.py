"""Host checks: which names a request may give this server.

A page whose name an attacker makes resolve to the address of this server has the server's own
origin, so that no origin check refuses it (DNS rebinding). The name in its ``Host`` header is the
attacker's.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from ipaddress import IPv6Address, ip_address
from typing import TYPE_CHECKING, Protocol, runtime_checkable
from urllib.parse import urlsplit

from fastrtc_anyio._core.options import short_repr
from fastrtc_anyio._wire.call_xml import TelephoneOptions
from fastrtc_anyio.errors import NotAllowed

if TYPE_CHECKING:  # so that a `Stream` can be made without Starlette
    from starlette.requests import HTTPConnection

__all__ = ["HostRules", "NamedHosts", "check_host", "check_hosts"]

_NAME = r"[a-z0-9_-]+(?:\.[a-z0-9_-]+)*"
_HEADER = re.compile(rf"(?:({_NAME})\.?|\[([0-9a-f:.]+)\])(?::[0-9]{{0,5}})?", re.IGNORECASE)
_PATTERN = re.compile(rf"\*|(?:\*\.)?{_NAME}|\[[0-9a-f:.]+\]", re.IGNORECASE)


@runtime_checkable
class HostRules(Protocol):
    """Rules about the names of a server. A ``Stream`` has these attributes."""

    @property
    def allowed_hosts(self) -> Iterable[str]: ...

    @property
    def telephone(self) -> TelephoneOptions: ...


@dataclass(frozen=True)
class NamedHosts:
    """Host rules without a telephone line."""

    allowed_hosts: tuple[str, ...] = ()
    telephone: TelephoneOptions = field(default_factory=TelephoneOptions)


def check_hosts(hosts: Iterable[str]) -> tuple[str, ...]:
    """Check the option ``allowed_hosts``.

    Raises:
        TypeError: ``hosts`` is a single string, which would be read letter by letter.
        ValueError: an entry is neither a host, a pattern such as ``*.example.org`` nor ``"*"``.
    """
    if isinstance(hosts, str):
        raise TypeError(f"allowed_hosts must be a list of hosts; got {hosts!r}")
    checked = tuple(hosts)
    for host in checked:
        if not _PATTERN.fullmatch(host):
            raise ValueError(
                'allowed_hosts must hold "*", host names like "example.org" and "*.example.org", '
                f'or addresses like "192.0.2.1" and "[2001:db8::1]", without ports; got {host!r}'
            )
    return checked


def check_host(rules: HostRules, connection: HTTPConnection) -> None:
    """Check the ``Host`` header of a request or a WebSocket.

    A connection to a loopback address must name a loopback host, one of ``allowed_hosts`` or the
    host of ``TelephoneOptions.public_url``. Connections to other addresses are checked only if
    ``allowed_hosts`` is not empty.

    Raises:
        NotAllowed: the header names another host.
    """
    allowed = tuple(rules.allowed_hosts)
    server = connection.scope.get("server") or ("",)
    on_loopback = _is_loopback(str(server[0]))
    if "*" in allowed or not (allowed or on_loopback):
        return
    given = connection.headers.getlist("host")
    name = _parse(given[0]) if len(given) == 1 else None
    if name is not None:
        public = _parse(urlsplit(rules.telephone.public_url or "").netloc)
        if (on_loopback and _is_loopback(name)) or name == public or _matches(name, allowed):
            return
    names = "a loopback name" if on_loopback else "a name of this server"
    raise NotAllowed(
        f"the Host header must be {names}; Stream(allowed_hosts=[...]) allows further names",
        " and ".join(map(short_repr, given)) or "none",
    )


def _parse(header: str) -> str | None:
    """Return the name or address in a ``Host`` header, in lower case; None if it is malformed."""
    found = _HEADER.fullmatch(header)
    return None if found is None else (found[1] or found[2]).lower()


def _matches(name: str, patterns: Iterable[str]) -> bool:
    for pattern in patterns:
        pattern = pattern.lower().strip("[]")
        if name == pattern or (pattern.startswith("*.") and name.endswith(pattern[1:])):
            return True
    return False


def _is_loopback(name: str) -> bool:
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        address = ip_address(name)
    except ValueError:
        return False
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return (mapped or address).is_loopback
