"""A stream: one handler, and everybody who is talking to it."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import anyio
from anyio import (
    AsyncContextManagerMixin,
    CancelScope,
    EndOfStream,
    create_task_group,
    current_time,
)
from anyio.abc import TaskGroup, TaskStatus
from anyio.lowlevel import checkpoint

from ._core.groups import collapse_groups
from ._core.user_code import call_user_function
from ._driver.factory import Handler, make_driver_factory
from ._media.encode import OpusOptions, VideoOptions
from ._media.media_plan import MediaNeeds, MediaPlan, Modality, Mode
from ._peers.asyncio_bridge import open_asyncio_bridge
from ._peers.channels import BufferOptions
from ._registry import SessionRegistry
from ._signaling.early_candidates import EarlyCandidates
from ._signaling.ice import RtcConfiguration
from ._signaling.requests import CandidateRequest, IceCandidate, parse_request
from ._wire.call_xml import TelephoneOptions
from .abc import AsyncioBridge, Peer
from .errors import (
    CloseReason,
    InvalidStateError,
    PeerError,
    SignalingError,
    StreamNotOpen,
    UnknownSession,
    WebRTCError,
)
from .handlers import StreamHandlerBase
from .limits import Limits, RequestLimits
from .outputs import AdditionalOutputs, EarlyReaders, OutputReader
from .server.origins import check_origins
from .server.page.components import Component, check_components
from .session import Session

if TYPE_CHECKING:
    from ._peers.portal import Portal
    from ._peers.webrtc import WebRTCPeer

__all__ = ["Stream"]

logger = logging.getLogger("fastrtc_anyio")

P = TypeVar("P", bound=Peer)

ClientConfiguration = Mapping[str, Any] | Callable[[], Any]
OutputListener = Callable[[AdditionalOutputs], object]
Authenticate = Callable[[Any], bool | Awaitable[bool]]


class Stream(AsyncContextManagerMixin):
    """Serves a handler to clients over WebRTC, over WebSockets and on the telephone.

    ``async with stream:`` opens it: the block owns every session, and leaving it ends them all
    within their limits. :meth:`mount` does that in a web application's lifespan.

    Args:
        handler: a handler object, of which each session gets a ``copy()``; a handler class, or a
            function, called without arguments for each session's handler; a session function
            ``async def serve(session)``; with ``modality="video"`` a function ``frame, *inputs ->
            frame`` (for a frame rate: :class:`VideoStreamHandler`); with ``mode="receive"`` a
            generator function ``*inputs -> frames``.
        mode: what the client does: ``"send-receive"``, ``"send"`` or ``"receive"``.
        modality: ``"audio"``, ``"video"`` or ``"audio-video"``.
        concurrency_limit: sessions at a time. ``"default"`` is 1, None is no limit.
        time_limit: seconds a session may be connected; None is no limit.
        allow_extra_tracks: FastRTC's; further sections of an offer are answered ``inactive``
            either way.
        rtp_params: for the page: parameters of its RTP sender.
        rtc_configuration: for the page: how the client finds a way to this side. A W3C
            dictionary, or a function, plain or async, that makes one for each call. A plain one
            runs on a thread.
        server_rtc_configuration: how this side finds a way to the client: an
            :class:`RtcConfiguration` or a W3C dictionary, or a function, plain or async, that makes
            one for each call. A plain one runs on a thread.
        track_constraints: for the page: what it asks of the camera and the microphone.
        additional_inputs: for the page: what a person can set there: :class:`Slider`,
            :class:`Textbox`, :class:`Choice`, :class:`Checkbox`. The page sends the values as the
            handler's input when a call begins, with every change, and when the handler asks.
        additional_outputs: for the page: where it shows what a handler emits as
            ``AdditionalOutputs``: the values in their order.
        additional_outputs_handler: ``(*shown, *emitted) -> shown next``, plain or async: makes what
            is shown of what was shown and the values of an ``AdditionalOutputs``. Returns one
            value, or of several outputs a tuple.
        ui_args: for the page: ``title``, ``subtitle``, ``hide_title``.
        verbose: log the beginning and the end of each session at INFO, not at DEBUG.
        limits: the other deadlines of a session.
        request_limits: how much a client may send besides media.
        live: whether audio out follows audio in, as an echo or a translation does. What piles up
            after a stall is then skipped, so that the delay does not stay. By default true for
            session functions alone. Audio that is made ahead is never skipped; a source that keeps
            a lead of its own and then paces itself in real time would lose the lead.
        output_buffer_s: seconds of audio a handler may work ahead of what is played: 30, and for
            live streams ``input_buffer_s`` and 0.2 more.
        input_buffer_s: seconds of audio that wait for a slow handler. One that is further behind
            gets the newest next.
        opus: settings of the Opus encoder.
        video: codec and bitrate of the video that is sent.
        telephone: how a carrier reaches this side, and how it proves who it is.
        authenticate: guards every endpoint: a function, plain (on a thread) or async, that is given
            Starlette's ``HTTPConnection`` (headers, cookies, query) and returns True to let
            somebody in. False is a 401; it may also raise :class:`NotAuthenticated` or
            :class:`NotAllowed`. What the application itself calls, such as :meth:`offer`, is not
            guarded.
        allowed_origins: other origins whose pages may call or open a WebSocket, such as
            ``"https://example.com"``, or ``"*"``. A server's own page may always, and so may
            what is no page.

    Raises:
        TypeError: ``handler`` is none of these, or does not suit the modality and mode.
        ValueError: a mode, a modality or a limit that is not possible.
    """

    def __init__(
        self,
        handler: Handler,
        *,
        mode: Mode = "send-receive",
        modality: Modality = "video",
        concurrency_limit: int | Literal["default"] | None = "default",
        time_limit: float | None = None,
        allow_extra_tracks: bool = False,
        rtp_params: Mapping[str, Any] | None = None,
        rtc_configuration: ClientConfiguration | None = None,
        server_rtc_configuration: RtcConfiguration | ClientConfiguration | None = None,
        track_constraints: Mapping[str, Any] | None = None,
        additional_inputs: Sequence[Component] | None = None,
        additional_outputs: Sequence[Component] | None = None,
        additional_outputs_handler: Callable[..., Any] | None = None,
        ui_args: Mapping[str, Any] | None = None,
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
    ) -> None:
        self._media = MediaPlan.of(modality, mode)
        self._make_driver = make_driver_factory(handler, modality, mode)
        self.handler = handler
        self.mode = mode
        self.modality = modality
        self.concurrency_limit = _parse_limit(concurrency_limit)
        self.allow_extra_tracks = allow_extra_tracks
        self.rtp_params = dict(rtp_params or {})
        self.rtc_configuration = rtc_configuration or {}
        self.track_constraints = dict(track_constraints or {})
        self.additional_inputs = check_components(additional_inputs, "additional_inputs")
        self.additional_outputs = check_components(additional_outputs, "additional_outputs")
        if additional_outputs_handler is not None and not self.additional_outputs:
            raise ValueError("additional_outputs_handler needs additional_outputs to show")
        self.additional_outputs_handler = additional_outputs_handler
        self.ui_args = dict(ui_args or {})
        self._log_level = logging.INFO if verbose else logging.DEBUG
        for name, given, kind in (
            ("limits", limits, Limits),
            ("request_limits", request_limits, RequestLimits),
            ("opus", opus, OpusOptions),
            ("video", video, VideoOptions),
            ("telephone", telephone, TelephoneOptions),
        ):
            if given is not None and not isinstance(given, kind):
                raise TypeError(f"{name} must be a {kind.__name__}; got {given!r}")
        self._rtc = (
            server_rtc_configuration
            if callable(server_rtc_configuration)
            else RtcConfiguration.parse(server_rtc_configuration)
        )
        if authenticate is not None and not callable(authenticate):
            raise TypeError(f"authenticate must be a function; got {authenticate!r}")
        self.authenticate = authenticate
        self._limits = limits or Limits()
        if time_limit is not None:
            self._limits = replace(self._limits, time_limit=time_limit)
        self.request_limits = request_limits or RequestLimits()
        self._live = live
        self._choose_buffers = partial(
            BufferOptions.choose, output_s=output_buffer_s, input_s=input_buffer_s
        )
        self._choose_buffers(bool(live))  # a size that is not possible is an error now
        self._opus = opus or OpusOptions()
        self._video = video or VideoOptions()
        self.telephone = telephone or TelephoneOptions()
        self.allowed_origins = check_origins(allowed_origins)
        self._opened: _Opened | None = None
        self._registry = SessionRegistry()
        self._early = EarlyCandidates(self.request_limits)
        self._early_readers = EarlyReaders(self.request_limits)

    @asynccontextmanager
    async def __asynccontextmanager__(self) -> AsyncGenerator[Stream, None]:
        # The portal is the only door to asyncio, and aiortc takes half a second to load.
        from ._peers import webrtc
        from ._peers.portal import open_portal

        with collapse_groups():
            async with (
                open_portal() as portal,
                open_asyncio_bridge() as bridge,
                create_task_group() as tasks,
            ):
                self._early.clear()
                self._opened = _Opened(tasks, portal, bridge, webrtc.WebRTCPeer)
                try:
                    yield self
                finally:
                    self._opened = None
                    self._early_readers.close()
                    tasks.cancel_scope.cancel()

    @property
    def is_open(self) -> bool:
        """Whether sessions can be started."""
        return self._opened is not None

    @property
    def media(self) -> MediaPlan:
        """Which media flow which way."""
        return self._media

    @property
    def limits(self) -> Limits:
        """The deadlines of its sessions."""
        return self._limits

    @property
    def active(self) -> int:
        """Sessions that hold a slot."""
        return self._registry.active

    @property
    def sessions(self) -> Mapping[str, Session]:
        """The live sessions, by their ids."""
        return self._registry.sessions

    def session(self, webrtc_id: str) -> Session:
        """A live session, by its client's ``webrtc_id`` or by its own id.

        Raises:
            UnknownSession: there is no such session.
        """
        return self._registry.get(webrtc_id)

    async def offer(self, body: object) -> dict[str, Any]:
        """Carry out a request of the signalling protocol: an offer, or a candidate of one.

        Args:
            body: ``{"type": "offer", "sdp": ..., "webrtc_id": ...}`` or ``{"type":
                "ice-candidate", "candidate": {...} | None, "webrtc_id": ...}``; or an object with
                these as attributes.

        Returns:
            ``{"type": "answer", "sdp": ..., "webrtc_id": ...}``, or ``{"status": "success"}`` for a
            candidate. The id is the client's own, or the session's if it gave none.

        Raises:
            InvalidOffer, InvalidCandidate: the body or what is in it is malformed.
            LimitExceeded: there is more of it than ``request_limits`` let in.
            InvalidStateError: the ``webrtc_id`` is in use.
            AdmissionError: all slots are taken.
            StreamNotOpen: the stream was not opened.
            HandlerContractError: the handler's ``copy()`` or methods are not as they must be.

        Cancellation:
            Ends the session that was being made.
        """
        return await self.handle_offer(body, None)

    async def handle_offer(
        self, body: object, set_outputs: OutputListener | None
    ) -> dict[str, Any]:
        """:meth:`offer`, with a function to be called with every ``AdditionalOutputs``."""
        opened = self._require_open()
        body = body if isinstance(body, Mapping) else _attributes(body)
        request = parse_request(body, self.request_limits)
        if isinstance(request, CandidateRequest):
            await self.add_ice_candidate(request.webrtc_id, request.candidate)
            return {"status": "success"}
        rtc = self._rtc
        if callable(rtc):
            # No credentials are fetched to be refused.
            self._registry.check_admission(request.webrtc_id, self.concurrency_limit)
            rtc = RtcConfiguration.parse(await call_user_function(rtc))
            opened = self._require_open()  # it may have been closed meanwhile
        make_peer = partial(self._make_webrtc_peer, opened, rtc)
        session, peer = self._admit(make_peer, request.webrtc_id)
        if set_outputs is not None:
            session.outputs.listen(set_outputs)

        async def negotiate() -> Any:
            made = await peer.answer(request.description)
            await self._add_early_candidates(request.webrtc_id, peer)
            return made

        answer = await self._start(opened, session, negotiate)
        return {
            "type": answer.type,
            "sdp": answer.sdp,
            "webrtc_id": session.alias or session.id,
        }

    async def add_ice_candidate(self, webrtc_id: str, candidate: IceCandidate | None) -> None:
        """Add a candidate of a client's, or None: there are no more.

        One that comes before its offer is kept for a while.

        Raises:
            InvalidCandidate: it is malformed.
            LimitExceeded: the client has as many as it may have.
            InvalidStateError: the client is not connected over WebRTC.
        """
        session = self._registry.find(webrtc_id)
        if session is None:
            self._early.add(webrtc_id, candidate, current_time())
            await checkpoint()
            return
        if not isinstance(session.peer, self._require_open().peer_class):
            raise InvalidStateError(f"{webrtc_id!r} is not connected over WebRTC")
        await session.peer.add_ice_candidate(candidate)

    async def serve_peer(
        self,
        make_peer: Callable[[MediaNeeds, BufferOptions], Peer],
        *,
        alias: str | None = None,
        phone: bool = False,
        websocket: Any = None,
    ) -> None:
        """Serve a client that is connected already, by whatever transport, until it has gone.

        The session is like any other: it holds a slot, has the same limits, and is found by its
        ids.

        Args:
            make_peer: makes the connection's peer, once there is a slot for it, from the rates the
                handler wants and the sizes of the queues.
            alias: the client's own name for the connection.
            phone: whether it is a telephone: the handler's ``phone_mode``.
            websocket: for ``Context.websocket``.

        Raises:
            InvalidStateError: the alias is in use.
            AdmissionError: all slots are taken.
            StreamNotOpen: the stream was not opened.
            HandlerContractError: the handler's ``copy()`` or methods are not as they must be.

        Cancellation:
            Ends the session, tells the client, and waits within the limits for the connection to
            close.
        """
        opened = self._require_open()
        session, peer = self._admit(make_peer, alias, websocket)
        if session.driver.handler is not None:
            session.driver.handler.phone_mode = phone

        async def carry() -> None:
            with CancelScope(shield=True):  # the end of a session needs its connection
                await peer.run()

        with collapse_groups():
            async with create_task_group() as tasks:
                tasks.start_soon(carry)
                try:
                    await checkpoint()  # from here on the peer runs
                    await self._start(opened, session, checkpoint)
                    await peer.wait_closed()
                except BaseException:
                    session.close(CloseReason.CANCELLED, "the server is stopping")
                    with anyio.move_on_after(self._limits.close, shield=True):
                        await peer.wait_closed()
                    with anyio.move_on_after(self._limits.close, shield=True):
                        await peer.aclose()
                    raise

    async def websocket_offer(self, websocket: Any) -> None:
        """Serve a WebSocket that was not accepted yet: a Starlette or FastAPI ``WebSocket``.

        Returns when it is closed. Whatever the client does, nothing is raised.

        Cancellation:
            As of :meth:`serve_peer`.
        """
        from .server.websockets import serve_websocket

        await serve_websocket(self, websocket)

    async def telephone_handler(self, websocket: Any) -> None:
        """:meth:`websocket_offer` for a carrier: Twilio, Telnyx or Plivo."""
        from .server.telephone import serve_telephone

        await serve_telephone(self, websocket)

    async def handle_incoming_call(self, request: Any) -> Any:
        """Answer a carrier's request about an incoming call with XML that connects it.

        Args:
            request: a Starlette or FastAPI ``Request`` whose path ends in ``/telephone/incoming``.

        Returns:
            A Starlette ``Response``.
        """
        from .server.telephone import answer_incoming_call

        return await answer_incoming_call(self, request)

    @property
    def handlers(self) -> Mapping[str, StreamHandlerBase]:
        """The live sessions' handlers, by the clients' ``webrtc_id`` and by the sessions' ids.

        A session function is not among them.
        """
        return self._registry.handlers

    def set_input(self, webrtc_id: str, *args: Any) -> None:
        """Give a handler its input: see ``wait_for_args`` and ``latest_args``. On any thread.

        Args:
            webrtc_id: the client's id, or a session's.
            args: the input; or one :class:`WebRTCData`.

        Raises:
            UnknownSession: there is no such session.
            InvalidStateError: it is served by a session function, which has no inputs.
        """
        self._registry.get_handler(webrtc_id).set_args(list(args))

    def trigger_response(self, webrtc_id: str) -> None:
        """Have a handler answer now: calls its ``trigger_response()``. On any thread.

        Raises:
            UnknownSession: there is no such session.
            InvalidStateError: it is served by a session function.
            NotImplementedError: its handler has no such thing.
        """
        self._registry.get_handler(webrtc_id).trigger_response()

    def output_stream(self, webrtc_id: str) -> OutputReader:
        """What a handler emits as ``AdditionalOutputs``, until its session ends.

        Everybody who asks gets everything from then on, and what came while nobody was reading (the
        last 64). A reader that falls 64 behind loses the oldest. ``async for`` reads it; it ends
        with the session, and when nobody holds it any more.

        A client may ask for its outputs before it is heard here. A session that is not there yet is
        waited for, for ``RequestLimits.early_seconds``; then ``async for`` ends, and your log says
        so. The reader's ``wait_begun`` raises :class:`UnknownSession` instead.

        Raises:
            StreamNotOpen: there is no such session, and none can come.
            LimitExceeded: as many wait already as ``RequestLimits.early_clients`` says.
        """
        session = self._registry.find(webrtc_id)
        if session is None:
            self._require_open()
            return self._early_readers.add(webrtc_id)
        return session.outputs.read()

    async def fetch_latest_output(self, webrtc_id: str) -> AdditionalOutputs:
        """The last ``AdditionalOutputs`` of a handler; waits for the first.

        Raises:
            UnknownSession: there is no such session, or it ended without any.
        """
        outputs = self._registry.get(webrtc_id).outputs
        try:
            return await outputs.latest()
        except EndOfStream:
            raise UnknownSession(f"the session of {webrtc_id!r} ended without outputs") from None

    def update_connection(self, webrtc_id: str, state: Literal["closed"]) -> None:
        """End a session from the application's side. Returns at once. On any thread.

        Raises:
            UnknownSession: there is no such session.
            ValueError: another state.
        """
        if state != "closed":
            raise ValueError(f'a connection can be set to "closed"; got {state!r}')
        self._registry.get(webrtc_id).close(CloseReason.HANDLER_CLOSED, "closed by the application")

    def mount(self, app: Any, path: str = "", tags: list[str] | None = None) -> None:
        """Add the endpoints to a Starlette or FastAPI application, and open the stream in its
        lifespan.

        Args:
            app: the application. If it is itself mounted inside another, its lifespan never runs:
                enter the stream in the outer one's.
            path: prefix of the endpoints.
            tags: for FastAPI's documentation.
        """
        from .server.routes import mount

        mount(self, app, path, tags)

    def launch(
        self,
        host: str = "127.0.0.1",
        port: int = 7860,
        backend: Literal["trio", "asyncio"] = "trio",
    ) -> None:
        """Serve the handler and a page to talk to it. Returns after Ctrl-C."""
        from .server.launch import launch

        launch(self, host, port, backend)

    @property
    def ui(self) -> Page:
        """FastRTC's name for the page: ``stream.ui.launch()``."""
        return Page(self)

    def _require_open(self) -> _Opened:
        if self._opened is None:
            raise StreamNotOpen(
                "the stream is not open: enter `async with stream:`, or run the lifespan of the "
                "application it is mounted on. An application that is mounted inside another never "
                "has its lifespan run: put `async with stream:` into that of the outermost one"
            )
        return self._opened

    def _admit(
        self,
        make_peer: Callable[[MediaNeeds, BufferOptions], P],
        alias: str | None,
        websocket: Any = None,
    ) -> tuple[Session, P]:
        self._registry.check_admission(alias, self.concurrency_limit)
        driver = self._make_driver()
        wanted = driver.needs
        live = wanted.live if self._live is None else self._live
        peer = make_peer(wanted, self._choose_buffers(live))
        session = Session(
            peer,
            driver,
            limits=self._limits,
            alias=alias,
            asyncio_bridge=self._require_open().asyncio_bridge,
            websocket=websocket,
        )
        self._registry.add(session)
        if alias is not None:
            self._early_readers.welcome(alias, session.outputs)
        return session, peer

    def _make_webrtc_peer(
        self,
        opened: _Opened,
        rtc: RtcConfiguration,
        wanted: MediaNeeds,
        buffers: BufferOptions,
    ) -> WebRTCPeer:
        return opened.peer_class(
            opened.portal,
            media=self._media,
            sample_rate=wanted.sample_rate,
            channels=wanted.channels,
            fps=wanted.fps,
            configuration=rtc,
            buffers=buffers,
            liveness_s=self._limits.liveness,
            opus=self._opus,
            video=self._video,
            limits=self.request_limits,
        )

    async def _start(self, opened: _Opened, session: Session, negotiate: Callable[[], Any]) -> Any:
        """Have the session live in a task of the stream's; returns what was negotiated."""
        try:
            return await opened.tasks.start(self._supervise, session, negotiate)
        except BaseException:
            # asyncio may have cancelled the task before it ran a single line.
            self._registry.forget(session)
            raise

    async def _supervise(
        self, session: Session, negotiate: Callable[[], Any], *, task_status: TaskStatus[Any]
    ) -> None:
        """Where an error of a session ends: it is logged, and its siblings never notice."""
        answered = False

        async def answer() -> Any:
            nonlocal answered
            made = await negotiate()
            answered = True
            logger.log(self._log_level, "session %s: answered", session.id)
            return made

        try:
            await session.run(answer, task_status=task_status)
            if not answered:
                raise InvalidStateError(f"the session was ended: {session.closed}")
        except Exception as exc:
            if not answered:
                raise  # to the caller of offer(), who is waiting for the answer
            raised = session.closed and session.closed.reason is CloseReason.HANDLER_ERROR
            if isinstance(exc, WebRTCError) or (isinstance(exc, PeerError) and not raised):
                logger.warning("session %s ended: %r", session.id, exc)
                return
            logger.error("session %s (%s) ended", session.id, session.closed, exc_info=exc)
        finally:
            self._registry.forget(session)
            logger.log(self._log_level, "session %s: %s", session.id, session.closed)

    async def _add_early_candidates(self, webrtc_id: str | None, peer: WebRTCPeer) -> None:
        for candidate in self._early.take(webrtc_id or "", current_time()):
            try:
                await peer.add_ice_candidate(candidate)
            except SignalingError as exc:
                logger.debug("ignored: %s", exc)


@dataclass(frozen=True)
class Page:
    """The page of a stream."""

    stream: Stream

    def launch(
        self,
        server_name: str = "127.0.0.1",
        server_port: int = 7860,
        backend: Literal["trio", "asyncio"] = "asyncio",
    ) -> None:
        """:meth:`Stream.launch` as FastRTC's programs call it: with Gradio's names for the address,
        and under asyncio, which such programs are written for."""
        self.stream.launch(server_name, server_port, backend)


@dataclass(frozen=True)
class _Opened:
    """What exists while a stream is open."""

    tasks: TaskGroup
    """Owns the sessions."""
    portal: Portal
    asyncio_bridge: AsyncioBridge
    peer_class: type[WebRTCPeer]


def _parse_limit(limit: int | str | None) -> int | None:
    if limit == "default":
        return 1
    if limit is None or (isinstance(limit, int) and not isinstance(limit, bool) and limit > 0):
        return limit
    raise ValueError(f'concurrency_limit must be a positive int, "default" or None; got {limit!r}')


def _attributes(body: object) -> object:
    names = ("type", "sdp", "webrtc_id", "candidate")
    found = {name: getattr(body, name) for name in names if hasattr(body, name)}
    return found or body
