"""ASGI: the endpoints, the page, and a server to run them. Needs the ``server`` extra."""

from .launch import open_server, wait_for_interrupt
from .routes import page_route

__all__ = ["open_server", "page_route", "wait_for_interrupt"]
