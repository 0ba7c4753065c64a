"""The page that talks to a stream: its components and its document."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

__all__ = ["Backend", "Page"]

Backend = Literal["trio", "asyncio"]


class _Launchable(Protocol):
    def launch(self, host: str, port: int, backend: Backend) -> None: ...


@dataclass(frozen=True)
class Page:
    """FastRTC's ``stream.ui``."""

    stream: _Launchable

    def launch(
        self, server_name: str = "127.0.0.1", server_port: int = 7860, backend: Backend = "asyncio"
    ) -> None:
        """Call ``Stream.launch`` with Gradio's argument names, by default under asyncio."""
        self.stream.launch(server_name, server_port, backend)
