"""The page that talks to a stream: its components and its document."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

__all__ = ["Backend", "Page"]

Backend = Literal["trio", "asyncio"]


@dataclass(frozen=True)
class Page:
    """FastRTC's ``stream.ui``."""

    _launch: Callable[[str, int, Backend], None]

    def launch(
        self, server_name: str = "127.0.0.1", server_port: int = 7860, backend: Backend = "asyncio"
    ) -> None:
        """Call ``Stream.launch`` with Gradio's argument names, by default under asyncio."""
        self._launch(server_name, server_port, backend)
