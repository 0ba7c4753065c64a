"""Endpoints for a telephone carrier: the answer to a call, and the call's audio."""

from __future__ import annotations

from functools import partial
from urllib.parse import parse_qsl, urlsplit

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.websockets import WebSocket

from fastrtc_anyio._sessions.service import SessionService
from fastrtc_anyio._wire.any_carrier import TelephoneFraming
from fastrtc_anyio._wire.call_xml import TelephoneOptions, answer_call, recognise_carrier
from fastrtc_anyio.errors import FastRTCError, LimitExceeded, NotAllowed

from .access import Visitor
from .hosts import check_host
from .http import HIDDEN, Guard, own_url, read_body, retry_headers
from .options import WebOptions
from .telephone_proof import admit_by_token, give_token, refusal, shows_secret, signed_by
from .websockets import admit_websocket, refuse, serve_audio

__all__ = ["answer_incoming_call", "serve_telephone"]

_MAX_FIELDS = 1000
"""Maximum fields of a request. Carriers send some thirty; verifying a signature sorts and hashes
them all."""
_MAX_BYTES = 65_536
"""Maximum bytes of a request. Carriers send some hundreds; decoding 500,000 takes 40 ms."""
_INCOMING, _HANDLER = "/telephone/incoming", "/telephone/handler"


async def answer_incoming_call(
    service: SessionService, options: WebOptions, request: Request
) -> Response:
    """Answer a carrier's request about an incoming call with XML that connects it."""
    telephone = options.telephone

    async def answer(request: Request, _visitor: Visitor) -> Response:
        check_host(options, request)
        service.check_draining()
        body = await read_body(request, service.request_limits)
        try:
            return _answer(telephone, request, body)
        except NotAllowed:  # only requests that no carrier has signed are counted
            await options.fairness.count(request)
            raise

    guard = Guard(options, _fail_as_text, "an incoming call")
    # Where carriers sign their requests, the signature replaces `authenticate`.
    return await guard.respond(request, answer, is_admitted=bool(telephone.proofs))


def _answer(options: TelephoneOptions, request: Request, body: bytes) -> Response:
    if len(body) > _MAX_BYTES:
        raise LimitExceeded(f"the request has {len(body)} bytes; at most {_MAX_BYTES} are allowed")
    url = own_url(request, options)
    try:
        text = body.decode("utf-8", "replace")
        form = parse_qsl(text, keep_blank_values=True, max_num_fields=_MAX_FIELDS)
    except ValueError:
        raise LimitExceeded(f"the form has more than {_MAX_FIELDS} fields") from None
    if not options.proofs:
        carrier = recognise_carrier(request.headers, dict(form))
    elif (signer := signed_by(options, request.headers, url, form, body)) is not None:
        carrier = signer
    else:
        raise refusal(options, url)
    parts = urlsplit(url)
    target = parts._replace(
        scheme="wss" if parts.scheme == "https" else "ws",
        path=parts.path.removesuffix("/").removesuffix(_INCOMING) + _HANDLER,
        query="",  # Twilio refuses a URL with a query
    )
    xml = answer_call(options.carrier or carrier, target.geturl(), options, give_token(options))
    return Response(xml, media_type="application/xml")


def _fail_as_text(error: FastRTCError, status: int) -> Response:
    text = HIDDEN if status == 500 else str(error)
    return PlainTextResponse(text, status, retry_headers(error))


async def serve_telephone(
    service: SessionService, options: WebOptions, websocket: WebSocket
) -> None:
    """Serve the WebSocket of a call from its handshake to its end."""
    telephone = options.telephone
    admit, waiting = None, None
    is_open = not telephone.proofs and options.authenticate is None
    try:
        check_host(options, websocket)
    except NotAllowed as exc:
        await refuse(websocket, exc, exc.status_hint)
        return
    if not telephone.proofs:
        if (visitor := await admit_websocket(options, websocket)) is None:
            return
        waiting = visitor.client
    elif not (
        signed_by(telephone, websocket.headers, url := own_url(websocket, telephone))
        or shows_secret(telephone, websocket.headers)
    ):
        visitor = await admit_websocket(options, websocket, check_access=False)
        if visitor is None:
            return
        waiting = visitor.client
        if telephone.telnyx_public_key is None:
            error = refusal(telephone, url)
            await refuse(websocket, error, error.status_hint)
            return
        admit = partial(admit_by_token, telephone)  # Telnyx does not sign WebSocket handshakes
    framing = TelephoneFraming(telephone.telnyx_codec, admit)
    # A call of a carrier belongs to no client, even if the carrier has an identity. A carrier has
    # many callers and few addresses, so its calls are counted only if anyone may place them.
    caller = Visitor(client=waiting if is_open else None)
    await serve_audio(service, websocket, framing, caller, waiting=waiting)
