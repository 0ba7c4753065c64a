"""Whether a page of another site may open a WebSocket here (RFC 6455 4.2.2, RFC 6454)."""

from __future__ import annotations

import re
from collections.abc import Iterable
from urllib.parse import urlsplit

__all__ = ["check_origins", "is_allowed"]

_STRAY = re.compile(r"[\s,;@\"'<>]")
"""No host has these; in a header they would begin something else."""
_PORTS = {"http": ":80", "https": ":443"}


def check_origins(origins: Iterable[str]) -> tuple[str, ...]:
    """The setting ``allowed_origins``: origins such as ``https://example.com``, or ``"*"``.

    Raises:
        TypeError: a string alone, which is a list of letters.
        ValueError: an entry that is no origin.
    """
    if isinstance(origins, str):
        raise TypeError(f"allowed_origins is a list of origins; got {origins!r}")
    checked = tuple(origins)
    for origin in checked:
        if origin != "*" and (
            "://" not in origin or _normal(origin) != origin.lower() or _STRAY.search(origin)
        ):
            raise ValueError(
                f'allowed_origins holds "*" or origins like "https://example.com"; got {origin!r}'
            )
    return checked


def is_allowed(origin: str | None, host: str, allowed: Iterable[str]) -> bool:
    """Whether a request from a page may come in.

    Args:
        origin: the header of that name. Only browsers send it: without one, nobody's page is
            behind the request, and it may come in.
        host: the header of that name. Its own pages may come in; whether over TLS only a proxy in
            front may know, so the scheme does not count.
        allowed: who else may.
    """
    if origin is None:
        return True
    normal = _normal(origin)
    same = normal.partition("://")[2]
    own = {host.lower(), *(host.lower().removesuffix(port) for port in _PORTS.values())}
    return (bool(same) and same in own) or any(
        entry == "*" or entry.lower() == normal for entry in allowed
    )


def _normal(origin: str) -> str:
    """Scheme, host, and port where it is not the usual one; "" if it is no origin."""
    try:
        parts = urlsplit(origin.lower())
    except ValueError:
        return ""
    if not parts.scheme or not parts.netloc or parts.path or parts.query or parts.fragment:
        return ""
    return f"{parts.scheme}://{parts.netloc.removesuffix(_PORTS.get(parts.scheme, ''))}"
