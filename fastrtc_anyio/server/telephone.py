"""A telephone's endpoints: the answer to a call, and its audio."""

from __future__ import annotations

import logging
from functools import partial
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, urlsplit

from starlette.requests import ClientDisconnect, HTTPConnection, Request
from starlette.responses import PlainTextResponse, Response
from starlette.websockets import WebSocket

from fastrtc_anyio._wire.any_carrier import TelephoneFraming
from fastrtc_anyio._wire.call_xml import TelephoneOptions, answer_call, recognise_carrier
from fastrtc_anyio.errors import SignalingError

from .access import check_entry
from .bodies import read_body
from .telephone_proof import admit_start, give_token, refusal, shows_secret, signed_by
from .websockets import let_in, refuse, serve_audio

if TYPE_CHECKING:
    from fastrtc_anyio.stream import Stream

__all__ = ["answer_incoming_call", "serve_telephone"]

logger = logging.getLogger("fastrtc_anyio")

_MAX_FIELDS = 1000
"""Carriers send some thirty, each of which is sorted and hashed to prove who signed them."""
_INCOMING, _HANDLER = "/telephone/incoming", "/telephone/handler"


async def answer_incoming_call(stream: Stream, request: Request) -> Response:
    """See :meth:`fastrtc_anyio.Stream.handle_incoming_call`."""
    options = stream.telephone
    url = public_url(request, options)
    try:
        # Where carriers sign what they send, they need not say who they are in another way as well.
        if not options.proofs:
            await check_entry(stream, request)
        body = await read_body(request, stream.request_limits)
    except SignalingError as exc:
        return PlainTextResponse(str(exc), exc.status_hint)
    except ClientDisconnect:
        return Response(status_code=400)  # to nobody
    except Exception:
        logger.exception("an incoming call could not be let in")
        return PlainTextResponse("the server has met an error, which is in its log", 500)
    try:
        text = body.decode("utf-8", "replace")
        form = parse_qsl(text, keep_blank_values=True, max_num_fields=_MAX_FIELDS)
    except ValueError:
        return PlainTextResponse(f"the form has more than {_MAX_FIELDS} fields", 413)
    if not options.proofs:
        carrier = recognise_carrier(request.headers, dict(form))
    elif (signer := signed_by(options, request.headers, url, form, body)) is not None:
        carrier = signer
    else:
        why = refusal(options, url)
        logger.warning("an incoming call was refused: %s", why)
        return PlainTextResponse(why, 403)
    parts = urlsplit(url)
    target = parts._replace(
        scheme="wss" if parts.scheme == "https" else "ws",
        path=parts.path.removesuffix("/").removesuffix(_INCOMING) + _HANDLER,
        query="",  # Twilio takes none
    )
    xml = answer_call(options.carrier or carrier, target.geturl(), options, give_token(options))
    return Response(xml, media_type="application/xml")


async def serve_telephone(stream: Stream, websocket: WebSocket) -> None:
    """See :meth:`fastrtc_anyio.Stream.telephone_handler`."""
    options = stream.telephone
    admit = None
    if not options.proofs:
        if not await let_in(stream, websocket):
            return
    elif not (
        signed_by(options, websocket.headers, url := public_url(websocket, options))
        or shows_secret(options, websocket.headers)
    ):
        if options.telnyx_public_key is None:
            await refuse(websocket, refusal(options, url))
            return
        admit = partial(admit_start, options)  # Telnyx signs no handshake
    await serve_audio(stream, websocket, TelephoneFraming(options.telnyx_codec, admit))


def public_url(connection: HTTPConnection, options: TelephoneOptions) -> str:
    """The address that the carrier used."""
    own = urlsplit(str(connection.url))
    scheme, netloc, prefix = own.scheme, own.netloc, ""
    socket = scheme in ("ws", "wss")
    if options.trust_forwarded:
        headers = connection.headers
        scheme = _first(headers.get("x-forwarded-proto")) or scheme
        netloc = _first(headers.get("x-forwarded-host")) or netloc
    if options.public_url is not None:
        public = urlsplit(options.public_url)
        scheme, netloc, prefix = public.scheme, public.netloc, public.path.rstrip("/")
    secure = scheme in ("https", "wss")
    scheme = ("wss" if secure else "ws") if socket else ("https" if secure else "http")
    return own._replace(scheme=scheme, netloc=netloc, path=prefix + own.path).geturl()


def _first(header: str | None) -> str:
    """What the proxy nearest to the client said."""
    return (header or "").partition(",")[0].strip()
