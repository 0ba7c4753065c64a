"""Authenticity of calls: the signatures of carriers, and the tokens of Telnyx's WebSockets."""

from __future__ import annotations

import base64
import binascii
import hmac
import secrets
import time
from collections.abc import Collection
from dataclasses import replace
from urllib.parse import urlsplit

from starlette.datastructures import Headers

from fastrtc_anyio._core.log import logger
from fastrtc_anyio._wire.call_xml import TOKEN_PARAMETER, Carrier, TelephoneOptions
from fastrtc_anyio._wire.events import Start
from fastrtc_anyio._wire.signatures import is_plivo, is_token, is_twilio, make_token, telnyx_message
from fastrtc_anyio.errors import InvalidMessage, NotAllowed

__all__ = ["admit_by_token", "give_token", "refusal", "shows_secret", "signed_by"]

TELNYX_SECONDS = 300
"""Maximum age of a signature, as in Telnyx's own packages."""
_OWN_KEY = secrets.token_bytes(32)
_WRONG = {
    "auth_token": "the X-Twilio-Signature is not that of telephone.auth_token",
    "plivo_auth_token": "the X-Plivo-Signature-V3 is not that of telephone.plivo_auth_token",
    "telnyx_public_key": "the telnyx-signature-ed25519 is not that of telephone.telnyx_public_key, "
    f"or is not of the last {TELNYX_SECONDS} s",
}


def signed_by(
    options: TelephoneOptions,
    headers: Headers,
    url: str,
    form: Collection[tuple[str, str]] = (),
    body: bytes | None = None,
) -> Carrier | None:
    """Return the carrier whose signature a request or a WebSocket handshake carries.

    ``url`` is the address that the carrier used, and ``form`` holds the decoded fields of ``body``.
    A handshake has no body.
    """
    if options.auth_token is not None:
        signature = headers.get("x-twilio-signature", "")
        if is_twilio(options.auth_token, signature, url, form):
            return "twilio"
    if options.plivo_auth_token is not None:
        nonce = headers.get("x-plivo-signature-v3-nonce", "")
        for name in ("x-plivo-signature-v3", "x-plivo-signature-ma-v3"):
            signatures = headers.get(name, "")
            if nonce and is_plivo(options.plivo_auth_token, signatures, nonce, url, form):
                return "plivo"
    key = options.telnyx_public_key
    if key is not None and body is not None and _is_telnyx(key, headers, body):
        return "telnyx"
    return None


def refusal(options: TelephoneOptions, url: str) -> NotAllowed:
    """Return the error for a request that no carrier signed: it names the settings.

    It has no query, which may be secret: even the log at level DEBUG has no secrets.
    """
    parts = urlsplit(url)
    shown = parts._replace(query="...").geturl() if parts.query else url
    return NotAllowed("; ".join(_WRONG[name] for name in options.proofs), f"a request to {shown}")


def _is_telnyx(key: str, headers: Headers, body: bytes) -> bool:
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    timestamp = headers.get("telnyx-timestamp", "")
    try:
        signature = base64.b64decode(headers.get("telnyx-signature-ed25519", ""), validate=True)
        public_key = Ed25519PublicKey.from_public_bytes(base64.b64decode(key))
        public_key.verify(signature, telnyx_message(timestamp, body))
        return abs(int(time.time()) - int(timestamp)) <= TELNYX_SECONDS
    except (InvalidSignature, binascii.Error, ValueError):
        return False


def give_token(options: TelephoneOptions) -> str | None:
    """Return a token for the WebSocket of a call that is answered now; None without Telnyx."""
    return None if options.telnyx_public_key is None else make_token(_key(options), time.time())


def shows_secret(options: TelephoneOptions, headers: Headers) -> bool:
    """Return whether a WebSocket shows the secret itself: Telnyx's API began its call."""
    if options.secret is None:
        return False
    shown = headers.get("x-telnyx-streaming-auth-token", "")
    return hmac.compare_digest(shown.encode("latin-1"), options.secret.encode())


def admit_by_token(options: TelephoneOptions, start: Start) -> Start:
    """Check the token in the start of a call, and return the start without it.

    Raises:
        InvalidMessage: the token is missing, wrong or expired.
    """
    parameters = dict(start.parameters)
    if not is_token(_key(options), parameters.pop(TOKEN_PARAMETER, ""), time.time()):
        logger.warning(
            "a telephone's WebSocket was refused: its start has no valid token",
            event="telephone.refused",
        )
        raise InvalidMessage(
            "the start has no valid token: with telephone.telnyx_public_key the server accepts the "
            "calls that it answered in the last minutes, and those that show telephone.secret"
        )
    return replace(start, parameters=parameters)


def _key(options: TelephoneOptions) -> bytes:
    return _OWN_KEY if options.secret is None else options.secret.encode()
