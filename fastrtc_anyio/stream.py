"""``Stream``: serve one handler to any number of clients, with FastRTC's signature."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Literal

from anyio import AsyncContextManagerMixin

from ._core.attributes import part_attribute
from ._core.extras import explain_import_error
from ._driver.factory import Handler
from ._media.encode import OpusOptions
from ._media.media_plan import MediaNeeds, MediaPlan, Modality, Mode
from ._media.video_encode import VideoOptions
from ._peers.streams.audio import BufferOptions
from ._sessions.admission import ConcurrencyLimit
from ._sessions.claims import SessionClaims
from ._sessions.offers import RtcSource
from ._sessions.service import SessionService
from ._wire.call_xml import TelephoneOptions
from .abc import Peer
from .errors import CloseReason
from .handlers import StreamHandlerBase
from .limits import Limits, RequestLimits
from .observability.observer import Observer
from .outputs import AdditionalOutputs, OutputReader, OutputStream
from .resumption import SessionStore
from .server.access import Authenticate
from .server.endpoints import StreamEndpoints
from .server.fairness import ClientKey, TrustedProxies
from .server.fastrtc_names import FastRTCNames
from .server.options import ClientConfiguration, WebOptions
from .server.page import Backend, Page
from .server.page.components import Component, OutputsHandler
from .server.page.ui_args import UIArgs
from .session import Session

if TYPE_CHECKING:  # so that a stream can be made without Starlette
    from starlette.applications import Starlette
    from starlette.websockets import WebSocket

__all__ = ["Stream"]


class Stream(StreamEndpoints, FastRTCNames, AsyncContextManagerMixin):
    """Serves a handler to clients over WebRTC, over WebSockets and on the telephone.

    ``async with stream:`` opens it. The block owns every session; leaving it ends them all within
    their limits. :meth:`mount` opens the stream in a web application's lifespan instead.

    Args:
        handler: a handler object, which is copied for each session; a handler class or function
            without arguments, called for each session; a session function ``async def
            serve(session)``; with ``modality="video"`` a function ``frame, *inputs -> frame`` (or a
            :class:`VideoStreamHandler`); with ``mode="receive"`` a generator ``*inputs -> frames``.
        mode: the client's direction: ``"send-receive"``, ``"send"`` or ``"receive"``.
        modality: ``"audio"``, ``"video"`` or ``"audio-video"``.
        concurrency_limit: maximum concurrent sessions. ``"default"`` is 1, None no limit.
        time_limit: seconds a session may stay connected; None for no limit.
        allow_extra_tracks: FastRTC's. Extra sections of an offer are answered ``inactive`` anyway.
        rtp_params: parameters of the page's RTP sender.
        rtc_configuration: the page's W3C RTC configuration, or a function that returns one for each
            call. Functions are plain (and run on a thread) or async.
        server_rtc_configuration: the server's :class:`RtcConfiguration` or W3C dictionary, or a
            function that returns one for each call.
        track_constraints: the page's constraints for camera and microphone.
        additional_inputs: controls on the page, such as :class:`Slider`, or Gradio's. It sends
            their values as input when a call begins, after each change, and at the handler's
            request.
        additional_outputs: displays on the page for the values of ``AdditionalOutputs``, in order.
        additional_outputs_handler: a plain or async function ``(*shown, *emitted) -> shown`` that
            returns the next values of the displays, as a tuple if there are several.
        ui_args: settings of the page.
        verbose: log the beginning and the end of each session at INFO instead of DEBUG.
        limits: deadlines of a session.
        request_limits: limits on the requests and messages of a client.
        live: True for audio derived from the input in real time (echo, translation): playback skips
            any backlog after a stall. The default for session functions. False: nothing is ever
            skipped. The default for conversations. None, the default for other handlers: any
            backlog of an echo is skipped, and of another source in real time that which a burst
            of input has caused.
        output_buffer_s: seconds of audio that a handler may work ahead of playback. By default 30,
            and for live streams ``input_buffer_s`` + 0.2.
        input_buffer_s: seconds of audio that wait for a slow handler. A handler further behind
            continues with the newest audio.
        opus: settings of the Opus encoder.
        video: codec and bitrate of outgoing video.
        telephone: how a carrier reaches this server, and how it authenticates.
        authenticate: guards every endpoint, but not methods that the application calls. A plain
            (on a thread) or async function of Starlette's ``HTTPConnection``. It returns the
            client's identity (a string, such as a user's id), or True, or False for a 401, or
            raises :class:`NotAuthenticated` or :class:`NotAllowed`. Only requests with the same
            identity reach a session that a client with an identity has begun.
        allowed_origins: further origins whose pages may call, such as ``"https://example.com"``, or
            ``"*"``. The server's own pages, and clients that are not pages, are always allowed.
        allowed_hosts: names in the ``Host`` header of requests, such as ``"example.org"``,
            ``"*.example.org"``, or ``"*"`` for any. On loopback addresses, loopback names and the
            host of ``TelephoneOptions.public_url`` are allowed besides; on others, any by default.
        trusted_proxies: addresses and networks of reverse proxies, such as ``"10.0.0.0/8"``. The
            client of a request from one is the address in its ``X-Forwarded-For`` or ``Forwarded``.
        client_key: names clients for their limits in ``RequestLimits``, in place of addresses: a
            plain (on a thread) or async function ``(HTTPConnection) -> str``.
        observers: observe the sessions: ``[Metrics(), Tracing()]`` of
            :mod:`fastrtc_anyio.observability`, and observers of the application.
        drain_timeout: seconds that :meth:`drain` gives sessions to end: 0 for none, None for any.

    Raises:
        TypeError, ValueError: an argument is unsuitable, or does not suit the modality and mode.
    """

    is_open: bool = part_attribute("_service")
    """Whether the stream is open. While it drains, no session can begin."""
    is_draining: bool = part_attribute("_service")
    """Whether :meth:`drain` was called since the stream was opened."""
    drain_timeout: float | None = part_attribute("_service")
    media: MediaPlan = part_attribute("_service")
    """Media kinds and their directions."""
    limits: Limits = part_attribute("_service")
    active: int = part_attribute("_registry")
    """Number of sessions that count towards ``concurrency_limit``."""
    sessions: Mapping[str, Session] = part_attribute("_registry")
    """The live sessions by their own ids."""
    handlers: Mapping[str, StreamHandlerBase] = part_attribute("_registry")
    """The handlers of live sessions, by the clients' ``webrtc_id`` and by the sessions' ids."""
    claims: SessionClaims | None = part_attribute("_service")
    """Registers the sessions in a cluster; None in a single process. Assign a :class:`.Member`."""
    store: SessionStore = part_attribute("_service")
    """Keeps what sessions save. In memory by default."""
    request_limits: RequestLimits = part_attribute("_service")
    concurrency_limit: int | None = part_attribute("_service")
    rtp_params: dict[str, object] = part_attribute("_web")
    rtc_configuration: ClientConfiguration = part_attribute("_web")
    track_constraints: dict[str, object] = part_attribute("_web")
    additional_inputs: list[Component] = part_attribute("_web")
    additional_outputs: list[Component] = part_attribute("_web")
    additional_outputs_handler: OutputsHandler | None = part_attribute("_web")
    ui_args: dict[str, object] = part_attribute("_web")
    telephone: TelephoneOptions = part_attribute("_web")
    authenticate: Authenticate | None = part_attribute("_web")
    allowed_origins: tuple[str, ...] = part_attribute("_web")
    allowed_hosts: tuple[str, ...] = part_attribute("_web")

    def __init__(
        self,
        handler: Handler,
        *,
        mode: Mode = "send-receive",
        modality: Modality = "video",
        concurrency_limit: ConcurrencyLimit = "default",
        time_limit: float | None = None,
        allow_extra_tracks: bool = False,
        rtp_params: Mapping[str, object] | None = None,
        rtc_configuration: ClientConfiguration | None = None,
        server_rtc_configuration: RtcSource = None,
        track_constraints: Mapping[str, object] | None = None,
        additional_inputs: Sequence[object] | None = None,
        additional_outputs: Sequence[object] | None = None,
        additional_outputs_handler: OutputsHandler | None = None,
        ui_args: UIArgs | None = None,
        verbose: bool = True,
        limits: Limits | None = None,
        request_limits: RequestLimits | None = None,
        live: bool | None = None,
        output_buffer_s: float | None = None,
        input_buffer_s: float = 1.0,
        opus: OpusOptions | None = None,
        video: VideoOptions | None = None,
        telephone: TelephoneOptions | None = None,
        authenticate: Authenticate | None = None,
        allowed_origins: Iterable[str] = (),
        allowed_hosts: Iterable[str] = (),
        trusted_proxies: TrustedProxies = (),
        client_key: ClientKey | None = None,
        observers: Iterable[Observer] = (),
        drain_timeout: float | None = 25.0,
    ) -> None:
        self._service = SessionService(
            handler,
            mode=mode,
            modality=modality,
            concurrency_limit=concurrency_limit,
            time_limit=time_limit,
            limits=limits,
            request_limits=request_limits,
            rtc_configuration=server_rtc_configuration,
            live=live,
            output_buffer_s=output_buffer_s,
            input_buffer_s=input_buffer_s,
            opus=opus,
            video=video,
            verbose=verbose,
            observers=observers,
            drain_timeout=drain_timeout,
        )
        self._registry = self._service.registry
        self._web = WebOptions(
            rtp_params=rtp_params,
            rtc_configuration=rtc_configuration,
            track_constraints=track_constraints,
            additional_inputs=additional_inputs,
            additional_outputs=additional_outputs,
            additional_outputs_handler=additional_outputs_handler,
            ui_args=ui_args,
            telephone=telephone,
            authenticate=authenticate,
            allowed_origins=allowed_origins,
            allowed_hosts=allowed_hosts,
            trusted_proxies=trusted_proxies,
            client_key=client_key,
            request_limits=self._service.request_limits,
            observers=self._service.observers,
        )
        self.handler = handler
        self.mode: Mode = mode
        self.modality: Modality = modality
        self.allow_extra_tracks = allow_extra_tracks

    @asynccontextmanager
    async def __asynccontextmanager__(self) -> AsyncGenerator[Stream, None]:
        async with self._service:
            yield self

    def session(self, webrtc_id: str) -> Session:
        """Return a live session by its client's ``webrtc_id`` or by its own id.

        Raises:
            UnknownSession: there is no such session.
        """
        return self._registry.get(webrtc_id)

    async def drain(self) -> None:
        """Refuse new sessions, and wait until the others have ended. Idempotent.

        New sessions are refused with :class:`Draining` (HTTP 503) on every transport. Sessions that
        were answered before still connect. ``drain_timeout`` seconds after the first call of this
        method, sessions that are left end with ``CloseReason.CANCELLED``. Their clients receive a
        ``warning`` message five seconds before, or after half of a shorter timeout.

        The stream drains until it is closed; opened again, it starts afresh. Returns at once if the
        stream is not open or is closed. A handler that awaits this waits for its own session.

        Raises:
            RuntimeError: called on another event loop than the one on which the stream was opened.

        Cancellation:
            Ends only this wait. The stream continues to drain.
        """
        await self._service.drain()

    async def serve_peer(
        self,
        make_peer: Callable[[MediaNeeds, BufferOptions], Peer],
        *,
        alias: str | None = None,
        phone: bool = False,
        websocket: WebSocket | None = None,
        identity: str | None = None,
    ) -> None:
        """Serve a client that is already connected, by any transport, until its connection closes.

        Cancellation ends the session, and waits within the limits for the connection to close.

        Args:
            make_peer: creates the peer, once the session is admitted, from the media formats that
                the handler needs and the sizes of the queues.
            alias: the client's id for the connection.
            phone: whether the client is a telephone: the handler's ``phone_mode``.
            websocket: for ``Context.websocket``.
            identity: the client's; see :meth:`offer`.

        Raises:
            AdmissionError, Draining, InvalidStateError, StreamNotOpen: no session with this alias
                can begin.
            HandlerContractError: the handler's ``copy()`` or methods break their contract.
        """
        await self._service.serve(
            make_peer, alias=alias, phone=phone, websocket=websocket, identity=identity
        )

    def set_input(self, webrtc_id: str, *args: object, identity: str | None = None) -> None:
        """Set a handler's input: values, or one :class:`WebRTCData`. Thread-safe.

        If it comes from a client, pass the client's ``identity``; see :meth:`offer`.

        Raises:
            UnknownSession: there is no such session.
            InvalidStateError: a session function serves it, which has no inputs.
        """
        self._registry.get_handler(webrtc_id, identity).set_args(list(args))

    def trigger_response(self, webrtc_id: str, *, identity: str | None = None) -> None:
        """Make a handler answer now: call its ``trigger_response()``. Thread-safe.

        If a client asks for it, pass the client's ``identity``; see :meth:`offer`.

        Raises:
            UnknownSession: there is no such session.
            InvalidStateError: a session function serves it.
            NotImplementedError: its handler does not support this.
        """
        self._registry.get_handler(webrtc_id, identity).trigger_response()

    def open_outputs(
        self, webrtc_id: str, *, identity: str | None = None
    ) -> AbstractAsyncContextManager[OutputReader]:
        """Read a handler's ``AdditionalOutputs`` within an ``async with`` block.

        Entering the block waits up to ``RequestLimits.early_seconds`` for the session to begin. A
        reader receives all outputs from then on, and the last 64 published without any reader. It
        ends with the session. A reader that falls 64 behind loses the oldest.

        If they are for a client, pass the client's ``identity``; see :meth:`offer`.

        Raises:
            UnknownSession: no such session began in time.
            Draining, LimitExceeded, StreamNotOpen: the reader cannot wait for the session.
        """
        return self._service.open_outputs(webrtc_id, identity)

    def output_stream(self, webrtc_id: str, *, identity: str | None = None) -> OutputStream:
        """Iterate over a handler's ``AdditionalOutputs`` until its session ends.

        Dropping the iterator closes it. If no such session begins in time, the iteration ends and
        the log says so; ``wait_begun()`` of the iterator raises :class:`UnknownSession` instead.

        If they are for a client, pass the client's ``identity``; see :meth:`offer`.
        """
        return self._service.read_outputs(webrtc_id, identity)

    async def fetch_latest_output(
        self, webrtc_id: str, *, identity: str | None = None
    ) -> AdditionalOutputs:
        """Return a handler's newest ``AdditionalOutputs``. Waits for the first.

        If they are for a client, pass the client's ``identity``; see :meth:`offer`.

        Raises:
            UnknownSession: there is no such session, or it ended without any.
        """
        return await self._registry.fetch_latest_output(webrtc_id, identity)

    def update_connection(
        self, webrtc_id: str, state: Literal["closed"], *, identity: str | None = None
    ) -> None:
        """End a session from the application. Returns at once. Thread-safe.

        If a client asks for it, pass the client's ``identity``; see :meth:`offer`.

        Raises:
            UnknownSession: there is no such session.
            ValueError: ``state`` is not ``"closed"``.
        """
        if state != "closed":
            raise ValueError(f'state must be "closed"; got {state!r}')
        session = self._registry.get(webrtc_id, identity)
        session.close(CloseReason.HANDLER_CLOSED, "closed by the application")

    def mount(self, app: Starlette, path: str = "", tags: list[str] | None = None) -> None:
        """Add the endpoints to an application, and open the stream in its lifespan.

        ``path`` is their prefix; ``tags`` are for FastAPI's documentation. The lifespan of an
        application mounted inside another never runs: enter the stream in the outermost one's.
        """
        from .server.routes import mount

        mount(self._service, self._web, app, path, tags)

    def launch(
        self,
        host: str = "127.0.0.1",
        port: int = 7860,
        backend: Backend = "trio",
        *,
        framed_by: Iterable[str] = (),
    ) -> None:
        """Serve the handler and a page to talk to it, until Ctrl-C.

        ``framed_by`` are origins whose pages may show the page in a frame, such as
        ``"https://example.com"``, or ``"*"`` for any.

        Raises:
            SystemExit: the port is in use, or the packages of the extra ``server`` are missing. If
                the program does not catch it, Python prints one line and exits with status 1.
            TypeError, ValueError: an argument is invalid.
        """
        try:
            from .server.launch import launch
        except ImportError as exc:
            if explained := explain_import_error(exc, "Stream.launch"):
                raise SystemExit(f"error: {explained}") from exc
            raise
        launch(self, host, port, backend, framed_by)

    def _make_page(self) -> Page:
        from .server.launch import serve_on_thread

        return Page(self.launch, partial(serve_on_thread, self))
