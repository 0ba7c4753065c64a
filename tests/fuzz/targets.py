"""Targets on virtual time: each feeds one input to a new application beside a call in memory."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import get_args
from urllib.parse import parse_qsl

import anyio
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fastrtc_anyio import SignalingError, TelephoneOptions
from fastrtc_anyio._media.media_plan import MediaPlan, Modality, Mode
from fastrtc_anyio._signaling.offer import Negotiation, negotiate
from fastrtc_anyio._signaling.requests import IceCandidate, OfferRequest, parse_request
from fastrtc_anyio._signaling.restart import read_restart
from fastrtc_anyio._signaling.sdp_parser import parse_description
from fastrtc_anyio._signaling.whip import narrow_offer, parse_fragment
from fastrtc_anyio._wire.signatures import sign_plivo, sign_twilio, telnyx_message
from tests.kit.asgi import request, websocket
from tests.kit.choices import Choices
from tests.kit.mutators import NUMBERS, TEXTS, mutate_form, mutate_json, mutate_sdp, odd_headers
from tests.kit.own_words import check_own_words

from .seeds import (
    ALL_OFFERS,
    CANDIDATES,
    FORM,
    FRAGMENT,
    carrier_messages,
    client_messages,
    mutate_messages,
    trickled,
)
from .worlds import MANY, VALUES, identify, open_world, watch_neighbour

Target = Callable[[bytes], Awaitable[None]]

TOKEN = "a secret of the account"
_KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
_PUBLIC_KEY = base64.b64encode(_KEY.public_key().public_bytes_raw()).decode()
_SIGNED = TelephoneOptions(auth_token=TOKEN, plivo_auth_token=TOKEN, telnyx_public_key=_PUBLIC_KEY)
_INCOMING = "/telephone/incoming"
_FORM_TYPE = (b"content-type", b"application/x-www-form-urlencoded")


async def feed_descriptions(data: bytes) -> None:
    """Offers, restarts, WHIP's offers and fragments, as values without a connection."""
    await anyio.lowlevel.checkpoint()
    choices = Choices(data)
    offer = choices.pick(ALL_OFFERS)
    mode: Mode = choices.pick(get_args(Mode))
    modality: Modality = choices.pick(get_args(Modality))
    sdp = mutate_sdp(choices, offer.sdp)
    try:
        parse_fragment(mutate_sdp(choices, FRAGMENT))
    except SignalingError as exc:
        check_own_words(str(exc))
    try:
        described = parse_description(sdp, MANY)
        if choices.chance(2):
            described = narrow_offer(described, choices.pick(("whip", "whep")))
        negotiation = negotiate(described, MediaPlan.of(modality, mode))
        presented = parse_description(str(negotiation.present()))
        assert len(presented.sections) == len(negotiation.presented)
        _route(negotiation)
        # The offer, the answer and the restart agree, or the restart is refused.
        again = parse_description(mutate_sdp(choices, sdp), MANY)
        read_restart(negotiation, described, again)
    except SignalingError as exc:
        check_own_words(str(exc))


def _route(negotiation: Negotiation) -> None:
    candidates, _ = negotiation.described_candidates()
    for one in [*candidates, IceCandidate("candidate:1", "0", 10**30)]:
        negotiation.route(one)


async def feed_requests(data: bytes) -> None:
    """JSON of the signalling endpoint, without a connection."""
    choices = Choices(data)
    bodies: tuple[dict[str, object], ...] = (
        {"type": "offer", "sdp": "v=0\r\n", "webrtc_id": "me", "restart": False},
        {"type": "offer", "sdp": "v=0\r\n", "resume_token": "a secret of the former answer"},
        *(trickled(one) for one in CANDIDATES),
    )
    body = mutate_json(choices, choices.pick(bodies)).encode("utf-8", "surrogatepass")
    try:
        parsed = parse_request(json.loads(body), MANY)
    except (SignalingError, ValueError, RecursionError):
        parsed = None
    if isinstance(parsed, OfferRequest):
        return  # opening a connection takes real time: tests/server/test_fuzz.py
    async with open_world() as world, watch_neighbour():
        reply = await request(world.app, "POST", "/webrtc/offer", body)
        world.check_reply(reply)
        assert (reply.status == 200) == (parsed is not None)
        await world.wait_over()


async def feed_websocket(data: bytes) -> None:
    """Messages of FastRTC's WebSocket protocol."""
    choices = Choices(data)
    messages = mutate_messages(choices, client_messages())
    async with open_world() as world, watch_neighbour():
        odd, code = odd_headers(choices), choices.pick((1000, 1001, 1006))
        world.check_socket(await websocket(world.app, "/websocket/offer", messages, odd, code=code))
        await world.wait_over()


async def feed_carrier(data: bytes) -> None:
    """Messages of Twilio, Telnyx and Plivo."""
    choices = Choices(data)
    telephone = _SIGNED if choices.chance(8) else TelephoneOptions()
    messages = mutate_messages(choices, carrier_messages(choices))
    async with open_world(telephone=telephone) as world, watch_neighbour():
        world.check_socket(
            await websocket(world.app, "/telephone/handler", messages, odd_headers(choices))
        )
        await world.wait_over()


async def feed_webhook(data: bytes) -> None:
    """A carrier's request about an incoming call, with valid and invalid signatures."""
    choices = Choices(data)
    body = mutate_form(choices, FORM)
    query = choices.pick((b"", b"", b"a=b", b"a=%ff&a=\xe9", b"?", b"&=&", b"%"))
    headers = [_FORM_TYPE, *_sign(choices, body, query), *odd_headers(choices)]
    async with open_world(telephone=_SIGNED) as world, watch_neighbour():
        reply = await request(world.app, "POST", _INCOMING, body, headers, query)
        world.check_reply(reply)
        await world.wait_over()


def _sign(choices: Choices, body: bytes, query: bytes) -> list[tuple[bytes, bytes]]:
    """Return the headers of a carrier, with a signature that is valid in half of all cases."""
    url = f"http://127.0.0.1{_INCOMING}"
    if query:
        url += f"?{query.decode('latin-1')}"
    form = parse_qsl(body.decode("utf-8", "replace"), keep_blank_values=True)
    now = str(int(time.time()))
    odd = choices.pick((*TEXTS, *NUMBERS)).encode("utf-8", "surrogatepass")
    match choices.number(3):
        case 0:
            headers = {b"x-twilio-signature": sign_twilio(TOKEN, url, form).encode()}
        case 1:
            nonce = "12345"
            signature = sign_plivo(TOKEN, nonce, url, form).encode()
            headers = {b"x-plivo-signature-v3": signature, b"x-plivo-signature-v3-nonce": b"12345"}
        case _:
            stamp = choices.pick((now, now, *NUMBERS)).encode("utf-8", "replace")
            signed = _KEY.sign(telnyx_message(stamp.decode("latin-1"), body))
            headers = {
                b"telnyx-timestamp": stamp,
                b"telnyx-signature-ed25519": base64.b64encode(signed),
            }
    if choices.chance(2):
        headers[choices.pick(list(headers))] = odd
    return list(headers.items())


async def feed_page(data: bytes) -> None:
    """Inputs of the page, and requests for its outputs, for a session on a WebSocket."""
    choices = Choices(data)
    body = mutate_json(choices, VALUES).encode("utf-8", "surrogatepass")
    name = choices.pick((b"page", b"page", b"", b"other", b"%ff", b"\xff", b"a" * 10_000))
    start = json.dumps({"event": "start", "websocket_id": "page"})
    # In half of all cases, with identities: those of the call and of the requests may differ.
    ada = (b"authorization", b"Ada")
    by = [choices.pick((ada, (b"authorization", b"\xe9"), (b"cookie", b"?"))) for _ in range(2)]
    options = {"authenticate": identify} if choices.chance(2) else {}
    async with open_world(**options) as world, watch_neighbour():
        async with anyio.create_task_group() as tasks:
            messages = [start, *['{"event": "ping"}'] * 10]
            tasks.start_soon(websocket, world.app, "/websocket/offer", messages, [ada])
            await anyio.sleep(0.05)
            world.check_reply(
                await request(
                    world.app, "POST", "/input_hook", body, [by[0], *odd_headers(choices)]
                )
            )
            query = b"webrtc_id=" + name
            world.check_reply(
                await request(
                    world.app, "GET", "/outputs", b"", [by[1], *odd_headers(choices)], query
                )
            )
        await world.wait_over()


TARGETS: Mapping[str, Target] = {
    "descriptions": feed_descriptions,
    "requests": feed_requests,
    "websocket": feed_websocket,
    "carrier": feed_carrier,
    "webhook": feed_webhook,
    "page": feed_page,
}
