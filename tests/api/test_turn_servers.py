"""Credentials of TURN servers, from a fake provider behind httpx's mock transport."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest

import fastrtc_anyio
from fastrtc_anyio import CredentialsError, get_turn_credentials, get_turn_credentials_async
from fastrtc_anyio.turn_servers import Method

SERVERS = [{"urls": ["turn:turn.example.com"], "username": "u", "credential": "c"}]
CASES: list[tuple[Method, dict[str, Any], str]] = [
    ("cloudflare", {"turn_key_id": "key", "turn_key_api_token": "token"}, "Bearer token"),
    ("cloudflare", {"hf_token": "hugging"}, "Bearer hugging"),
    ("hf", {"token": "hugging"}, "Bearer hugging"),
    (
        "twilio",
        {"twilio_sid": "AC1", "twilio_token": "token"},
        "Basic " + base64.b64encode(b"AC1:token").decode(),
    ),
]
VARIABLES = {
    "HF_TOKEN": "hugging",
    "CLOUDFLARE_TURN_KEY_ID": "key",
    "CLOUDFLARE_TURN_KEY_API_TOKEN": "token",
    "TWILIO_ACCOUNT_SID": "AC1",
    "TWILIO_AUTH_TOKEN": "token",
}

pytestmark = pytest.mark.filterwarnings("ignore:get_hf_turn_credentials:UserWarning")


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


class Provider:
    """Fake of every provider."""

    def __init__(self, answer: Callable[[httpx.Request], httpx.Response] | None = None) -> None:
        self.requests: list[httpx.Request] = []
        self._answer = answer or self._grant

    def transport(self) -> httpx.MockTransport:
        return httpx.MockTransport(self._handle)

    def _handle(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        return self._answer(request)

    def _grant(self, request: httpx.Request) -> httpx.Response:
        if request.url.host == "api.twilio.com":
            servers = [{"url": "turn:turn.example.com", **SERVERS[0]}]
            return httpx.Response(201, json={"ice_servers": servers, "ttl": "86400"})
        return httpx.Response(200, json={"iceServers": SERVERS})


async def get_credentials(
    provider: Provider, method: Method, colour: str, **options: Any
) -> dict[str, Any]:
    if colour == "sync":
        with httpx.Client(transport=provider.transport()) as client:
            return get_turn_credentials(method, client=client, **options)
    async with httpx.AsyncClient(transport=provider.transport()) as client:
        found = await get_turn_credentials_async(method, client=client, **options)
        assert not client.is_closed
        return found


@pytest.mark.parametrize("colour", ["sync", "async"])
@pytest.mark.parametrize(("method", "options", "authorization"), CASES)
async def test_request_and_returned_configuration(
    method: Method, options: dict[str, Any], authorization: str, colour: str
) -> None:
    provider = Provider()
    found = await get_credentials(provider, method, colour, **options)
    assert found["iceServers"] == SERVERS
    assert found.get("iceTransportPolicy") == ("relay" if method == "twilio" else None)
    (request,) = provider.requests
    assert request.headers["authorization"] == authorization
    if method == "twilio":
        assert (request.method, request.url.path) == (
            "POST",
            "/2010-04-01/Accounts/AC1/Tokens.json",
        )
    elif "turn_key_id" in options:
        assert request.url.path == "/v1/turn/keys/key/credentials/generate-ice-servers"
        assert json.loads(request.content) == {"ttl": 600}
    else:
        assert (request.url.host, request.url.params["ttl"]) == ("turn.fastrtc.org", "600")
    fastrtc_anyio.RtcConfiguration.parse(found)  # valid for server_rtc_configuration too


@pytest.mark.parametrize("colour", ["sync", "async"])
@pytest.mark.parametrize(
    ("method", "names", "authorization"),
    [
        ("cloudflare", ["CLOUDFLARE_TURN_KEY_ID", "CLOUDFLARE_TURN_KEY_API_TOKEN"], "Bearer token"),
        ("cloudflare", list(VARIABLES), "Bearer hugging"),
        ("hf", ["HF_TOKEN"], "Bearer hugging"),
        ("twilio", ["TWILIO_ACCOUNT_SID", "TWILIO_AUTH_TOKEN"], "Basic QUMxOnRva2Vu"),
    ],
)
async def test_environment_variables_are_the_default(
    method: Method,
    names: list[str],
    authorization: str,
    colour: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in names:
        monkeypatch.setenv(name, VARIABLES[name])
    provider = Provider()
    await get_credentials(provider, method, colour)
    assert provider.requests[0].headers["authorization"] == authorization


async def test_key_argument_overrides_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hugging")
    provider = Provider()
    await get_credentials(
        provider, "cloudflare", "async", turn_key_id="key", turn_key_api_token="mine"
    )
    assert provider.requests[0].headers["authorization"] == "Bearer mine"


@pytest.mark.parametrize("colour", ["sync", "async"])
@pytest.mark.parametrize(
    ("method", "missing"),
    [
        ("cloudflare", "CLOUDFLARE_TURN_KEY_API_TOKEN"),
        ("hf", "HF_TOKEN"),
        ("twilio", "TWILIO_AUTH_TOKEN"),
        ("other", "method must be one of 'cloudflare', 'twilio', 'hf'; got 'other'"),
    ],
)
async def test_missing_token_or_unknown_method_raises_value_error(
    method: Any, missing: str, colour: str
) -> None:
    provider = Provider()
    with pytest.raises(ValueError, match=missing):
        await get_credentials(provider, method, colour)
    assert provider.requests == []


def refuse(_request: httpx.Request) -> httpx.Response:
    return httpx.Response(403, text="invalid key")


def time_out(request: httpx.Request) -> httpx.Response:
    raise httpx.ConnectTimeout("timed out", request=request)


@pytest.mark.parametrize("colour", ["sync", "async"])
@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (refuse, "TURN credentials from Cloudflare: 403 invalid key"),
        (time_out, "could not get TURN credentials from Cloudflare: timed out"),
        (lambda _: httpx.Response(200, text="<html>"), "is not JSON: <html>"),
        (
            lambda _: httpx.Response(200, json={"word": "secret"}),
            r"got the keys \['word'\]",
        ),
        (lambda _: httpx.Response(200, json=[1]), "has no ICE servers"),
    ],
)
async def test_failed_request_raises_credentials_error_without_secrets(
    answer: Any, message: str, colour: str
) -> None:
    options = {"turn_key_id": "key", "turn_key_api_token": "secret"}
    with pytest.raises(CredentialsError, match=message) as raised:
        await get_credentials(Provider(answer), "cloudflare", colour, **options)
    assert "secret" not in str(raised.value)


def test_hf_method_warns_of_deprecation() -> None:
    with (
        httpx.Client(transport=Provider().transport()) as client,
        pytest.warns(UserWarning, match="use get_cloudflare_turn_credentials"),
    ):
        get_turn_credentials("hf", token="x", client=client)
