"""Addresses of a client to which a call may send."""

from __future__ import annotations

import ipaddress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastrtc_anyio import AddressPolicy, RtcConfiguration
from fastrtc_anyio._signaling.address_policy import is_loopback

NEVER = [
    "0.0.0.0",
    "0.1.2.3",
    "224.0.0.1",
    "239.255.255.250",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "ff02::1",
    "ff0e::fb",
    "::ffff:224.0.0.1",
    "::ffff:0.0.0.0",
    "::ffff:255.255.255.255",
    "64:ff9b::224.0.0.1",
    "2002:e000:0001::",  # 6to4 of 224.0.0.1
    "4000::1",
    "not an address",
    "",
    "example.com",
    "client.local",
    "1.2.3",
    "1.2.3.4 ",
    "127.0.0.1.",
]
PRIVATE = ["10.0.0.1", "172.16.9.9", "192.168.1.1", "100.64.1.1", "fd00::1", "fec0::1"]
PRIVATE += [f"::ffff:{PRIVATE[0]}", f"64:ff9b::{PRIVATE[1]}"]
LINK_LOCAL = ["169.254.169.254", "fe80::1", "fe80::1%eth0", "::ffff:169.254.169.254"]
LOOPBACK = ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1", "64:ff9b::127.0.0.1"]
GLOBAL = ["8.8.8.8", "1.1.1.1", "2a00:1450:4001::1", "::ffff:8.8.8.8", "64:ff9b::8.8.8.8"]
PERMISSIVE = AddressPolicy(link_local=True, loopback=True)


@pytest.mark.parametrize("host", NEVER)
def test_no_policy_permits_addresses_of_no_peer(host: str) -> None:
    assert not PERMISSIVE.permits(host, 9)


@pytest.mark.parametrize(
    ("hosts", "setting", "default"),
    [
        (PRIVATE, "private", True),
        (LINK_LOCAL, "link_local", False),
        (LOOPBACK, "loopback", False),
    ],
)
def test_each_class_of_addresses_has_a_setting(
    hosts: list[str], setting: str, default: bool
) -> None:
    for host in hosts:
        assert AddressPolicy().permits(host, 9) is default, host
        for value in (True, False):
            assert AddressPolicy.parse({setting: value}).permits(host, 9) is value, host


@pytest.mark.parametrize("host", GLOBAL)
def test_global_addresses_are_permitted_unless_denied(host: str) -> None:
    policy = AddressPolicy(private=False)
    assert policy.permits(host, 1)
    assert not policy.permits(host, 0)
    denied = ("8.8.0.0/16", "1.1.1.1", "2a00:1450::/32")
    assert not AddressPolicy(denied=denied).permits(host, 9)


def test_denied_networks_take_precedence() -> None:
    policy = AddressPolicy(denied=("127.0.0.0/8", "10.0.0.0/8"), loopback=True)
    assert not policy.permits("127.0.0.1", 9)
    assert not policy.permits("::ffff:10.1.2.3", 9)
    assert policy.permits("192.168.0.1", 9)


@given(st.one_of(st.ip_addresses(), st.from_regex(r"[0-9a-f:.%]{0,40}")), st.integers(0, 65_535))
def test_any_address_has_an_answer_that_other_settings_only_widen(host: Any, port: int) -> None:
    text = str(host)
    strict = AddressPolicy(private=False)
    if strict.permits(text, port):
        assert PERMISSIVE.permits(text, port)
    if PERMISSIVE.permits(text, port):
        address = ipaddress.ip_address(text)
        assert port
        assert not address.is_multicast
        assert not address.is_unspecified
    assert is_loopback(text) in (True, False)


def test_configuration_takes_a_policy_or_a_mapping() -> None:
    policy = AddressPolicy(private=False, denied=("10.0.0.0/8",))
    for given_policy in (policy, {"private": False, "denied": ["10.0.0.0/8"]}):
        assert RtcConfiguration.parse({"address_policy": given_policy}).address_policy == policy
    assert RtcConfiguration.parse({"address_policy": None}).address_policy == AddressPolicy()


@pytest.mark.parametrize(
    ("value", "error", "message"),
    [
        ("private", ValueError, "must be an AddressPolicy or a mapping with private, "),
        ({"public": True}, ValueError, "got {'public': True}"),
        ({"private": "yes"}, TypeError, r"AddressPolicy\.private must be a bool; got 'yes'"),
        ({"denied": "10.0.0.0/8"}, TypeError, r"AddressPolicy\.denied must be a tuple"),
        ({"denied": ["10.0.0.1/8"]}, ValueError, r"10\.0\.0\.1/8"),
        ({"denied": ["intranet"]}, ValueError, "intranet"),
    ],
)
def test_invalid_policies_are_refused(value: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        RtcConfiguration.parse({"address_policy": value})
