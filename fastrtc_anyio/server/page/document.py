"""The page as one document, and the headers it is sent with.

Its style and its scripts are inside, and the policy that goes with it names them by their hashes:
whatever else gets into the page is not run, and nothing is loaded from elsewhere or sent there.
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Iterable
from functools import cache
from hashlib import sha256
from pathlib import Path

from fastrtc_anyio.server.access import check_origins

__all__ = ["page_document", "page_headers"]

_PAGE = Path(__file__).with_name("static")
_PARTS = re.compile(
    r'<link rel="stylesheet" href="(?P<style>[a-z.]+)">|<script src="(?P<script>[a-z.]+)"></script>'
)
_INLINE = re.compile(r"<(style|script)>(.*?)</\1>", re.DOTALL)
_HEADERS = {
    "Cache-Control": "no-cache",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    # What a browser would grant by default, to this page alone and not to frames inside it.
    "Permissions-Policy": "camera=(self), microphone=(self), geolocation=(), payment=(), usb=()",
}


@cache
def page_document() -> str:
    """The page with its style and its scripts inside: one answer, whatever path it is at."""

    def inline(match: re.Match[str]) -> str:
        name = match["style"] or match["script"]
        tag = "style" if match["style"] else "script"
        text = (_PAGE / name).read_text(encoding="utf-8")
        return f"<{tag}>\n{text}</{tag}>"

    return _PARTS.sub(inline, (_PAGE / "page.html").read_text(encoding="utf-8"))


def page_headers(framed_by: Iterable[str] | None = None) -> dict[str, str]:
    """What goes with the page.

    Args:
        framed_by: origins whose pages may show it in a frame, besides its own; None lets any.

    Raises:
        TypeError, ValueError: ``framed_by`` is no list of origins.
    """
    policy = _policy()
    if framed_by is not None:
        policy += " ".join(["; frame-ancestors 'self'", *check_origins(framed_by)])
    return {**_HEADERS, "Content-Security-Policy": policy}


@cache
def _policy() -> str:
    """The page's Content-Security-Policy (CSP level 3), but for who may frame it."""
    hashes: dict[str, list[str]] = {"style": [], "script": []}
    for tag, text in _INLINE.findall(page_document()):
        digest = b64encode(sha256(text.encode()).digest()).decode()
        hashes[tag].append(f"'sha256-{digest}'")
    return "; ".join(
        [
            "default-src 'none'",
            f"script-src {' '.join(hashes['script'])}",
            f"style-src {' '.join(hashes['style'])}",
            "connect-src 'self'",
            "img-src data:",  # the icon, which is empty
            "base-uri 'none'",
            "form-action 'none'",  # its forms are read by its scripts
            "require-trusted-types-for 'script'",
            "trusted-types 'none'",
        ]
    )
