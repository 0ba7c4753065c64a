"""Options of telephone calls, and the XML that answers an incoming call."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass, field
from html import escape
from typing import Literal, TypeAlias, get_args

from fastrtc_anyio._core.options import check_choice, is_http_url, short_repr

from .telnyx import TelnyxCodec

Carrier: TypeAlias = Literal["twilio", "telnyx", "plivo"]

TOKEN_PARAMETER = "fastrtc_token"
"""Parameter of a Telnyx ``start`` that contains the token."""

_OWNERS: Mapping[str, Carrier] = {
    "auth_token": "twilio",
    "plivo_auth_token": "plivo",
    "telnyx_public_key": "telnyx",
}
_PUBLIC_KEY_BYTES = 32  # RFC 8032 5.1.5


@dataclass(frozen=True)
class TelephoneOptions:
    """Options of telephone calls.

    With ``auth_token``, ``plivo_auth_token`` or ``telnyx_public_key``, the server accepts only
    requests and WebSockets that one of those carriers has signed. Without them, ``authenticate``
    and ``allowed_origins`` apply, as to other clients.

    Attributes:
        carrier: carrier whose XML answers an incoming call; by default that of the request.
            WebSockets of every carrier are understood.
        auth_token: secret of a Twilio account, which signs ``X-Twilio-Signature``.
        public_url: URL of this server as the carrier sees it, such as ``https://example.com``.
            Needed behind a proxy. A path in it replaces the ``root_path`` of the server. The path
            at which the stream is mounted follows it.
        trust_forwarded: derive the public URL from ``X-Forwarded-Proto``, ``X-Forwarded-Host`` and,
            unless a ``root_path`` is set, ``X-Forwarded-Prefix``. Use it only behind a proxy that
            sets or removes all three: clients can forge them.
        greeting: text that the carrier speaks before it connects the call.
        farewell: text that it speaks after the handler has ended the call.
        plivo_auth_token: secret of a Plivo account, which signs ``X-Plivo-Signature-V3``.
        telnyx_public_key: public key of a Telnyx account, in base64, for its
            ``telnyx-signature-ed25519``.
        secret: secret of the application for Telnyx's WebSockets, which are unsigned. The answer to
            an incoming call contains a token made with it, which the WebSocket must present within
            5 minutes. The default is random for each process; processes that serve the same number
            need a common one. A call placed through Telnyx's API presents it as its
            ``stream_auth_token``.
        telnyx_codec: codec of the audio to Telnyx: ``"PCMU"``, ``"PCMA"``, or ``"L16"`` at 16 kHz.
            The answer to an incoming call requests it. A call placed through Telnyx's API must
            request the same as ``stream_bidirectional_codec``.

    Raises:
        ValueError: an option is invalid, or has no effect in this combination.
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
        check_choice("carrier", self.carrier, [*get_args(Carrier), None])
        check_choice("telnyx_codec", self.telnyx_codec, get_args(TelnyxCodec))
        for name in self.proofs:
            if self.carrier not in (None, _OWNERS[name]):
                owner = _OWNERS[name].capitalize()
                raise ValueError(f"{name} is {owner}'s, but carrier is {self.carrier!r}")
        for name in ("auth_token", "plivo_auth_token", "secret"):
            if getattr(self, name) == "":
                raise ValueError(f"{name} must not be empty")
        if self.telnyx_public_key is not None:
            _check_key(self.telnyx_public_key)
        elif self.secret is not None:
            raise ValueError("secret has no effect without telnyx_public_key")
        if self.public_url is not None and not is_http_url(self.public_url):
            raise ValueError(
                "public_url must be a URL like https://example.com; "
                f"got {short_repr(self.public_url)}"
            )

    @property
    def proofs(self) -> tuple[str, ...]:
        """Names of the options in use that authenticate a carrier."""
        return tuple(name for name in _OWNERS if getattr(self, name) is not None)


def _check_key(text: str) -> None:
    try:
        size = len(base64.b64decode(text, validate=True))
    except (binascii.Error, ValueError):
        size = -1
    if size != _PUBLIC_KEY_BYTES:
        raise ValueError(
            f"telnyx_public_key must be {_PUBLIC_KEY_BYTES} bytes in base64; got {short_repr(text)}"
        )


def recognise_carrier(headers: Mapping[str, str], form: Mapping[str, str]) -> Carrier:
    """Detect the carrier of a request by the header or field that only this carrier sends.

    ``headers`` are in lower case or case-insensitive.
    """
    if "telnyx-signature-ed25519" in headers or "CallSidLegacy" in form:
        return "telnyx"
    if "x-plivo-signature-v3" in headers or "CallUUID" in form:
        return "plivo"
    return "twilio"


def answer_call(
    carrier: Carrier, url: str, options: TelephoneOptions, token: str | None = None
) -> str:
    """Return the XML that connects a call to the WebSocket at ``url``.

    ``token`` is the token that a Telnyx WebSocket must present.
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
    # Without a codec, Telnyx would send the call's codec; without a bidirectionalCodec, expect
    # PCMU.
    settings = f'bidirectionalMode="rtp" codec="{codec}" bidirectionalCodec="{codec}"'
    if codec == "L16":
        settings += ' bidirectionalSamplingRate="16000"'
    shown = "" if token is None else f'<Parameter name="{TOKEN_PARAMETER}" value="{token}"/>'
    return f'<Stream url="{address}" {settings}>{shown}</Stream>'
