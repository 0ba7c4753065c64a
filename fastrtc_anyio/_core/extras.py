"""Optional packages, and the extras of this package that install them."""

from __future__ import annotations

_EXTRAS = {"httpx": "demo", "h11": "server", "starlette": "server", "wsproto": "server"}
_OWN = "fastrtc-anyio["
"""Part of this package's own messages about a missing extra."""


def explain_import_error(error: ImportError, what: str) -> str | None:
    """Return one line on how to install a missing package, or None for any other package.

    ``what`` names the purpose: "this command".
    """
    if _OWN in str(error):
        return str(error)
    extra = _EXTRAS.get((error.name or "").partition(".")[0])
    if extra is None:
        return None
    return f"{what} needs more packages: pip install 'fastrtc-anyio[{extra}]' ({error})"
