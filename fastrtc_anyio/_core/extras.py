"""Optional packages, and the extras of this package that install them."""

from __future__ import annotations

_EXTRAS = {"httpx": "demo", "h11": "server", "starlette": "server", "wsproto": "server"}
_OWN = "fastrtc-anyio["
"""Part of this package's own messages about a missing extra."""


def explain_import_error(error: ImportError, what: str, extra: str | None = None) -> str | None:
    """Return one line on how to install a missing package, or None for any other package.

    ``what`` names the purpose: "this command". ``extra`` installs all that it needs; by default it
    is the extra of the missing package.
    """
    if _OWN in str(error):
        return str(error)
    known = _EXTRAS.get((error.name or "").partition(".")[0])
    if known is None:
        return None
    return f"{what} needs more packages: pip install 'fastrtc-anyio[{extra or known}]' ({error})"
