"""Credentials for TURN servers, from their providers.

Credentials expire, so pass the function itself: with
``Stream(rtc_configuration=get_turn_credentials_async, server_rtc_configuration=...)``, each call
gets its own. The functions need httpx, which the ``turn`` extra installs, and import it on first
use.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Awaitable, Callable, Generator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from ._core.options import check_choice
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
_SECONDS = 10.0  # a caller is waiting
_MAX_SHOWN = 200  # characters of a provider's answer in an error

Credentials: TypeAlias = dict[str, Any]
"""A W3C RTCConfiguration."""


@dataclass(frozen=True)
class _Request:
    provider: str
    method: str
    url: str
    options: Mapping[str, Any] = field(repr=False)  # secret tokens
    relay_only: bool = False

    def read(self, response: httpx.Response) -> Credentials:
        text = response.text[:_MAX_SHOWN]
        if not response.is_success:
            raise self.error(f"{response.status_code} {text}")
        try:
            body = response.json()
        except ValueError as exc:
            raise self.error(f"the answer is not JSON: {text}") from exc
        servers = isinstance(body, dict) and (body.get("iceServers") or body.get("ice_servers"))
        if not servers:  # other values may be credentials
            keys = f"the keys {sorted(body)}" if isinstance(body, dict) else type(body).__name__
            raise self.error(f"the answer has no ICE servers; got {keys}")
        return _as_relay(servers) if self.relay_only else body

    @contextmanager
    def import_httpx(self) -> Generator[ModuleType, None, None]:
        """Import httpx, and convert its errors."""
        try:
            import httpx
        except ImportError as exc:
            raise ImportError(
                "TURN credentials need httpx: pip install 'fastrtc-anyio[turn]'"
            ) from exc
        try:
            yield httpx
        except httpx.HTTPError as exc:
            raise self.error(str(exc) or type(exc).__name__) from exc

    def error(self, reason: str) -> CredentialsError:
        return CredentialsError(f"could not get TURN credentials from {self.provider}: {reason}")


def get_hf_turn_credentials(
    token: str | None = None, ttl: int = 600, client: httpx.Client | None = None
) -> Credentials:
    """Get a W3C RTCConfiguration with the TURN servers of FastRTC's project.

    FastRTC has deprecated these servers; use Cloudflare's.

    Args:
        token: a Hugging Face token; by default the environment variable ``HF_TOKEN``.
        ttl: lifetime of the credentials in seconds.
        client: an httpx client to use, which stays open.

    Raises:
        ValueError: no token was found.
        CredentialsError: the provider refused, or did not answer within 10 s.
    """
    _warn_about_hf("get_hf_turn_credentials")
    return _fetch(_hf_request(token, ttl), client)


async def get_hf_turn_credentials_async(
    token: str | None = None, ttl: int = 600, client: httpx.AsyncClient | None = None
) -> Credentials:
    """Async version of :func:`get_hf_turn_credentials`."""
    _warn_about_hf("get_hf_turn_credentials_async")
    return await _fetch_async(_hf_request(token, ttl), client)


def get_cloudflare_turn_credentials(
    turn_key_id: str | None = None,
    turn_key_api_token: str | None = None,
    hf_token: str | None = None,
    ttl: int = 600,
    client: httpx.Client | None = None,
) -> Credentials:
    """Get a W3C RTCConfiguration with Cloudflare's TURN servers.

    Arguments take precedence over the environment variable ``HF_TOKEN``, and that over
    ``CLOUDFLARE_TURN_KEY_ID`` and ``CLOUDFLARE_TURN_KEY_API_TOKEN``.

    Args:
        turn_key_id: a TURN key of your account.
        turn_key_api_token: the API token of that key.
        hf_token: a Hugging Face token, for the servers that FastRTC's project pays for.
        ttl: lifetime of the credentials in seconds.
        client: an httpx client to use, which stays open.

    Raises:
        ValueError: neither a token nor a key was found.
        CredentialsError: the provider refused, or did not answer within 10 s.
    """
    return _fetch(_cloudflare_request(turn_key_id, turn_key_api_token, hf_token, ttl), client)


async def get_cloudflare_turn_credentials_async(
    turn_key_id: str | None = None,
    turn_key_api_token: str | None = None,
    hf_token: str | None = None,
    ttl: int = 600,
    client: httpx.AsyncClient | None = None,
) -> Credentials:
    """Async version of :func:`get_cloudflare_turn_credentials`."""
    request = _cloudflare_request(turn_key_id, turn_key_api_token, hf_token, ttl)
    return await _fetch_async(request, client)


def get_twilio_turn_credentials(
    twilio_sid: str | None = None,
    twilio_token: str | None = None,
    client: httpx.Client | None = None,
) -> Credentials:
    """Get a W3C RTCConfiguration with Twilio's TURN servers, for relayed connections only.

    Args:
        twilio_sid: id of the account; by default the environment variable ``TWILIO_ACCOUNT_SID``.
        twilio_token: secret of the account; by default ``TWILIO_AUTH_TOKEN``.
        client: an httpx client to use, which stays open.

    Raises:
        ValueError: the account or its secret is missing.
        CredentialsError: the provider refused, or did not answer within 10 s.
    """
    return _fetch(_twilio_request(twilio_sid, twilio_token), client)


async def get_twilio_turn_credentials_async(
    twilio_sid: str | None = None,
    twilio_token: str | None = None,
    client: httpx.AsyncClient | None = None,
) -> Credentials:
    """Async version of :func:`get_twilio_turn_credentials`."""
    return await _fetch_async(_twilio_request(twilio_sid, twilio_token), client)


_Get: TypeAlias = tuple[Callable[..., Credentials], Callable[..., Awaitable[Credentials]]]
_PROVIDERS: Mapping[str, _Get] = {
    "cloudflare": (get_cloudflare_turn_credentials, get_cloudflare_turn_credentials_async),
    "twilio": (get_twilio_turn_credentials, get_twilio_turn_credentials_async),
    "hf": (get_hf_turn_credentials, get_hf_turn_credentials_async),
}


def get_turn_credentials(method: Method = "cloudflare", **kwargs: Any) -> Credentials:
    """Get a W3C RTCConfiguration with the TURN servers of a provider.

    Args:
        method: ``"cloudflare"``, ``"twilio"`` or ``"hf"``.
        kwargs: arguments of ``get_{method}_turn_credentials``.

    Raises:
        ValueError: ``method`` is another name, or the provider's token is missing.
        CredentialsError: the provider refused, or did not answer within 10 s.
    """
    check_choice("method", method, _PROVIDERS)
    return _PROVIDERS[method][0](**kwargs)


async def get_turn_credentials_async(method: Method = "cloudflare", **kwargs: Any) -> Credentials:
    """Async version of :func:`get_turn_credentials`."""
    check_choice("method", method, _PROVIDERS)
    return await _PROVIDERS[method][1](**kwargs)


def _hf_request(token: str | None, ttl: int) -> _Request:
    token = token or _variable("HF_TOKEN")
    if token is None:
        raise ValueError("a Hugging Face token is required: pass token, or set HF_TOKEN")
    options = {"headers": {"Authorization": f"Bearer {token}"}, "params": {"ttl": ttl}}
    return _Request("turn.fastrtc.org", "GET", _HF_URL, options)


def _cloudflare_request(
    key: str | None, token: str | None, hf_token: str | None, ttl: int
) -> _Request:
    given = key and token
    if hf_token or (not given and _variable("HF_TOKEN")):
        return _hf_request(hf_token, ttl)
    if not given:
        key = _variable("CLOUDFLARE_TURN_KEY_ID")
        token = _variable("CLOUDFLARE_TURN_KEY_API_TOKEN")
    if not (key and token):
        raise ValueError(
            "a TURN key of Cloudflare is required: pass turn_key_id and turn_key_api_token, or set "
            "CLOUDFLARE_TURN_KEY_ID and CLOUDFLARE_TURN_KEY_API_TOKEN, or HF_TOKEN"
        )
    options = {"headers": {"Authorization": f"Bearer {token}"}, "json": {"ttl": ttl}}
    return _Request("Cloudflare", "POST", _CLOUDFLARE_URL.format(key), options)


def _twilio_request(sid: str | None, token: str | None) -> _Request:
    sid = sid or _variable("TWILIO_ACCOUNT_SID")
    token = token or _variable("TWILIO_AUTH_TOKEN")
    if sid is None or token is None:
        raise ValueError(
            "a Twilio account is required: pass twilio_sid and twilio_token, or set "
            "TWILIO_ACCOUNT_SID and TWILIO_AUTH_TOKEN"
        )
    url = _TWILIO_URL.format(sid)
    return _Request("Twilio", "POST", url, {"auth": (sid, token)}, relay_only=True)


def _as_relay(servers: list[Mapping[str, object]]) -> Credentials:
    """Convert Twilio's list of servers to a W3C RTCConfiguration."""
    converted = []
    for server in servers:
        kept = {key: server[key] for key in ("username", "credential") if key in server}
        converted.append({"urls": server.get("urls") or server.get("url"), **kept})
    return {"iceServers": converted, "iceTransportPolicy": "relay"}


def _fetch(request: _Request, client: httpx.Client | None) -> Credentials:
    with request.import_httpx() as httpx:
        own = nullcontext(client) if client is not None else httpx.Client(timeout=_SECONDS)
        with own as http:
            return request.read(http.request(request.method, request.url, **request.options))


async def _fetch_async(request: _Request, client: httpx.AsyncClient | None) -> Credentials:
    with request.import_httpx() as httpx:
        own = nullcontext(client) if client is not None else httpx.AsyncClient(timeout=_SECONDS)
        async with own as http:
            return request.read(await http.request(request.method, request.url, **request.options))


def _variable(name: str) -> str | None:
    return os.environ.get(name, "").strip() or None


def _warn_about_hf(name: str) -> None:
    message = f"{name} is deprecated; use {name.replace('_hf_', '_cloudflare_')}"
    warnings.warn(message, UserWarning, stacklevel=3)
