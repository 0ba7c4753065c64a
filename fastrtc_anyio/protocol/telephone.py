"""The answer to an incoming call, and the proof that Twilio sent the request."""

from __future__ import annotations

import base64
import hmac
from collections.abc import Iterable
from dataclasses import dataclass, field
from html import escape
from typing import Literal, TypeAlias, get_args
from urllib.parse import urlsplit

__all__ = ["Carrier", "TelephoneOptions", "answer_call", "is_signed", "sign_request"]

Carrier: TypeAlias = Literal["twilio", "telnyx", "plivo"]

_STANDARD_PORTS = {"https": 443, "wss": 443, "http": 80, "ws": 80}


@dataclass(frozen=True)
class TelephoneOptions:
    """How calls from a telephone come in.

    Attributes:
        carrier: whose XML answers an incoming call. The audio of each is understood anyway.
        auth_token: the secret of a Twilio account. With it, a request or a WebSocket without a
            right ``X-Twilio-Signature`` is refused; without it, nobody is asked who they are.
        public_url: where the carrier reaches this server, such as ``https://example.com``, if a
            proxy is between the two.
        trust_forwarded: take it from ``X-Forwarded-Proto`` and ``X-Forwarded-Host``. Only behind a
            proxy that sets them itself: anybody can send them.
        greeting: what the carrier says before the call is connected.
        farewell: what it says when the handler has ended it.

    Raises:
        ValueError: an option that is not possible, or one that does nothing.
    """

    carrier: Carrier = "twilio"
    auth_token: str | None = field(default=None, repr=False)
    public_url: str | None = None
    trust_forwarded: bool = False
    greeting: str = ""
    farewell: str = ""

    def __post_init__(self) -> None:
        if self.carrier not in get_args(Carrier):
            raise ValueError(f"carrier must be one of {get_args(Carrier)}; got {self.carrier!r}")
        if self.auth_token is not None and self.carrier != "twilio":
            raise ValueError(f"auth_token is Twilio's; the carrier is {self.carrier!r}")
        if self.auth_token == "":
            raise ValueError("auth_token must not be empty: an empty secret is known to everybody")
        if self.public_url is not None:
            parts = urlsplit(self.public_url)
            if parts.scheme not in ("http", "https") or not parts.netloc or parts.query:
                raise ValueError(
                    f"public_url must be like https://example.com; got {self.public_url!r}"
                )


def answer_call(url: str, options: TelephoneOptions) -> str:
    """The XML that connects a call to a WebSocket.

    Args:
        url: of the WebSocket, ``wss://``.
        options: whose XML, and what is said.
    """
    address, speak = escape(url), "Say"
    if options.carrier == "plivo":
        speak = "Speak"
        connect = (
            '<Stream bidirectional="true" keepCallAlive="true" '
            f'contentType="audio/x-mulaw;rate=8000">{address}</Stream>'
        )
    elif options.carrier == "telnyx":
        connect = f'<Connect><Stream url="{address}" bidirectionalMode="rtp"/></Connect>'
    else:
        connect = f'<Connect><Stream url="{address}"/></Connect>'
    said = [
        f"<{speak}>{escape(text)}</{speak}>" if text else ""
        for text in (options.greeting, options.farewell)
    ]
    body = f"{said[0]}{connect}{said[1]}"
    return f'<?xml version="1.0" encoding="UTF-8"?><Response>{body}</Response>'


def sign_request(token: str, url: str, form: Iterable[tuple[str, str]] = ()) -> str:
    """Twilio's signature of a request.

    Base64 of the HMAC-SHA1, keyed with the token, of the whole address followed by the names and
    values of the form, sorted by name.
    """
    text = url + "".join(name + value for name, value in sorted(set(form)))
    digest = hmac.digest(token.encode(), text.encode("utf-8", "surrogatepass"), "sha1")
    return base64.b64encode(digest).decode("ascii")


def is_signed(token: str, signature: str, url: str, form: Iterable[tuple[str, str]] = ()) -> bool:
    """Whether a request was signed with the token. Takes the same time for every wrong signature.

    Twilio is not of one mind about the port and, for WebSockets, a last slash: the address is
    tried with and without.
    """
    fields = list(form)
    given = signature.encode("utf-8", "surrogatepass")
    found = False
    for variant in _variants(url):
        found |= hmac.compare_digest(sign_request(token, variant, fields).encode(), given)
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
