"""The page as one document, and the headers of its response.

The document contains its style and its scripts. The policy in the headers lists their hashes, so a
browser runs no other script, and sends and loads nothing elsewhere.
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
    # Permissions that browsers grant by default, but not for frames inside the page.
    "Permissions-Policy": "camera=(self), microphone=(self), geolocation=(), payment=(), usb=()",
}


@cache
def page_document() -> str:
    """Return the page with its style and its scripts. It works at any path."""

    def inline(match: re.Match[str]) -> str:
        name = match["style"] or match["script"]
        tag = "style" if match["style"] else "script"
        text = (_PAGE / name).read_text(encoding="utf-8")
        return f"<{tag}>\n{text}</{tag}>"

    return _PARTS.sub(inline, (_PAGE / "page.html").read_text(encoding="utf-8"))


def page_headers(framed_by: Iterable[str]) -> dict[str, str]:
    """Return the headers of the page, for :func:`~fastrtc_anyio.server.page_route`."""
    ancestors = " ".join(["'self'", *check_origins(framed_by, "framed_by")])
    policy = f"{_policy()}; frame-ancestors {ancestors}"
    return {**_HEADERS, "Content-Security-Policy": policy}


@cache
def _policy() -> str:
    """Return the page's Content-Security-Policy (CSP level 3), without ``frame-ancestors``."""
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
            "form-action 'none'",  # the page's scripts read its forms
            "require-trusted-types-for 'script'",
            "trusted-types 'none'",
        ]
    )
