"""Signatures of carriers, and tokens for the carrier that does not sign its WebSockets.

Twilio and Plivo sign requests and WebSocket handshakes with the account's secret. They sign the URL
that they use, so the server must know its public URL. Telnyx signs requests only, with a private
key; :func:`telnyx_message` returns the signed bytes. A Telnyx WebSocket presents a token from the
answer to its call instead: see :func:`make_token`.

Every comparison takes constant time.
"""

from __future__ import annotations

import base64
import hmac
from collections.abc import Collection, Iterable
from urllib.parse import parse_qsl, urlsplit

TOKEN_SECONDS = 300
"""Lifetime of a token in seconds. The carrier speaks the greeting before the WebSocket opens."""

_STANDARD_PORTS = {"https": 443, "wss": 443, "http": 80, "ws": 80}
_OTHER_NAME = {"https": "wss", "wss": "https", "http": "ws", "ws": "http"}


def sign_twilio(token: str, url: str, form: Iterable[tuple[str, str]] = ()) -> str:
    """Compute the ``X-Twilio-Signature`` of a request.

    It is the base64 of the HMAC-SHA1, keyed with the token, of the whole URL followed by the names
    and values of the form, sorted by name.
    """
    text = url + "".join(name + value for name, value in sorted(set(form)))
    return _digest(token, text, "sha1")


def is_twilio(token: str, signature: str, url: str, form: Iterable[tuple[str, str]] = ()) -> bool:
    """Whether Twilio signed a request.

    Twilio's products differ about the port and, for WebSockets, a final slash: every variant of the
    URL is accepted.
    """
    fields = list(form)
    return _is_any([sign_twilio(token, one, fields) for one in _variants(url)], [signature])


def sign_plivo(token: str, nonce: str, url: str, form: Collection[tuple[str, str]] = ()) -> str:
    """Compute the ``X-Plivo-Signature-V3`` of a request.

    It is the base64 of the HMAC-SHA256, keyed with the token, of three parts: the URL with its
    query sorted; the names and values of the form, sorted by name; and the nonce. A ``?`` precedes
    the form, or a ``.`` if there is a query. A ``.`` precedes the nonce.
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
    token: str, signatures: str, nonce: str, url: str, form: Collection[tuple[str, str]] = ()
) -> bool:
    """Whether Plivo signed a request or a WebSocket handshake, which has no form.

    ``signatures`` are comma-separated, one for each secret of the account. Plivo's own packages
    differ about the scheme of a WebSocket, ``https`` or ``wss``, and about the port: every variant
    of the URL is accepted.
    """
    variants = _variants(url)
    parts = urlsplit(url)
    if parts.scheme in ("ws", "wss"):
        variants += _variants(parts._replace(scheme=_OTHER_NAME[parts.scheme]).geturl())
    right = [sign_plivo(token, nonce, one, form) for one in variants]
    return _is_any(right, [one.strip() for one in signatures.split(",")])


def telnyx_message(timestamp: str, body: bytes) -> bytes:
    """Return the bytes that the ``telnyx-signature-ed25519`` of a request signs."""
    return timestamp.encode("utf-8", "surrogatepass") + b"|" + body


def make_token(key: bytes, now: float) -> str:
    """Return a token that expires :data:`TOKEN_SECONDS` after ``now``, in Unix time."""
    expiry = str(int(now) + TOKEN_SECONDS)
    return f"{expiry}.{_seal(key, expiry)}"


def is_token(key: bytes, token: str, now: float) -> bool:
    """Whether a token was made with the key and has not expired."""
    expiry, _, seal = token.partition(".")
    genuine = _is_any([_seal(key, expiry)], [seal])
    return genuine and now <= int(expiry)


def _seal(key: bytes, expiry: str) -> str:
    text = f"fastrtc_anyio telephone {expiry}"
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
