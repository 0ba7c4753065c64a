"""Owners of sessions: who receives early candidates and outputs, and which ids are too short."""

from __future__ import annotations

import logging
import secrets
from typing import Any

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastrtc_anyio import AdditionalOutputs, RequestLimits, Session, get_current_context
from fastrtc_anyio._sessions.early import EarlyCandidates, EarlyReaders
from fastrtc_anyio._sessions.ownership import IdCheck, estimate_bits, is_reachable
from fastrtc_anyio._signaling.requests import IceCandidate
from fastrtc_anyio.outputs import OutputBoard
from fastrtc_anyio.testing import open_call

IDENTITIES = st.sampled_from(["", "ada", "bo"])


@pytest.mark.parametrize(
    ("owner", "reached_by"),
    [(None, {None, ""}), ("ada", {None, "ada"}), ("bo", {None, "bo"})],
)
async def test_session_is_reached_by_owner_and_application(
    owner: str | None, reached_by: set[str | None]
) -> None:
    contexts: list[Any] = []

    async def serve(_session: Session) -> None:
        contexts.append(get_current_context().identity)
        await anyio.sleep_forever()

    async with open_call(serve, identity=owner) as call:
        await anyio.wait_all_tasks_blocked()
        assert call.session.identity == owner
        found = {one for one in (None, "", "ada", "bo") if is_reachable(call.session, one)}
    assert found == reached_by
    assert contexts == [owner]


@given(st.lists(st.tuples(st.sampled_from("xy"), IDENTITIES), max_size=12))
def test_early_candidates_are_kept_by_identity(sent: list[tuple[str, str]]) -> None:
    early = EarlyCandidates(RequestLimits())
    for number, (name, identity) in enumerate(sent):
        early.add(name, IceCandidate(str(number), "0"), 0.0, identity)
    for key in (("x", ""), ("x", "ada"), ("y", "bo")):
        wanted = [str(number) for number, one in enumerate(sent) if one == key]
        assert [one and one.candidate for one in early.take(key[0], 1.0, key[1])] == wanted


@pytest.mark.parametrize("owner", ["", "ada"])
async def test_waiting_readers_are_attached_by_identity(owner: str) -> None:
    early = EarlyReaders(RequestLimits())
    board = OutputBoard()
    readers = {identity: early.add("call", identity) for identity in (None, "", "ada", "bo")}
    early.attach("call", board, owner)
    board.publish(AdditionalOutputs(1))
    board.close()
    early.close()
    got = [identity for identity, reader in readers.items() if [one async for one in reader]]
    assert got == [None, owner]


def test_generated_ids_have_enough_bits() -> None:
    """Those of the built-in page, of the command line, of sessions, and UUIDs."""
    for _ in range(1000):
        assert estimate_bits(secrets.token_hex(16)) >= 64
        assert estimate_bits(secrets.token_urlsafe(16)) >= 64


@pytest.mark.parametrize(
    ("name", "bits"),
    [
        ("", 0),
        ("-- --", 0),
        ("k3j9x0a", 36),  # FastRTC's: Math.random().toString(36).substring(7)
        ("caller 1", 36),
        ("Ada", 17),
        ("12345678901234567890", 66),
        ("deadbeefdeadbeef", 64),
        ("0190b7d2-7c1e-7a3b-9d4c-1f2e3d4c5b6a", 128),
    ],
)
def test_bits_of_an_id_follow_length_and_alphabet(name: str, bits: int) -> None:
    assert int(estimate_bits(name)) == bits


@given(st.text(max_size=128))
def test_bits_of_any_id_are_finite_and_grow(name: str) -> None:
    assert 0 <= estimate_bits(name) <= estimate_bits(name + "a") <= 129 * 6


def test_short_id_warns_once_and_does_not_show_it(caplog: pytest.LogCaptureFixture) -> None:
    check = IdCheck()
    with caplog.at_level(logging.WARNING, "fastrtc_anyio"):
        check.check("f" * 32)
        assert caplog.messages == []
        for name in ("k3j9x0a", "other"):
            check.check(name)
    (message,) = caplog.messages
    assert "at most 36 bits" in message
    assert "authenticate()" in message
    assert "k3j9x0a" not in message
