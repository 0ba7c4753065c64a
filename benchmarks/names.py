"""Names of the servers to measure, such as ``ours-async-24-trio``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

OBSERVED = ("async+off", "async+on", "energy+off", "energy+on")
"""Handlers without and with all observability."""
HANDLERS = {
    "ours": (
        *("async", "sync", "session", "stopping", "video", "silero", "energy"),
        *OBSERVED,
    ),
    "fastrtc": ("async", "sync", "stopping", "video", "silero"),
    "raw": ("plain", "numpy"),
}
"""Handlers of each kind of server."""
ECHO_HANDLERS = ("async", "sync", "session", "stopping", "plain", "numpy")
RATES = ("8", "12", "16", "24", "48")
"""Sample rates of handlers, in kHz."""


def list_servers(handlers: Mapping[str, Sequence[str]]) -> str:
    """Return the beginnings of server names, for an error message."""
    return "; ".join(f"{kind}-{'|'.join(names)}" for kind, names in handlers.items() if names)


def check_server(name: str) -> None:
    """Check the name of a server, such as ``ours-async-24-trio`` or ``raw-plain``.

    Raises:
        ValueError: there is no such server; states what was expected.
    """
    kind, handler, rate, backend, *rest = [*name.split("-"), *("",) * 3]
    backends = ("trio", "asyncio", "") if kind == "ours" else ("asyncio", "")
    if (
        handler not in HANDLERS.get(kind, ())
        or rate not in (*RATES, "")
        or backend not in backends
        or any(rest)
    ):
        raise ValueError(
            f"unknown server {name}; expected {list_servers(HANDLERS)}; "
            f"then, if you like, -RATE in kHz ({', '.join(RATES)}) and, for ours, -trio or -asyncio"
        )
