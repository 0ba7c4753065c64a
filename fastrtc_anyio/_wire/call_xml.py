"""The options of calls from a telephone, and the answer to an incoming one."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass, field
from html import escape
from typing import Literal, TypeAlias, get_args
from urllib.parse import urlsplit

from .telnyx import TelnyxCodec

__all__ = ["TOKEN_PARAMETER", "Carrier", "TelephoneOptions", "answer_call", "recognise_carrier"]

Carrier: TypeAlias = Literal["twilio", "telnyx", "plivo"]

TOKEN_PARAMETER = "fastrtc_token"
"""The parameter of a call's ``start`` that a token comes in."""

_OWNERS: Mapping[str, Carrier] = {
    "auth_token": "twilio",
    "plivo_auth_token": "plivo",
    "telnyx_public_key": "telnyx",
}
_PUBLIC_KEY_BYTES = 32  # RFC 8032 5.1.5


@dataclass(frozen=True)
class TelephoneOptions:
    """How calls from a telephone come in.

    With ``auth_token``, ``plivo_auth_token`` or ``telnyx_public_key``, or more than one of them,
    only those carriers' calls come in: a request or a WebSocket that none of them vouches for is
    refused. Without, ``authenticate`` and ``allowed_origins`` decide, as for everybody else.

    Attributes:
        carrier: whose XML answers an incoming call; None for that of whoever asks. The audio of
            each is understood anyway.
        auth_token: the secret of a Twilio account, which makes its ``X-Twilio-Signature``.
        public_url: where the carrier reaches this server, such as ``https://example.com``, if a
            proxy is between the two.
        trust_forwarded: take it from ``X-Forwarded-Proto`` and ``X-Forwarded-Host``. Only behind a
            proxy that sets them itself: anybody can send them.
        greeting: what the carrier says before the call is connected.
        farewell: what it says when the handler has ended it.
        plivo_auth_token: the secret of a Plivo account, which makes its ``X-Plivo-Signature-V3``.
        telnyx_public_key: of a Telnyx account, in base64, for its ``telnyx-signature-ed25519``.
        secret: of your own. Telnyx does not sign its WebSockets: the answer to an incoming call
            gives it a token, made with this, that its WebSocket has to show within 5 minutes. By
            default each process has a secret of its own; several that serve one number need a
            common one. A call begun through Telnyx's API shows it as its ``stream_auth_token``.
        telnyx_codec: what a Telnyx call is sent: ``"PCMU"``, ``"PCMA"``, or ``"L16"`` at 16 kHz.
            The answer to an incoming call asks for it; a call begun through Telnyx's API has to
            ask for the same as ``stream_bidirectional_codec``.

    Raises:
        ValueError: an option that is not possible, or one that does nothing.
    """

    carrier: Carrier | None = None
    auth_token: str | None = field(default=None, repr=False)
    public_url: str | None = None
    trust_forwarded: bool = False
    greeting: str = ""
    farewell: str = ""
    plivo_auth_token: str | None = field(default=None, repr=False)
    telnyx_public_key: str | None = None
    secret: str | None = field(default=None, repr=False)
    telnyx_codec: TelnyxCodec = "PCMU"

    def __post_init__(self) -> None:
        for name, kind in (("carrier", Carrier), ("telnyx_codec", TelnyxCodec)):
            value = getattr(self, name)
            if value not in get_args(kind) and not (value is None and name == "carrier"):
                raise ValueError(f"{name} must be one of {get_args(kind)}; got {value!r}")
        for name in self.proofs:
            if self.carrier not in (None, _OWNERS[name]):
                owner = _OWNERS[name].capitalize()
                raise ValueError(f"{name} is {owner}'s; the carrier is {self.carrier!r}")
        for name in ("auth_token", "plivo_auth_token", "secret"):
            if getattr(self, name) == "":
                raise ValueError(f"{name} must not be empty: an empty secret is known to everybody")
        if self.telnyx_public_key is not None:
            _decode_key(self.telnyx_public_key)
        elif self.secret is not None:
            raise ValueError("secret does nothing without telnyx_public_key")
        if self.public_url is not None:
            parts = urlsplit(self.public_url)
            if parts.scheme not in ("http", "https") or not parts.netloc or parts.query:
                raise ValueError(
                    f"public_url must be like https://example.com; got {self.public_url!r}"
                )

    @property
    def proofs(self) -> tuple[str, ...]:
        """The settings that say who is calling, of those that are set."""
        return tuple(name for name in _OWNERS if getattr(self, name) is not None)


def _decode_key(text: str) -> None:
    try:
        size = len(base64.b64decode(text, validate=True))
    except (binascii.Error, ValueError):
        size = -1
    if size != _PUBLIC_KEY_BYTES:
        raise ValueError(
            f"telnyx_public_key must be {_PUBLIC_KEY_BYTES} bytes in base64; got {text!r}"
        )


def recognise_carrier(headers: Mapping[str, str], form: Mapping[str, str]) -> Carrier:
    """Who asks what to do with a call, by what its requests have and the others' have not.

    Args:
        headers: of the request, in lower case or of a mapping that does not care.
        form: its fields.
    """
    if "telnyx-signature-ed25519" in headers or "CallSidLegacy" in form:
        return "telnyx"
    if "x-plivo-signature-v3" in headers or "CallUUID" in form:
        return "plivo"
    return "twilio"


def answer_call(
    carrier: Carrier, url: str, options: TelephoneOptions, token: str | None = None
) -> str:
    """The XML that connects a call to a WebSocket.

    Args:
        carrier: whose XML.
        url: of the WebSocket, ``wss://``.
        options: what is said, and what Telnyx is sent.
        token: what Telnyx is to show there.
    """
    address, speak = escape(url), "Say"
    if carrier == "plivo":
        speak = "Speak"
        connect = (
            '<Stream bidirectional="true" keepCallAlive="true" '
            f'contentType="audio/x-mulaw;rate=8000">{address}</Stream>'
        )
    elif carrier == "telnyx":
        connect = f"<Connect>{_telnyx_stream(address, options.telnyx_codec, token)}</Connect>"
    else:
        connect = f'<Connect><Stream url="{address}"/></Connect>'
    said = [
        f"<{speak}>{escape(text)}</{speak}>" if text else ""
        for text in (options.greeting, options.farewell)
    ]
    body = f"{said[0]}{connect}{said[1]}"
    return f'<?xml version="1.0" encoding="UTF-8"?><Response>{body}</Response>'


def _telnyx_stream(address: str, codec: TelnyxCodec, token: str | None) -> str:
    # Both codecs are named: one that is left out is the call's own one way and PCMU the other.
    settings = f'bidirectionalMode="rtp" codec="{codec}" bidirectionalCodec="{codec}"'
    if codec == "L16":
        settings += ' bidirectionalSamplingRate="16000"'
    shown = "" if token is None else f'<Parameter name="{TOKEN_PARAMETER}" value="{token}"/>'
    return f'<Stream url="{address}" {settings}>{shown}</Stream>'
