"""Identification of clients, and limits of their requests: unit tests without a server."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.requests import Request

from fastrtc_anyio import HandlerContractError, LimitExceeded, RequestLimits
from fastrtc_anyio.server import fairness
from fastrtc_anyio.server.fairness import Fairness, RequestRates

PROXIES = ["10.0.0.0/8", "2001:db8:1::/48", "192.0.2.1"]


def request(address: str | None, **headers: str) -> Request:
    raw = [
        (name.replace("_", "-").encode(), value.encode())
        for name, values in headers.items()
        for value in values.split("|")
    ]
    client = None if address is None else (address, 5000)
    return Request({"type": "http", "headers": raw, "client": client, "path": "/"})


async def name(connection: Request, **options: Any) -> str | None:
    return await Fairness(RequestLimits(), **options).count(connection)


@pytest.mark.parametrize(
    ("address", "headers", "client"),
    [
        ("203.0.113.9", {}, "203.0.113.9"),
        ("::ffff:203.0.113.9", {}, "203.0.113.9"),
        ("2001:db8:7:7:1:2:3:4", {}, "2001:db8:7:7::/64"),
        ("2001:db8:7:7:ffff::", {}, "2001:db8:7:7::/64"),
        ("fe80::1%eth0", {}, "fe80::/64"),
        (None, {}, None),
        ("", {}, None),
        ("testclient", {}, "testclient"),
        # Any client can send these headers.
        ("203.0.113.9", {"x_forwarded_for": "198.51.100.1"}, "203.0.113.9"),
        ("203.0.113.9", {"forwarded": "for=198.51.100.1"}, "203.0.113.9"),
        # The rightmost address that no trusted proxy has is the client's.
        ("10.0.0.1", {"x_forwarded_for": "198.51.100.1"}, "198.51.100.1"),
        ("10.0.0.1", {"x_forwarded_for": "1.1.1.1, 198.51.100.1 ,10.2.3.4"}, "198.51.100.1"),
        ("10.0.0.1", {"x_forwarded_for": "1.1.1.1|198.51.100.1"}, "198.51.100.1"),
        ("10.0.0.1", {"x_forwarded_for": "10.1.1.1,10.2.2.2"}, "10.1.1.1"),
        ("10.0.0.1", {"x_forwarded_for": "198.51.100.1:4000"}, "198.51.100.1"),
        ("10.0.0.1", {"x_forwarded_for": "[2001:db8:9::1]:4000"}, "2001:db8:9::/64"),
        ("10.0.0.1", {"x_forwarded_for": "198.51.100.1,unknown"}, "10.0.0.1"),
        ("10.0.0.1", {"x_forwarded_for": ","}, "10.0.0.1"),
        ("10.0.0.1", {"x_forwarded_for": "rubbish"}, "10.0.0.1"),
        ("10.0.0.1", {"x_forwarded_for": "1.1.1.1" + ",10.0.0.2" * 100}, "10.0.0.2"),
        ("10.0.0.1", {}, "10.0.0.1"),
        ("2001:db8:1::5", {"x_forwarded_for": "198.51.100.1"}, "198.51.100.1"),
        ("192.0.2.1", {"forwarded": "for=198.51.100.1;proto=https"}, "198.51.100.1"),
        ("192.0.2.1", {"forwarded": 'For="[2001:db8:9::1]:4711"'}, "2001:db8:9::/64"),
        (
            "192.0.2.1",
            {"forwarded": "for=1.1.1.1, by=x;for=198.51.100.1,for=10.1.1.1"},
            "198.51.100.1",
        ),
        ("192.0.2.1", {"forwarded": 'for="_hidden"'}, "192.0.2.1"),
        ("192.0.2.1", {"forwarded": "nonsense"}, "192.0.2.1"),
        # Most proxies write X-Forwarded-For and pass Forwarded on.
        (
            "10.0.0.1",
            {"x_forwarded_for": "198.51.100.1", "forwarded": "for=1.1.1.1"},
            "198.51.100.1",
        ),
    ],
)
async def test_client_is_its_address(
    address: str | None, headers: dict[str, str], client: str | None
) -> None:
    assert await name(request(address, **headers), trusted_proxies=PROXIES) == client


@given(st.text(st.characters(codec="latin-1")), st.booleans())
async def test_any_forwarded_header_names_some_client(value: str, standard: bool) -> None:
    header = (b"forwarded" if standard else b"x-forwarded-for", value.encode("latin-1"))
    scope = {"type": "http", "headers": [header], "client": ("10.0.0.1", 5), "path": "/"}
    assert await name(Request(scope), trusted_proxies=PROXIES)


async def test_client_key_names_clients_instead_of_addresses() -> None:
    def plain(connection: Any) -> str:
        return str(connection.headers["x-user"])

    async def later(connection: Any) -> str:
        return plain(connection)

    for key in (plain, later):
        assert await name(request("203.0.113.9", x_user="ann"), client_key=key) == "ann"
        assert await name(request(None, x_user="ann"), client_key=key) == "ann"


@pytest.mark.parametrize("value", [None, 7, "", True, "x" * 257, b"bytes"])
async def test_client_key_must_return_a_string(value: object) -> None:
    def key(_connection: Any) -> Any:
        return value

    with pytest.raises(HandlerContractError, match="client_key must return a string of 1"):
        await name(request("203.0.113.9"), client_key=key)


def test_unsuitable_options_are_rejected() -> None:
    with pytest.raises(TypeError, match="trusted_proxies must be a list of networks"):
        Fairness(RequestLimits(), "10.0.0.0/8")
    with pytest.raises(ValueError, match="must hold networks like"):
        Fairness(RequestLimits(), ["example.com"])
    with pytest.raises(TypeError, match="client_key must be a function; got 'x'"):
        Fairness(RequestLimits(), (), "x")  # type: ignore[arg-type]


async def test_requests_above_the_rate_are_a_429_with_advice_about_proxies(
    caplog: pytest.LogCaptureFixture,
) -> None:
    guard = Fairness(RequestLimits(client_requests=3))
    for _ in range(3):
        await guard.count(request("203.0.113.9"))
    for _ in range(2):
        with pytest.raises(LimitExceeded, match=r"RequestLimits\.client_requests") as caught:
            await guard.count(request("203.0.113.9", x_forwarded_for="198.51.100.1"))
        assert caught.value.status_hint == 429
        assert caught.value.retry_after is not None
        assert 0 < caught.value.retry_after <= 20
    await guard.count(request("203.0.113.10"))
    warnings = [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]
    assert len(warnings) == 1
    assert "trusted_proxies" in warnings[0]


@given(
    st.integers(1, 20),
    st.lists(st.floats(0, 40), min_size=1, max_size=60),
)
def test_rate_is_kept_in_every_minute(per_minute: int, pauses: list[float]) -> None:
    """No minute has more than twice the rate, and a client that waits is always admitted."""
    rates, now, admitted = RequestRates(per_minute), 0.0, list[float]()
    for pause in pauses:
        now += pause
        wait = 0.0
        try:
            rates.count("a", now)
        except LimitExceeded as exc:
            wait = exc.retry_after or 0.0
        if wait:
            assert sum(now - 60 < at for at in admitted) >= per_minute - 1
            now += wait + 1e-3
            rates.count("a", now)
        admitted.append(now)
        assert sum(now - 60 < at <= now for at in admitted) <= 2 * per_minute


def test_counted_clients_are_bounded_and_the_oldest_is_forgotten(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(fairness, "_MAX_CLIENTS", 3)
    rates = RequestRates(1)
    for client in "abcd":
        rates.count(client, 0)
    assert len(rates) == 3
    rates.count("a", 1)
    with pytest.raises(LimitExceeded):
        rates.count("d", 1)
