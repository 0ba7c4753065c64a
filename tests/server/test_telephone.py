"""Calls from telephone carriers through a real server: XML, signatures, tokens and audio."""

from __future__ import annotations

import base64
import json
import re
import time
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack
from typing import Any
from urllib.parse import urlencode

import anyio
import httpx
import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from fastapi import FastAPI
from starlette.datastructures import Headers
from websockets.exceptions import InvalidStatus

from fastrtc_anyio import RequestLimits, Stream, get_current_context
from fastrtc_anyio._wire.call_xml import TOKEN_PARAMETER, TelephoneOptions
from fastrtc_anyio._wire.events import Clear, Connected, Mark, Start
from fastrtc_anyio._wire.payload import MULAW_8K
from fastrtc_anyio._wire.plivo import PlivoFraming
from fastrtc_anyio._wire.signatures import make_token, sign_plivo, sign_twilio, telnyx_message
from fastrtc_anyio._wire.telnyx import TelnyxFraming
from fastrtc_anyio._wire.twilio import TwilioFraming
from fastrtc_anyio.server.telephone_proof import signed_by
from tests.kit.conversations import agent, silence, voice
from tests.kit.handlers import AsyncEcho, Quiet
from tests.kit.waiting import wait_until
from tests.kit.websocket_clients import Client
from tests.kit.websockets import open_client, open_wire

from .test_websocket import check_echo, open_stream

PHONE = "/telephone/handler"
START = Start("MZ1", MULAW_8K, "CA1", {"customer": "Ada"})
TOKEN = "a secret of ours"
KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
PUBLIC_KEY = base64.b64encode(KEY.public_key().public_bytes_raw()).decode()
TELNYX = TelephoneOptions(telnyx_public_key=PUBLIC_KEY)
FORM = {"CallSid": "CA1", "From": "+15550100", "Digits": "", "To": "+15550199"}


class TestIncomingCalls:
    async def test_incoming_call_xml_has_handler_url_with_port(self) -> None:
        for framework in (None, FastAPI):
            settings = {} if framework is None else {"framework": framework}
            async with open_stream(**settings) as (_, url), httpx.AsyncClient() as http:
                reply = await http.post(f"{url}/telephone/incoming", data=FORM)
                target = url.replace("http", "ws") + PHONE
                assert reply.headers["content-type"].startswith("application/xml")
                assert f'<Connect><Stream url="{target}"/></Connect>' in reply.text

    async def test_forwarded_headers_count_only_with_trust_forwarded(self) -> None:
        headers = {"X-Forwarded-Proto": "https", "X-Forwarded-Host": "phone.example:8443"}
        for options, expected in (
            (TelephoneOptions(), 'url="ws://127.0.0.1:'),
            (TelephoneOptions(trust_forwarded=True), 'url="wss://phone.example:8443/voice/tele'),
            (
                TelephoneOptions(public_url="https://example.com/a"),
                'url="wss://example.com/a/voice/tele',
            ),
        ):
            async with open_stream(telephone=options) as (_, url), httpx.AsyncClient() as http:
                reply = await http.post(f"{url}/telephone/incoming", headers=headers)
                assert expected in reply.text

    async def test_large_form_is_a_413(self) -> None:
        forms = {"&".join(["a=b"] * 1000): 200, "&".join(["a=b"] * 1001): 413}
        forms |= {"a=" + "%41" * 20_000: 200, "a=" + "%41" * 22_000: 413}
        async with open_stream() as (_, url), httpx.AsyncClient() as http:
            for form, status in forms.items():
                reply = await http.post(f"{url}/telephone/incoming", content=form.encode())
                assert reply.status_code == status, reply.text

    async def test_request_without_valid_signature_is_a_403(self) -> None:
        options = TelephoneOptions(auth_token=TOKEN, public_url="https://example.com")
        public = "https://example.com/voice/telephone/incoming?a=b%20c"
        right = sign_twilio(TOKEN, public, FORM.items())
        verdicts = {b"": 403, right.encode(): 200, right[::-1].encode(): 403, b"\xe9": 403}
        async with open_stream(telephone=options) as (_, url), httpx.AsyncClient() as http:
            for signature, verdict in verdicts.items():
                reply = await http.post(
                    f"{url}/telephone/incoming?a=b%20c",
                    content=urlencode(FORM),
                    headers={
                        b"X-Twilio-Signature": signature,
                        b"Content-Type": b"application/x-www-form-urlencoded",
                    },
                )
                assert reply.status_code == verdict
                assert ("telephone.auth_token" in reply.text) == (verdict == 403)

    async def test_websocket_without_valid_signature_is_rejected(self) -> None:
        options = TelephoneOptions(auth_token=TOKEN, public_url="https://example.com")
        signature = sign_twilio(TOKEN, "wss://example.com/voice/telephone/handler")
        async with open_stream(telephone=options) as (stream, url):
            with pytest.raises(InvalidStatus) as caught:
                async with open_wire(url, PHONE):
                    pytest.fail("accepted without permission")
            assert b"telephone.auth_token" in (caught.value.response.body or b"")
            headers = {"X-Twilio-Signature": signature}
            async with open_client(url, START, TwilioFraming(), PHONE, headers):
                await wait_until(lambda: stream.active == 1)

    async def test_signed_calls_are_not_counted_as_those_of_one_client(self) -> None:
        options = TelephoneOptions(auth_token=TOKEN, public_url="https://example.com")
        headers = {
            "X-Twilio-Signature": sign_twilio(TOKEN, "wss://example.com/voice/telephone/handler")
        }
        limits = RequestLimits(client_requests=1, client_sessions=1, client_pending=1)
        async with open_stream(
            telephone=options, concurrency_limit=None, request_limits=limits
        ) as (stream, url):
            for status in (403, 429):
                with pytest.raises(InvalidStatus) as caught:
                    async with open_wire(url, PHONE):
                        pytest.fail("accepted without permission")
                assert caught.value.response.status_code == status
                assert ("Retry-After" in caught.value.response.headers) == (status == 429)
            async with AsyncExitStack() as stack:
                for number in range(3):
                    start = Start(f"MZ{number}", MULAW_8K)
                    client = open_client(url, start, TwilioFraming(), PHONE, headers)
                    await stack.enter_async_context(client)
                await wait_until(lambda: stream.active == 3)


def telnyx_headers(body: bytes, age: float = 0.0, key: Ed25519PrivateKey = KEY) -> dict[str, str]:
    timestamp = str(int(time.time() - age))
    signature = key.sign(telnyx_message(timestamp, body))
    return {
        "Telnyx-Timestamp": timestamp,
        "Telnyx-Signature-Ed25519": base64.b64encode(signature).decode(),
        "Content-Type": "application/x-www-form-urlencoded",
    }


class TestTelnyx:
    def test_signed_value_that_is_not_a_timestamp_is_invalid(self) -> None:
        for stamp in ("9" * 400, "9" * 5000, "-1", "nan", ""):
            signature = base64.b64encode(KEY.sign(telnyx_message(stamp, b""))).decode()
            headers = {"telnyx-timestamp": stamp, "telnyx-signature-ed25519": signature}
            assert signed_by(TELNYX, Headers(headers), "http://x", (), b"") is None

    async def test_request_without_valid_recent_signature_is_a_403(self) -> None:
        body = urlencode(FORM).encode()
        other = Ed25519PrivateKey.from_private_bytes(bytes(range(1, 33)))
        right = telnyx_headers(body)
        verdicts = [
            (right, 200),
            (telnyx_headers(body, age=200), 200),
            (telnyx_headers(body, age=400), 403),
            (telnyx_headers(body, age=-400), 403),
            (telnyx_headers(body + b"0"), 403),
            (telnyx_headers(body, key=other), 403),
            (right | {"Telnyx-Timestamp": right["Telnyx-Timestamp"] + "0"}, 403),
            (right | {"Telnyx-Signature-Ed25519": "AAAA"}, 403),
            (right | {"Telnyx-Signature-Ed25519": "?"}, 403),
            ({}, 403),
        ]
        async with open_stream(telephone=TELNYX) as (_, url), httpx.AsyncClient() as http:
            for headers, verdict in verdicts:
                reply = await http.post(f"{url}/telephone/incoming", content=body, headers=headers)
                assert reply.status_code == verdict
                assert ("telephone.telnyx_public_key" in reply.text) == (verdict == 403)
                assert ('bidirectionalMode="rtp"' in reply.text) == (verdict == 200)

    async def test_signed_body_cannot_move_into_timestamp(self) -> None:
        signed = telnyx_headers(b"a|b")
        signed["Telnyx-Timestamp"] += "|a"
        async with open_stream(telephone=TELNYX) as (_, url), httpx.AsyncClient() as http:
            reply = await http.post(f"{url}/telephone/incoming", content=b"b", headers=signed)
            assert reply.status_code == 403

    async def test_websocket_with_token_from_call_xml_is_accepted(self) -> None:
        body = urlencode(FORM).encode()
        async with (
            open_stream(telephone=TELNYX) as (stream, url),
            httpx.AsyncClient() as http,
        ):
            reply = await http.post(
                f"{url}/telephone/incoming", content=body, headers=telnyx_headers(body)
            )
            found = re.search(f'<Parameter name="{TOKEN_PARAMETER}" value="([^"]+)"/>', reply.text)
            assert found is not None
            start = Start("MZ1", MULAW_8K, "v3:1", {TOKEN_PARAMETER: found[1], "customer": "Ada"})
            async with open_client(url, start, TelnyxFraming(), PHONE):
                await wait_until(lambda: stream.active == 1)
                session = next(iter(stream.sessions.values()))
                assert session.peer.start.parameters == {"customer": "Ada"}  # type: ignore[attr-defined]

    @pytest.mark.parametrize("framing", [TelnyxFraming, TwilioFraming, PlivoFraming])
    async def test_websocket_without_valid_token_is_closed(self, framing: Any) -> None:
        options = TelephoneOptions(telnyx_public_key=PUBLIC_KEY, secret=TOKEN)
        now = time.time()
        tokens = (
            "",
            "x",
            make_token(b"another", now),
            make_token(TOKEN.encode(), now - 400),
        )
        async with open_stream(telephone=options) as (stream, url):
            for token in tokens:
                async with open_wire(url, PHONE) as wire:
                    start = Start("MZ1", MULAW_8K, "1", {TOKEN_PARAMETER: token})
                    await wire.send(framing().encode(start) or "")
                    assert await wire.receive_end() == 1008
            assert stream.active == 0

    async def test_token_of_another_process_with_same_secret_is_accepted(self) -> None:
        options = TelephoneOptions(telnyx_public_key=PUBLIC_KEY, secret=TOKEN)
        token = make_token(TOKEN.encode(), time.time())
        async with open_stream(telephone=options) as (stream, url):
            start = Start("MZ1", MULAW_8K, "1", {TOKEN_PARAMETER: token})
            async with open_client(url, start, TelnyxFraming(), PHONE):
                await wait_until(lambda: stream.active == 1)

    async def test_streaming_auth_token_header_must_equal_the_secret(self) -> None:
        options = TelephoneOptions(telnyx_public_key=PUBLIC_KEY, secret=TOKEN)
        async with open_stream(telephone=options) as (stream, url):
            headers = {"x-telnyx-streaming-auth-token": TOKEN}
            async with open_client(url, START, TelnyxFraming(), PHONE, headers):
                await wait_until(lambda: stream.active == 1)
            wrong = {"x-telnyx-streaming-auth-token": TOKEN[1:]}
            async with open_wire(url, PHONE, wrong) as wire:
                await wire.send(TelnyxFraming().encode(START) or "")
                assert await wire.receive_end() == 1008


class TestPlivo:
    async def test_request_without_valid_signature_is_a_403(self) -> None:
        options = TelephoneOptions(plivo_auth_token=TOKEN, public_url="https://example.com")
        public = "https://example.com/voice/telephone/incoming"
        right = sign_plivo(TOKEN, "12", public, list(FORM.items()))
        main = {"X-Plivo-Signature-Ma-V3": right, "X-Plivo-Signature-V3-Nonce": "12"}
        verdicts = [
            ({"X-Plivo-Signature-V3": right, "X-Plivo-Signature-V3-Nonce": "12"}, 200),
            ({"X-Plivo-Signature-V3": f"{right[::-1]},{right}"} | main, 200),
            (main, 200),
            ({"X-Plivo-Signature-V3": right, "X-Plivo-Signature-V3-Nonce": "13"}, 403),
            ({"X-Plivo-Signature-V3": right}, 403),
            ({}, 403),
        ]
        async with open_stream(telephone=options) as (_, url), httpx.AsyncClient() as http:
            for headers, verdict in verdicts:
                reply = await http.post(f"{url}/telephone/incoming", data=FORM, headers=headers)
                assert reply.status_code == verdict
                assert ("telephone.plivo_auth_token" in reply.text) == (verdict == 403)
                assert ('<Stream bidirectional="true"' in reply.text) == (verdict == 200)

    async def test_websocket_without_valid_signature_is_rejected(self) -> None:
        options = TelephoneOptions(plivo_auth_token=TOKEN, public_url="https://example.com")
        signature = sign_plivo(TOKEN, "12", "wss://example.com/voice/telephone/handler")
        headers = {"X-Plivo-Signature-V3": signature, "X-Plivo-Signature-V3-Nonce": "12"}
        async with open_stream(telephone=options) as (stream, url):
            with pytest.raises(InvalidStatus) as caught:
                async with open_wire(url, PHONE, headers | {"X-Plivo-Signature-V3-Nonce": "1"}):
                    pytest.fail("accepted without permission")
            assert b"telephone.plivo_auth_token" in (caught.value.response.body or b"")
            async with open_client(url, Start("MZ1"), PlivoFraming(), PHONE, headers):
                await wait_until(lambda: stream.active == 1)


class TestSeveralCarriers:
    async def test_response_xml_follows_the_carrier_of_the_request(self) -> None:
        telnyx, plivo = {"CallSidLegacy": "v3:1"}, {"CallUUID": "1"}
        async with open_stream() as (_, url), httpx.AsyncClient() as http:
            for form, expected in (
                (FORM, '<Connect><Stream url="ws://'),
                (telnyx, 'bidirectionalCodec="PCMU"'),
                (plivo, 'contentType="audio/x-mulaw;rate=8000">ws://'),
            ):
                reply = await http.post(f"{url}/telephone/incoming", data=form)
                assert expected in reply.text

    async def test_carrier_option_overrides_detection(self) -> None:
        options = TelephoneOptions(carrier="plivo")
        async with open_stream(telephone=options) as (_, url), httpx.AsyncClient() as http:
            reply = await http.post(f"{url}/telephone/incoming", data=FORM)
            assert "<Stream bidirectional" in reply.text

    async def test_each_configured_carrier_needs_its_own_signature(self) -> None:
        options = TelephoneOptions(
            auth_token=TOKEN, telnyx_public_key=PUBLIC_KEY, public_url="https://example.com"
        )
        public = "https://example.com/voice/telephone/incoming"
        body = urlencode(FORM).encode()
        form = {"Content-Type": "application/x-www-form-urlencoded"}
        plivo = sign_plivo(TOKEN, "1", public, list(FORM.items()))
        async with open_stream(telephone=options) as (_, url), httpx.AsyncClient() as http:
            for headers, verdict in (
                (telnyx_headers(body), 200),
                (form | {"X-Twilio-Signature": sign_twilio(TOKEN, public, FORM.items())}, 200),
                (form | {"X-Plivo-Signature-V3": plivo, "X-Plivo-Signature-V3-Nonce": "1"}, 403),
            ):
                reply = await http.post(f"{url}/telephone/incoming", content=body, headers=headers)
                assert reply.status_code == verdict
                for name in ("telephone.auth_token", "telephone.telnyx_public_key"):
                    assert (name in reply.text) == (verdict == 403)


class TestCalls:
    @pytest.mark.parametrize("framing", [TwilioFraming, TelnyxFraming, PlivoFraming])
    async def test_carrier_hears_echo_and_gets_marks(self, framing: Any) -> None:
        async with open_stream() as (stream, url):
            async with open_client(url, Start("MZ1"), framing(), PHONE) as carrier:
                await check_echo(carrier)
                assert stream.handlers["MZ1"].phone_mode
                assert [e for e in carrier.events if isinstance(e, Mark)]
            await wait_until(lambda: stream.active == 0)

    async def test_twilio_barge_in_clears_and_counts_marked_audio(self) -> None:
        """Events as documented by Twilio: connected, start, media, clear, marks, stop."""

        async def greet() -> AsyncGenerator[Any, None]:
            yield 8_000, np.full((1, 8_000), 3000, np.int16)

        async def reply(audio: Any) -> AsyncGenerator[Any, None]:
            seen.append(get_current_context())
            yield 8_000, np.full((1, 80_000), 3000, np.int16)

        seen: list[Any] = []
        async with (
            open_stream(agent(reply, startup_fn=greet)) as (stream, url),
            open_wire(url, PHONE) as wire,
        ):
            carrier = Client(wire, TwilioFraming(), MULAW_8K)
            async with anyio.create_task_group() as tasks:
                carrier.send(Connected())
                carrier.send(START)
                tasks.start_soon(carrier.run)
                tasks.start_soon(carrier.listen)
                speech = [silence(1.3), voice(0.8), silence(1.5), voice(0.8), silence(0.2)]
                await carrier.speak(np.concatenate(speech, axis=1), 16_000)
                await wait_until(lambda: any(isinstance(event, Clear) for event in carrier.events))
                out = stream.sessions[next(iter(stream.sessions))].statistics().audio_out
                assert out is not None
                assert out.sent == out.played + out.flushed
                heard = carrier.sound.shape[1]
                # Marks never report more than was played, and less by at most a mark and a frame.
                assert 0 <= heard - out.played <= 2 * 960
                carrier.hang_up()
                with anyio.fail_after(5):
                    await carrier.ended.wait()
                tasks.cancel_scope.cancel()
            carrier.close()
        assert seen[0].webrtc_id == "MZ1"
        assert seen[0].websocket.url.path == f"/voice{PHONE}"

    async def test_second_call_beyond_limit_closes_with_1013(self) -> None:
        """Telephone and WebSocket calls count towards the same limit (defect D3 of FastRTC)."""
        async with open_stream(Quiet()) as (stream, url):
            async with open_client(url, START, TwilioFraming(), PHONE):
                await wait_until(lambda: stream.active == 1)
                async with open_wire(url, PHONE) as second:
                    await second.send(TwilioFraming().encode(Start("MZ2")) or "")
                    assert await second.receive_end() == 1013
                async with open_wire(url) as third:
                    await third.send('{"event": "start"}')
                    meta = (await third.receive_json())["meta"]
                    assert meta["error"] == "concurrency_limit_reached"
                handler = stream.handlers["MZ1"]
            await wait_until(lambda: stream.active == 0)
            assert isinstance(handler, Quiet)
            assert handler.calls == ["shutdown"]  # defect D4 of FastRTC

    @pytest.mark.parametrize("rubbish", ["no", "[]", json.dumps({"event": "media"}), "\ud83d"])
    async def test_malformed_event_ends_only_its_call(self, rubbish: str) -> None:
        async with open_stream(AsyncEcho(), concurrency_limit=None) as (stream, url):
            async with (
                open_client(url, START, TwilioFraming(), PHONE) as good,
                open_wire(url, PHONE) as bad,
            ):
                await bad.send(TwilioFraming().encode(Start("MZ2")) or "")
                await bad.send(rubbish.encode("utf-8", "replace").decode())
                await bad.receive_end()
                await check_echo(good)
            await wait_until(lambda: stream.active == 0)


async def test_telephone_option_of_another_type_raises() -> None:
    with pytest.raises(TypeError, match="telephone must be a TelephoneOptions"):
        Stream(AsyncEcho(), modality="audio", telephone="twilio")  # type: ignore[arg-type]
