"""ASGI: the endpoints, the page, and a server to run them. Needs the ``server`` extra."""

from .access import check_entry, require_token
from .launch import open_server, wait_for_interrupt
from .routes import page_route

__all__ = ["check_entry", "open_server", "page_route", "require_token", "wait_for_interrupt"]
