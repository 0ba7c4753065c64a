"""The page that talks to a stream: its components, its document and FastRTC's ``stream.ui``."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from typing import TYPE_CHECKING, Literal, NoReturn

if TYPE_CHECKING:  # so that a `Stream` can be made without Starlette
    from starlette.applications import Starlette

__all__ = ["Backend", "Page"]

Backend = Literal["trio", "asyncio"]

Launch = Callable[[str, int, Backend], None]
Serve = Callable[[str, int, Backend], "AbstractContextManager[tuple[Starlette, str]]"]

_REFUSED = {
    "auth": "pass Stream(authenticate=...), which guards every endpoint",
    "auth_dependency": "pass Stream(authenticate=...), which guards every endpoint",
    "ssl_certfile": "serve the application with a server or behind a proxy that has certificates: "
    "stream.mount(app), and page_route() of fastrtc_anyio.server for the page",
    "ssl_keyfile": "see ssl_certfile",
}
"""Gradio's keywords that change who can reach the page, and what to do in their place."""


class Page:
    """FastRTC's ``stream.ui``: the page of a stream. It has no components of Gradio inside."""

    _launch: Launch
    _serve: Serve
    _running: ExitStack

    def __init__(self, launch: Launch, serve: Serve) -> None:
        vars(self).update(_launch=launch, _serve=serve, _running=ExitStack())

    def launch(
        self,
        server_name: str | None = None,
        server_port: int | None = None,
        backend: Backend = "asyncio",
        *,
        prevent_thread_lock: bool = False,
        **options: object,
    ) -> tuple[Starlette, str, None] | None:
        """Call ``Stream.launch`` with Gradio's argument names, by default under asyncio.

        Args:
            server_name: address to listen on; by default Gradio's environment variable
                ``GRADIO_SERVER_NAME``, or 127.0.0.1.
            server_port: port, 0 for any free port; by default ``GRADIO_SERVER_PORT``, or 7860.
            backend: as for ``Stream.launch``.
            prevent_thread_lock: serve on a thread until :meth:`close`, or until the program ends,
                and return ``(app, url, None)``. Otherwise, serve until Ctrl-C.
            options: Gradio's further keywords. They have no effect; a warning names those with a
                true value.

        Raises:
            ValueError: one of Gradio's keywords guards or encrypts its page; names the replacement.
            RuntimeError: ``prevent_thread_lock``, and the page is served on a thread already.
            OSError: the port is in use.
        """
        for name, replacement in _REFUSED.items():
            if options.get(name):
                raise ValueError(f"launch() has no {name}: {replacement}")
        if ignored := [name for name, value in options.items() if value]:
            warnings.warn(f"launch() ignores {', '.join(ignored)}", stacklevel=2)
        host = server_name or os.environ.get("GRADIO_SERVER_NAME") or "127.0.0.1"
        default = int(os.environ.get("GRADIO_SERVER_PORT") or 7860)
        port = default if server_port is None else server_port
        if not prevent_thread_lock:
            self._launch(host, port, backend)
            return None
        if vars(self).get("url"):
            raise RuntimeError(f"the page is served at {vars(self)['url']} already: close() it")
        app, url = self._running.enter_context(self._serve(host, port, backend))
        vars(self)["url"] = url
        return app, url, None

    def close(self) -> None:
        """Stop a server that ``launch(prevent_thread_lock=True)`` started. Idempotent.

        Returns when the sessions have ended.
        """
        vars(self).pop("url", None)
        self._running.close()

    def __enter__(self) -> NoReturn:
        raise _unlike_blocks("it cannot be extended in a `with` block")

    def __exit__(self, *_: object) -> None: ...

    def __getattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"stream.ui has no {name!r}: {_unlike_blocks('')}")

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(
            f"stream.ui has no {name!r} to set; gr.mount_gradio_app cannot mount it. Write "
            "stream.mount(app) and app.router.routes.append(page_route('/')), with page_route of "
            "fastrtc_anyio.server"
        )


def _unlike_blocks(reason: str) -> NotImplementedError:
    """Return the error of a program that uses the page like a ``gradio.Blocks``."""
    text = "the page of fastrtc_anyio is not a gradio.Blocks"
    return NotImplementedError(
        f"{text}{reason and f': {reason}'}. Pass components as additional_inputs and "
        "additional_outputs of the Stream, or serve your own page beside stream.mount(app)"
    )
