"""Credentials for TURN servers, from those who run them.

Give ``Stream(rtc_configuration=get_turn_credentials_async, server_rtc_configuration=...)`` the
function itself: each call then gets credentials of its own, which grow old. Needs httpx, which the
``turn`` extra installs and which is imported on first use.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from .errors import CredentialsError

if TYPE_CHECKING:
    import httpx

__all__ = [
    "get_cloudflare_turn_credentials",
    "get_cloudflare_turn_credentials_async",
    "get_hf_turn_credentials",
    "get_hf_turn_credentials_async",
    "get_turn_credentials",
    "get_turn_credentials_async",
    "get_twilio_turn_credentials",
    "get_twilio_turn_credentials_async",
]

Method: TypeAlias = Literal["hf", "twilio", "cloudflare"]

_HF_URL = "https://turn.fastrtc.org/credentials"
_CLOUDFLARE_URL = "https://rtc.live.cloudflare.com/v1/turn/keys/{}/credentials/generate-ice-servers"
_TWILIO_URL = "https://api.twilio.com/2010-04-01/Accounts/{}/Tokens.json"
_SECONDS = 10.0
"""Seconds a provider gets to answer. Somebody is waiting for the call."""
_NO_METHOD = 'method must be "cloudflare", "twilio" or "hf"; got {!r}'
_MAX_SHOWN = 200
"""Characters of a provider's answer that an error shows."""


@dataclass(frozen=True)
class _Request:
    """What to ask a provider."""

    provider: str
    method: str
    url: str
    options: Mapping[str, Any] = field(repr=False)  # tokens


def get_hf_turn_credentials(
    token: str | None = None, ttl: int = 600, client: httpx.Client | None = None
) -> dict[str, Any]:
    """Credentials for the TURN servers of FastRTC's project. Deprecated there; use Cloudflare's.

    Args:
        token: a Hugging Face token; by default the variable ``HF_TOKEN``.
        ttl: seconds the credentials are good for.
        client: an httpx client of yours, which stays open.

    Returns:
        A W3C RTCConfiguration.

    Raises:
        ValueError: there is no token.
        CredentialsError: the provider gave none, or did not answer within 10 s.
        ImportError: httpx is missing.
    """
    _warn_of_hf("get_hf_turn_credentials")
    return _fetch(_hf_request(token, ttl), client)


async def get_hf_turn_credentials_async(
    token: str | None = None, ttl: int = 600, client: httpx.AsyncClient | None = None
) -> dict[str, Any]:
    """:func:`get_hf_turn_credentials`, under trio or asyncio."""
    _warn_of_hf("get_hf_turn_credentials_async")
    return await _fetch_async(_hf_request(token, ttl), client)


def get_cloudflare_turn_credentials(
    turn_key_id: str | None = None,
    turn_key_api_token: str | None = None,
    hf_token: str | None = None,
    ttl: int = 600,
    client: httpx.Client | None = None,
) -> dict[str, Any]:
    """Credentials for Cloudflare's TURN servers.

    What is given comes first, then the variable ``HF_TOKEN``, then ``CLOUDFLARE_TURN_KEY_ID`` and
    ``CLOUDFLARE_TURN_KEY_API_TOKEN``.

    Args:
        turn_key_id, turn_key_api_token: a key of your own account.
        hf_token: a Hugging Face token, for the servers FastRTC's project pays for.
        ttl: seconds the credentials are good for.
        client: an httpx client of yours, which stays open.

    Returns:
        A W3C RTCConfiguration.

    Raises:
        ValueError: there is neither a token nor a key.
        CredentialsError: the provider gave none, or did not answer within 10 s.
        ImportError: httpx is missing.
    """
    request = _cloudflare_request(turn_key_id, turn_key_api_token, hf_token, ttl)
    return _fetch(request, client)


async def get_cloudflare_turn_credentials_async(
    turn_key_id: str | None = None,
    turn_key_api_token: str | None = None,
    hf_token: str | None = None,
    ttl: int = 600,
    client: httpx.AsyncClient | None = None,
) -> dict[str, Any]:
    """:func:`get_cloudflare_turn_credentials`, under trio or asyncio."""
    request = _cloudflare_request(turn_key_id, turn_key_api_token, hf_token, ttl)
    return await _fetch_async(request, client)


def get_twilio_turn_credentials(
    twilio_sid: str | None = None,
    twilio_token: str | None = None,
    client: httpx.Client | None = None,
) -> dict[str, Any]:
    """Credentials for Twilio's TURN servers. Twilio's own package is not needed.

    Args:
        twilio_sid: of the account; by default the variable ``TWILIO_ACCOUNT_SID``.
        twilio_token: by default ``TWILIO_AUTH_TOKEN``.
        client: an httpx client of yours, which stays open.

    Returns:
        A W3C RTCConfiguration, for relayed connections only.

    Raises:
        ValueError: there is no account or no token.
        CredentialsError: the provider gave none, or did not answer within 10 s.
        ImportError: httpx is missing.
    """
    return _as_relay(_fetch(_twilio_request(twilio_sid, twilio_token), client))


async def get_twilio_turn_credentials_async(
    twilio_sid: str | None = None,
    twilio_token: str | None = None,
    client: httpx.AsyncClient | None = None,
) -> dict[str, Any]:
    """:func:`get_twilio_turn_credentials`, under trio or asyncio."""
    return _as_relay(await _fetch_async(_twilio_request(twilio_sid, twilio_token), client))


def get_turn_credentials(method: Method = "cloudflare", **kwargs: Any) -> dict[str, Any]:
    """Credentials for TURN servers, from the provider named.

    Args:
        method: ``"cloudflare"``, ``"twilio"`` or ``"hf"``.
        kwargs: arguments of ``get_{method}_turn_credentials``.

    Raises:
        ValueError: there is no such provider, or what it needs is missing.
        CredentialsError: the provider gave none, or did not answer within 10 s.
    """
    match method:
        case "cloudflare":
            return get_cloudflare_turn_credentials(**kwargs)
        case "twilio":
            return get_twilio_turn_credentials(**kwargs)
        case "hf":
            return get_hf_turn_credentials(**kwargs)
        case _:
            raise ValueError(_NO_METHOD.format(method))


async def get_turn_credentials_async(
    method: Method = "cloudflare", **kwargs: Any
) -> dict[str, Any]:
    """:func:`get_turn_credentials`, under trio or asyncio."""
    match method:
        case "cloudflare":
            return await get_cloudflare_turn_credentials_async(**kwargs)
        case "twilio":
            return await get_twilio_turn_credentials_async(**kwargs)
        case "hf":
            return await get_hf_turn_credentials_async(**kwargs)
        case _:
            raise ValueError(_NO_METHOD.format(method))


def _hf_request(token: str | None, ttl: int) -> _Request:
    token = token or _variable("HF_TOKEN")
    if token is None:
        raise ValueError("there is no Hugging Face token: give one, or set HF_TOKEN")
    options = {"headers": {"Authorization": f"Bearer {token}"}, "params": {"ttl": ttl}}
    return _Request("turn.fastrtc.org", "GET", _HF_URL, options)


def _cloudflare_request(
    key: str | None, token: str | None, hf_token: str | None, ttl: int
) -> _Request:
    if hf_token or (not (key and token) and _variable("HF_TOKEN")):
        return _hf_request(hf_token, ttl)
    if not (key and token):
        key = _variable("CLOUDFLARE_TURN_KEY_ID")
        token = _variable("CLOUDFLARE_TURN_KEY_API_TOKEN")
    if not (key and token):
        raise ValueError(
            "there is no TURN key of Cloudflare: give turn_key_id and turn_key_api_token, or set "
            "CLOUDFLARE_TURN_KEY_ID and CLOUDFLARE_TURN_KEY_API_TOKEN, or HF_TOKEN"
        )
    options = {"headers": {"Authorization": f"Bearer {token}"}, "json": {"ttl": ttl}}
    return _Request("Cloudflare", "POST", _CLOUDFLARE_URL.format(key), options)


def _twilio_request(sid: str | None, token: str | None) -> _Request:
    sid = sid or _variable("TWILIO_ACCOUNT_SID")
    token = token or _variable("TWILIO_AUTH_TOKEN")
    if sid is None or token is None:
        raise ValueError(
            "there is no Twilio account: give twilio_sid and twilio_token, or set "
            "TWILIO_ACCOUNT_SID and TWILIO_AUTH_TOKEN"
        )
    return _Request("Twilio", "POST", _TWILIO_URL.format(sid), {"auth": (sid, token)})


def _fetch(request: _Request, client: httpx.Client | None) -> dict[str, Any]:
    httpx = _import_httpx()
    try:
        if client is None:
            with httpx.Client(timeout=_SECONDS) as own:
                response = own.request(request.method, request.url, **request.options)
        else:
            response = client.request(request.method, request.url, **request.options)
    except httpx.HTTPError as exc:
        raise _no_answer(request, exc) from exc
    return _read(request, response)


async def _fetch_async(request: _Request, client: httpx.AsyncClient | None) -> dict[str, Any]:
    httpx = _import_httpx()
    try:
        if client is None:
            async with httpx.AsyncClient(timeout=_SECONDS) as own:
                response = await own.request(request.method, request.url, **request.options)
        else:
            response = await client.request(request.method, request.url, **request.options)
    except httpx.HTTPError as exc:
        raise _no_answer(request, exc) from exc
    return _read(request, response)


def _read(request: _Request, response: httpx.Response) -> dict[str, Any]:
    text = response.text[:_MAX_SHOWN]
    if not response.is_success:
        raise CredentialsError(
            f"{request.provider} gave no TURN credentials: {response.status_code} {text}"
        )
    try:
        body = response.json()
    except ValueError as exc:
        raise CredentialsError(f"{request.provider} sent no JSON: {text}") from exc
    if not isinstance(body, dict) or not (body.get("iceServers") or body.get("ice_servers")):
        raise CredentialsError(f"{request.provider} sent no ICE servers: {text}")
    return body


def _as_relay(token: Mapping[str, Any]) -> dict[str, Any]:
    """Twilio's token as W3C has it."""
    servers = [
        {
            "urls": server.get("urls") or server.get("url"),
            **{key: server[key] for key in ("username", "credential") if key in server},
        }
        for server in token.get("ice_servers") or token["iceServers"]
    ]
    return {"iceServers": servers, "iceTransportPolicy": "relay"}


def _no_answer(request: _Request, error: Exception) -> CredentialsError:
    text = str(error) or type(error).__name__
    return CredentialsError(f"{request.provider} could not be asked for TURN credentials: {text}")


def _variable(name: str) -> str | None:
    return os.environ.get(name, "").strip() or None


def _warn_of_hf(name: str) -> None:
    message = f"{name} is deprecated; use {name.replace('_hf_', '_cloudflare_')}"
    warnings.warn(message, UserWarning, stacklevel=3)


def _import_httpx() -> Any:
    try:
        import httpx
    except ImportError as exc:
        raise ImportError("TURN credentials need httpx: pip install 'fastrtc-anyio[turn]'") from exc
    return httpx
