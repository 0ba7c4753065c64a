"""ASGI endpoints, the web page, and a server to run them. Needs the ``server`` extra.

The names load on first use: importing this package loads no web framework.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .access import admit, require_token
    from .launch import open_server, wait_for_interrupt
    from .routes import page_route

__all__ = ["admit", "open_server", "page_route", "require_token", "wait_for_interrupt"]

_HOMES = {
    "admit": ".access",
    "open_server": ".launch",
    "page_route": ".routes",
    "require_token": ".access",
    "wait_for_interrupt": ".launch",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name], __name__), name)
