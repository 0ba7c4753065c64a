"""How carriers sign what they send, and the tokens that stand in where one does not.

Twilio and Plivo sign requests and the handshakes of WebSockets, keyed with the account's secret.
What they sign is the address they use, so the address has to be known as they know it. Telnyx signs
requests alone, with a key of its own: :func:`telnyx_message` is what it signs. A WebSocket of
Telnyx's shows a token that its call was given: see :func:`make_token`.

Every check takes the same time for every wrong signature.
"""

from __future__ import annotations

import base64
import hmac
from collections.abc import Collection, Iterable
from urllib.parse import parse_qsl, urlsplit

__all__ = [
    "TOKEN_SECONDS",
    "is_plivo",
    "is_token",
    "is_twilio",
    "make_token",
    "sign_plivo",
    "sign_twilio",
    "telnyx_message",
]

TOKEN_SECONDS = 300
"""How long a token lets in. A greeting is spoken before the WebSocket comes."""

_STANDARD_PORTS = {"https": 443, "wss": 443, "http": 80, "ws": 80}
_OTHER_NAME = {"https": "wss", "wss": "https", "http": "ws", "ws": "http"}


def sign_twilio(token: str, url: str, form: Iterable[tuple[str, str]] = ()) -> str:
    """Twilio's ``X-Twilio-Signature`` of a request.

    Base64 of the HMAC-SHA1, keyed with the token, of the whole address followed by the names and
    values of the form, sorted by name.
    """
    text = url + "".join(name + value for name, value in sorted(set(form)))
    return _digest(token, text, "sha1")


def is_twilio(token: str, signature: str, url: str, form: Iterable[tuple[str, str]] = ()) -> bool:
    """Whether Twilio signed a request.

    Twilio is not of one mind about the port and, for WebSockets, a last slash: the address is
    tried with and without.
    """
    fields = list(form)
    return _is_any([sign_twilio(token, one, fields) for one in _variants(url)], [signature])


def sign_plivo(token: str, nonce: str, url: str, form: Collection[tuple[str, str]] = ()) -> str:
    """Plivo's ``X-Plivo-Signature-V3`` of a request.

    Base64 of the HMAC-SHA256, keyed with the token, of the address with its query sorted, the names
    and values of the form, sorted by name, and the nonce. Before the form is a ``?``, or a ``.``
    behind a query; before the nonce is a ``.``.
    """
    parts = urlsplit(url)
    query = "&".join(
        f"{name}={value}" for name, value in sorted(parse_qsl(parts.query, keep_blank_values=True))
    )
    text = f"{parts.scheme}://{parts.netloc}{parts.path}"
    if query or form:
        text += f"?{query}"
    if query and form:
        text += "."
    text += "".join(name + value for name, value in sorted(form))
    return _digest(token, f"{text}.{nonce}", "sha256")


def is_plivo(
    token: str,
    signatures: str,
    nonce: str,
    url: str,
    form: Collection[tuple[str, str]] = (),
) -> bool:
    """Whether Plivo signed a request; the handshake of a WebSocket is one without a form.

    Args:
        signatures: several, with commas, where the account has several tokens.

    Plivo's own packages take the address of a WebSocket for ``https://`` or for ``wss://``: both
    are tried, with and without the port.
    """
    variants = _variants(url)
    parts = urlsplit(url)
    if parts.scheme in ("ws", "wss"):
        variants += _variants(parts._replace(scheme=_OTHER_NAME[parts.scheme]).geturl())
    right = [sign_plivo(token, nonce, one, form) for one in variants]
    return _is_any(right, [one.strip() for one in signatures.split(",")])


def telnyx_message(timestamp: str, body: bytes) -> bytes:
    """What the ``telnyx-signature-ed25519`` of a request signs."""
    return timestamp.encode("utf-8", "surrogatepass") + b"|" + body


def make_token(key: bytes, now: float) -> str:
    """A token that lets in until :data:`TOKEN_SECONDS` from ``now``, a time of the wall clock."""
    ends = str(int(now) + TOKEN_SECONDS)
    return f"{ends}.{_seal(key, ends)}"


def is_token(key: bytes, token: str, now: float) -> bool:
    """Whether a token was made with the key and is not too old."""
    ends, _, seal = token.partition(".")
    genuine = _is_any([_seal(key, ends)], [seal])
    return genuine and now <= int(ends)


def _seal(key: bytes, ends: str) -> str:
    text = f"fastrtc_anyio telephone {ends}"
    return hmac.digest(key, text.encode("utf-8", "surrogatepass"), "sha256").hex()


def _digest(token: str, text: str, algorithm: str) -> str:
    digest = hmac.digest(token.encode(), text.encode("utf-8", "surrogatepass"), algorithm)
    return base64.b64encode(digest).decode("ascii")


def _is_any(right: Iterable[str], given: Iterable[str]) -> bool:
    signatures = [one.encode("utf-8", "surrogatepass") for one in given]
    found = False
    for one in right:
        for signature in signatures:
            found |= hmac.compare_digest(one.encode(), signature)
    return found


def _variants(url: str) -> list[str]:
    parts = urlsplit(url)
    port = _STANDARD_PORTS.get(parts.scheme)
    host = parts.netloc
    hosts = {host, host.removesuffix(f":{port}")}
    if not host.rpartition("]")[2].rpartition(":")[1]:
        hosts.add(f"{host}:{port}")
    found = [parts._replace(netloc=name).geturl() for name in sorted(hosts)]
    if parts.scheme in ("ws", "wss") and not parts.query:
        found += [f"{one}/" for one in found if not one.endswith("/")]
    return found
