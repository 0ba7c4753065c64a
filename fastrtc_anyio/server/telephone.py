"""A telephone's endpoints: the answer to a call, and its audio."""

from __future__ import annotations

import logging
from contextlib import aclosing
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, urlsplit

from starlette.requests import ClientDisconnect, HTTPConnection, Request
from starlette.responses import PlainTextResponse, Response
from starlette.websockets import WebSocket

from fastrtc_anyio.errors import SignalingError
from fastrtc_anyio.protocol.sockets.telephone import TelephoneFraming
from fastrtc_anyio.protocol.telephone import TelephoneOptions, answer_call, is_signed

from .entry import check_entry
from .sockets import let_in, refuse, serve_audio

if TYPE_CHECKING:
    from fastrtc_anyio.stream import Stream

__all__ = ["answer_incoming_call", "serve_telephone"]

logger = logging.getLogger("fastrtc_anyio")

_INCOMING, _HANDLER = "/telephone/incoming", "/telephone/handler"
_MAX_FORM = 65_536
"""Bytes. Twilio's form is below 2,000."""
_UNSIGNED = "the X-Twilio-Signature is not that of telephone.auth_token for "


async def answer_incoming_call(stream: Stream, request: Request) -> Response:
    """See :meth:`fastrtc_anyio.Stream.handle_incoming_call`."""
    options = stream.telephone
    url = public_url(request, options)
    # Where the carrier signs what it sends, it need not say who it is in another way as well.
    if options.auth_token is None:
        try:
            await check_entry(stream, request)
        except SignalingError as exc:
            return PlainTextResponse(str(exc), exc.status_hint)
    try:
        form = await _read_form(request)
    except ClientDisconnect:
        return Response(status_code=400)  # to nobody
    if form is None:
        return PlainTextResponse(f"the form is larger than {_MAX_FORM} bytes", 413)
    if not _is_trusted(request, options, url, form):
        logger.warning("an incoming call was refused: %s%s", _UNSIGNED, url)
        return PlainTextResponse(_UNSIGNED + url, 403)
    parts = urlsplit(url)
    target = parts._replace(
        scheme="wss" if parts.scheme == "https" else "ws",
        path=parts.path.removesuffix("/").removesuffix(_INCOMING) + _HANDLER,
        query="",  # Twilio takes none
    )
    return Response(answer_call(target.geturl(), options), media_type="application/xml")


async def serve_telephone(stream: Stream, websocket: WebSocket) -> None:
    """See :meth:`fastrtc_anyio.Stream.telephone_handler`."""
    options = stream.telephone
    if options.auth_token is None and not await let_in(stream, websocket):
        return
    url = public_url(websocket, options)
    if not _is_trusted(websocket, options, url, []):
        await refuse(websocket, _UNSIGNED + url)
        return
    await serve_audio(stream, websocket, TelephoneFraming())


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


def _is_trusted(
    connection: HTTPConnection, options: TelephoneOptions, url: str, form: list[tuple[str, str]]
) -> bool:
    if options.auth_token is None:
        return True
    signature = connection.headers.get("x-twilio-signature", "")
    return is_signed(options.auth_token, signature, url, form)


async def _read_form(request: Request) -> list[tuple[str, str]] | None:
    """The fields of a form; None if it is too large."""
    body = bytearray()
    async with aclosing(request.stream()) as chunks:
        async for chunk in chunks:
            body += chunk
            if len(body) > _MAX_FORM:
                return None
    text = body.decode("utf-8", "replace")
    return parse_qsl(text, keep_blank_values=True)
