"""A failing task of aiortc or step of a close: that session alone ends, and nothing is left."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest
from aiortc import RTCRtpReceiver, RTCRtpSender, RTCSctpTransport
from aiortc.rtcdtlstransport import RTCDtlsTransport
from aiortc.rtcicetransport import RTCIceTransport

from fastrtc_anyio import CloseReason, Session, Stream
from fastrtc_anyio._peers.webrtc.closing import Closing
from fastrtc_anyio.limits import Limits
from tests.kit.aiortc_client import open_client
from tests.kit.calls import accept, make_offer, make_stream, only_session, place_call, wait_ended
from tests.kit.leftovers import errors, nothing_left
from tests.kit.waiting import wait_until


class Injected(Exception):
    """The fault."""


def fail(*_args: Any, **_options: Any) -> Any:
    raise Injected


async def fail_later(*_args: Any, **_options: Any) -> Any:
    await asyncio.sleep(0)
    raise Injected


async def do_nothing(*_args: Any, **_options: Any) -> None:
    await asyncio.sleep(0)


async def hang(*_args: Any, **_options: Any) -> Any:
    await asyncio.sleep(1000)


async def listen(session: Session) -> None:
    await anyio.sleep_forever()


@asynccontextmanager
async def warm_stream(caplog: pytest.LogCaptureFixture) -> AsyncGenerator[Stream, None]:
    """Open a stream that has served a call: the first one starts threads that stay."""
    stream = make_stream(listen, limits=Limits(connect=15))
    async with stream:
        async with place_call(stream):
            pass
        await wait_until(lambda: not stream.sessions, "the end of the first call")
        async with nothing_left(caplog):
            yield stream


def kill_receiver_reports(connection: Any) -> None:
    (receiver,) = connection._pc.getReceivers()
    receiver._RTCRtpReceiver__remote_streams = None


def kill_sender_reports(connection: Any) -> None:
    (sender,) = connection._pc.getSenders()
    sender._send_rtcp = fail_later


def kill_sender(connection: Any) -> None:
    (sender,) = connection._pc.getSenders()
    sender.track.encode_next = fail


def kill_receive_loop(connection: Any) -> None:
    connection._paths[0].transport._recv_next = fail_later


def kill_monitor(connection: Any) -> None:
    ice = connection._paths[0].transport.transport._connection
    ice.get_event = fail_later
    ice._emit_event(object())


def kill_sctp(connection: Any) -> None:
    connection._pc.sctp._transmit = fail_later
    connection._pc.sctp._t3_expired()


def kill_sctp_timer(connection: Any) -> None:
    sctp = connection._pc.sctp
    sctp._loop.call_later(0, fail)


def kill_consent(connection: Any) -> None:
    connection._paths[0].consent.check = fail


def kill_check(connection: Any) -> None:
    ice = connection._paths[0].transport.transport._connection
    ice.check_start = fail_later
    for pair in ice._check_list:
        pair.task = None
        ice.check_start_task(pair)


KILLS = {
    "RTCRtpReceiver._run_rtcp": kill_receiver_reports,
    "RTCRtpSender._run_rtcp": kill_sender_reports,
    "RTCRtpSender._run_rtp": kill_sender,
    "RTCDtlsTransport.__run": kill_receive_loop,
    "RTCIceTransport._monitor": kill_monitor,
    "fail_later": kill_sctp,
    "Exception in callback": kill_sctp_timer,
    "Connection._watch": kill_consent,
    "fail_later ": kill_check,
}
"""Ways to make a task fail, by the name in the reason."""


@pytest.mark.parametrize("name", KILLS)
async def test_failing_task_ends_its_session_with_a_reason_and_one_record(
    name: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with warm_stream(caplog) as stream:
        async with place_call(stream), place_call(stream, "failing"):
            other, session = stream.sessions.values()
            peer: Any = session.peer
            peer._portal.post(peer._connection.run, lambda: KILLS[name](peer._connection))
            assert await wait_ended(stream, session) is CloseReason.PEER_FAILED
            assert session.closed is not None
            assert session.closed.message.startswith(name.strip()), session.closed
            assert other.closed is None
        await wait_until(lambda: not stream.sessions)
    assert len(errors(caplog)) == 1, errors(caplog)


def on_portal(function: Callable[..., Any]) -> Callable[..., Any]:
    """Fail on the portal only: the client has the same classes."""

    def call(*args: Any, **options: Any) -> Any:
        if threading.current_thread().name == "fastrtc-portal":
            raise Injected
        return function(*args, **options)

    return call


@pytest.mark.parametrize(
    ("owner", "name"),
    [
        (RTCDtlsTransport, "_setup_srtp"),
        (RTCDtlsTransport, "start"),
        (RTCIceTransport, "start"),
        (RTCRtpSender, "send"),
        (RTCRtpReceiver, "receive"),
        (RTCSctpTransport, "start"),
        (threading.Thread, "start"),
    ],
    ids=lambda value: getattr(value, "__name__", value),
)
async def test_failing_connect_task_ends_its_session(
    owner: type, name: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with warm_stream(caplog) as stream:
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, on_portal(getattr(owner, name)))
            async with open_client() as client:
                offer = await make_offer(client, channel=True)
                answer = await stream.offer({"type": "offer", "sdp": offer, "webrtc_id": "me"})
                session = only_session(stream)
                await accept(client, answer["sdp"])
                assert await wait_ended(stream, session) is CloseReason.PEER_FAILED
        assert session.closed is not None
        assert "failed: Injected" in session.closed.message
    assert len(errors(caplog)) == 1, errors(caplog)


STEPS = [name for name in vars(Closing) if name.startswith("_") and not name.startswith("__")]
STEPS.remove("_run_step")


@pytest.mark.parametrize("fault", [fail_later, hang])
@pytest.mark.parametrize("step", STEPS)
async def test_close_completes_although_one_step_fails_or_hangs(
    step: str, fault: Any, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with warm_stream(caplog) as stream:
        async with place_call(stream) as client:
            session = only_session(stream)
            with monkeypatch.context() as patch:
                patch.setattr(Closing, step, fault)
                session.close(CloseReason.HANDLER_CLOSED)
                assert await wait_ended(stream, session) is CloseReason.HANDLER_CLOSED
            await wait_until(client.closed.is_set, "the client's end")
        records = [r for r in caplog.records if "closing a WebRTC connection" in r.getMessage()]
        assert len(records) == 1
    assert "did not close in time" not in caplog.text


@pytest.mark.parametrize("fault", [fail_later, hang])
@pytest.mark.parametrize(
    "owner",
    [RTCRtpSender, RTCRtpReceiver, RTCSctpTransport, RTCDtlsTransport, RTCIceTransport],
)
async def test_close_releases_what_aiortc_could_not_stop(
    owner: type, fault: Any, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop = owner.stop  # type: ignore[attr-defined]

    async def stop_or_fail(self: Any) -> None:
        await (fault if threading.current_thread().name == "fastrtc-portal" else stop)(self)

    async with warm_stream(caplog) as stream:
        async with place_call(stream):
            session = only_session(stream)
            with monkeypatch.context() as patch:
                patch.setattr(owner, "stop", stop_or_fail)
                session.close(CloseReason.HANDLER_CLOSED)
                assert await wait_ended(stream, session) is CloseReason.HANDLER_CLOSED
        assert "did not close in time" not in caplog.text


async def test_hang_up_on_one_transport_ends_a_session_that_has_another(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with warm_stream(caplog) as stream, open_client() as client:
        offer = await make_offer(client, channel=True)
        # Without BUNDLE the answer has a transport for each section.
        lines = [x for x in offer.splitlines() if not x.startswith("a=group")]
        offer = "\r\n".join([*lines, ""])
        answer = await stream.offer({"type": "offer", "sdp": offer, "webrtc_id": "me"})
        session = only_session(stream)
        # The client's second section is never connected.
        head, audio, channel = answer["sdp"].split("m=")
        channel = "\r\n".join(x for x in channel.splitlines() if "candidate" not in x)
        await accept(client, f"{head}m={audio}m={channel}\r\n")
        (sender,) = client.pc.getSenders()
        await wait_until(lambda: sender.transport.state == "connected", "the first transport")
        client.hang_up()
        assert await wait_ended(stream, session) is CloseReason.HUNG_UP
    assert errors(caplog) == []


async def test_limits_of_the_steps_are_below_the_limit_of_the_session() -> None:
    nothing: Any = None
    closing = Closing(nothing, nothing, nothing, nothing, nothing, nothing, nothing, False, nothing)
    assert sum(step.limit for step in closing.steps()) < Limits().close - 0.05


@pytest.mark.parametrize("url", ["stun:{}", "turn:{}?transport=udp", "turn:{}?transport=tcp"])
async def test_close_while_a_server_does_not_answer(
    url: str, caplog: pytest.LogCaptureFixture
) -> None:
    kind = socket.SOCK_STREAM if url.endswith("tcp") else socket.SOCK_DGRAM
    with socket.socket(socket.AF_INET, kind) as silent:
        silent.bind(("127.0.0.1", 0))
        if kind == socket.SOCK_STREAM:
            silent.listen()
        port = silent.getsockname()[1]
        server = {"urls": url.format(f"127.0.0.1:{port}"), "username": "u", "credential": "c"}
        rtc = {"iceServers": [server], "addresses": ["127.0.0.1"], "gather_timeout": 20}
        stream = make_stream(listen, server_rtc_configuration=rtc)
        async with warm_stream(caplog), stream, open_client() as client:
            offer = await make_offer(client, channel=True)
            async with nothing_left(caplog):
                with anyio.move_on_after(0.3) as scope:
                    await stream.offer({"type": "offer", "sdp": offer})
                assert scope.cancelled_caught
                await wait_until(lambda: not stream.sessions)
    assert errors(caplog) == []
    assert "closing a WebRTC connection" not in caplog.text


async def test_close_during_the_handshake_is_silent(caplog: pytest.LogCaptureFixture) -> None:
    async with warm_stream(caplog) as stream, open_client() as client:
        offer = await make_offer(client, channel=True)
        answer = await stream.offer({"type": "offer", "sdp": offer, "webrtc_id": "me"})
        session = only_session(stream)
        peer: Any = session.peer
        # The client answers checks, but no DTLS.
        for sender in client.pc.getSenders():
            transport: Any = sender.transport
            transport._write_ssl = do_nothing
        await accept(client, answer["sdp"])
        (transport,) = {path.transport for path in peer._connection._paths}
        await wait_until(lambda: transport.state == "connecting", "the handshake")
        session.close(CloseReason.HANDLER_CLOSED)
        assert await wait_ended(stream, session) is CloseReason.HANDLER_CLOSED
    assert errors(caplog) == []
    assert "closing a WebRTC connection" not in caplog.text
