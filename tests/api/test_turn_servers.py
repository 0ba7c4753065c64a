"""Credentials of TURN servers, from providers that are made up: httpx's own mock transport."""

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
    """Every provider at once."""

    def __init__(self, answer: Callable[[httpx.Request], httpx.Response] | None = None) -> None:
        self.requests: list[httpx.Request] = []
        self._answer = answer or self._give

    def transport(self) -> httpx.MockTransport:
        return httpx.MockTransport(self._handle)

    def _handle(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        return self._answer(request)

    def _give(self, request: httpx.Request) -> httpx.Response:
        if request.url.host == "api.twilio.com":
            servers = [{"url": "turn:turn.example.com", **SERVERS[0]}]
            return httpx.Response(201, json={"ice_servers": servers, "ttl": "86400"})
        return httpx.Response(200, json={"iceServers": SERVERS})


async def ask(provider: Provider, method: Method, how: str, **options: Any) -> dict[str, Any]:
    if how == "plain":
        with httpx.Client(transport=provider.transport()) as client:
            return get_turn_credentials(method, client=client, **options)
    async with httpx.AsyncClient(transport=provider.transport()) as client:
        found = await get_turn_credentials_async(method, client=client, **options)
        assert not client.is_closed
        return found


@pytest.mark.parametrize("how", ["plain", "async"])
@pytest.mark.parametrize(("method", "options", "authorization"), CASES)
async def test_credentials(
    method: Method, options: dict[str, Any], authorization: str, how: str
) -> None:
    provider = Provider()
    found = await ask(provider, method, how, **options)
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
    # It is what the server's own side takes, too.
    fastrtc_anyio.RtcConfiguration.parse(found)


@pytest.mark.parametrize("how", ["plain", "async"])
@pytest.mark.parametrize(
    ("method", "names", "authorization"),
    [
        ("cloudflare", ["CLOUDFLARE_TURN_KEY_ID", "CLOUDFLARE_TURN_KEY_API_TOKEN"], "Bearer token"),
        ("cloudflare", list(VARIABLES), "Bearer hugging"),
        ("hf", ["HF_TOKEN"], "Bearer hugging"),
        ("twilio", ["TWILIO_ACCOUNT_SID", "TWILIO_AUTH_TOKEN"], "Basic QUMxOnRva2Vu"),
    ],
)
async def test_variables(
    method: Method,
    names: list[str],
    authorization: str,
    how: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in names:
        monkeypatch.setenv(name, VARIABLES[name])
    provider = Provider()
    await ask(provider, method, how)
    assert provider.requests[0].headers["authorization"] == authorization


async def test_a_key_that_is_given_comes_before_a_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hugging")
    provider = Provider()
    await ask(provider, "cloudflare", "async", turn_key_id="key", turn_key_api_token="mine")
    assert provider.requests[0].headers["authorization"] == "Bearer mine"


@pytest.mark.parametrize("how", ["plain", "async"])
@pytest.mark.parametrize(
    ("method", "missing"),
    [
        ("cloudflare", "CLOUDFLARE_TURN_KEY_API_TOKEN"),
        ("hf", "HF_TOKEN"),
        ("twilio", "TWILIO_AUTH_TOKEN"),
        ("other", 'method must be "cloudflare"'),
    ],
)
async def test_what_is_missing_is_named(method: Any, missing: str, how: str) -> None:
    provider = Provider()
    with pytest.raises(ValueError, match=missing):
        await ask(provider, method, how)
    assert provider.requests == []


def refuse(_request: httpx.Request) -> httpx.Response:
    return httpx.Response(403, text="your key is of no use")


def break_down(request: httpx.Request) -> httpx.Response:
    raise httpx.ConnectTimeout("it took too long", request=request)


@pytest.mark.parametrize("how", ["plain", "async"])
@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (refuse, "Cloudflare gave no TURN credentials: 403 your key is of no use"),
        (break_down, "Cloudflare could not be asked for TURN credentials: it took too long"),
        (lambda _: httpx.Response(200, text="<html>"), "sent no JSON: <html>"),
        (lambda _: httpx.Response(200, json={"iceServers": []}), "sent no ICE servers"),
        (lambda _: httpx.Response(200, json=[1]), "sent no ICE servers"),
    ],
)
async def test_a_provider_that_fails(answer: Any, message: str, how: str) -> None:
    options = {"turn_key_id": "key", "turn_key_api_token": "secret"}
    with pytest.raises(CredentialsError, match=message) as raised:
        await ask(Provider(answer), "cloudflare", how, **options)
    assert "secret" not in str(raised.value)


def test_hugging_faces_are_deprecated() -> None:
    with (
        httpx.Client(transport=Provider().transport()) as client,
        pytest.warns(UserWarning, match="use get_cloudflare_turn_credentials"),
    ):
        get_turn_credentials("hf", token="x", client=client)
