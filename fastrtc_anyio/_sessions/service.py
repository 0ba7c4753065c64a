"""``SessionService``: begin, serve and supervise the sessions of one handler."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import anyio
from anyio import AsyncContextManagerMixin, CancelScope, create_task_group, current_time
from anyio.abc import TaskGroup, TaskStatus
from anyio.lowlevel import checkpoint

from fastrtc_anyio._core.groups import collapse_groups
from fastrtc_anyio._core.options import check_type
from fastrtc_anyio._driver.factory import Handler, make_driver_factory
from fastrtc_anyio._media.encode import OpusOptions, VideoOptions
from fastrtc_anyio._media.media_plan import MediaNeeds, MediaPlan, Modality, Mode
from fastrtc_anyio._peers.asyncio_bridge import open_asyncio_bridge
from fastrtc_anyio._peers.streams.audio import BufferOptions
from fastrtc_anyio._signaling.ice import RtcConfiguration
from fastrtc_anyio._signaling.messages import encode_message
from fastrtc_anyio._signaling.requests import (
    Answer,
    CandidateRequest,
    IceCandidate,
    OfferRequest,
    parse_request,
)
from fastrtc_anyio._signaling.restart import Remote
from fastrtc_anyio._user_code import call_user_function
from fastrtc_anyio.abc import AsyncioBridge, Peer
from fastrtc_anyio.errors import (
    CloseReason,
    InvalidStateError,
    PeerError,
    SignalingError,
    StreamNotOpen,
    UnknownSession,
    WebRTCError,
)
from fastrtc_anyio.limits import Limits, RequestLimits
from fastrtc_anyio.outputs import AdditionalOutputs, OutputReader, OutputStream
from fastrtc_anyio.session import Session

from .early import EarlyCandidates, EarlyReaders
from .registry import ConcurrencyLimit, SessionRegistry, parse_limit

if TYPE_CHECKING:
    from fastrtc_anyio._peers.portal import Portal
    from fastrtc_anyio._peers.webrtc import WebRTCPeer

logger = logging.getLogger("fastrtc_anyio")

_LOST = {CloseReason.VANISHED, CloseReason.PEER_FAILED}
"""Ends that a client did not want; logged as warnings."""

P = TypeVar("P", bound=Peer)
T = TypeVar("T")

OutputListener = Callable[[AdditionalOutputs], object]
RtcSource = RtcConfiguration | Mapping[str, object] | Callable[[], object] | None


class SessionService(AsyncContextManagerMixin):
    """Serves one handler to any number of clients.

    ``async with service:`` opens it. The block owns every session; leaving it ends them all within
    their limits. The arguments are those of :class:`fastrtc_anyio.Stream`.
    """

    def __init__(
        self,
        handler: Handler,
        *,
        mode: Mode = "send-receive",
        modality: Modality = "video",
        concurrency_limit: ConcurrencyLimit = "default",
        time_limit: float | None = None,
        limits: Limits | None = None,
        request_limits: RequestLimits | None = None,
        rtc_configuration: RtcSource = None,
        live: bool | None = None,
        output_buffer_s: float | None = None,
        input_buffer_s: float = 1.0,
        opus: OpusOptions | None = None,
        video: VideoOptions | None = None,
        verbose: bool = True,
    ) -> None:
        self.media = MediaPlan.of(modality, mode)
        self.make_driver = make_driver_factory(handler, modality, mode)
        self.handler = handler
        self.mode: Mode = mode
        self.modality: Modality = modality
        self.concurrency_limit = parse_limit(concurrency_limit)
        check_type("limits", limits, Limits, optional=True)
        check_type("request_limits", request_limits, RequestLimits, optional=True)
        check_type("opus", opus, OpusOptions, optional=True)
        check_type("video", video, VideoOptions, optional=True)
        self.limits = limits or Limits()
        if time_limit is not None:
            self.limits = replace(self.limits, time_limit=time_limit)
        self.request_limits = request_limits or RequestLimits()
        self.registry = SessionRegistry()
        rtc = rtc_configuration
        self._rtc = rtc if callable(rtc) else RtcConfiguration.parse(rtc)
        self._live = live
        self._choose_buffers = partial(
            BufferOptions.choose, output_s=output_buffer_s, input_s=input_buffer_s
        )
        self._choose_buffers(live)  # raises now for an impossible size
        self._opus = opus or OpusOptions()
        self._video = video or VideoOptions()
        self._log_level = logging.INFO if verbose else logging.DEBUG
        self._early = EarlyCandidates(self.request_limits)
        self.early_readers = EarlyReaders(self.request_limits)
        self._opened: _Opened | None = None

    @asynccontextmanager
    async def __asynccontextmanager__(self) -> AsyncGenerator[SessionService, None]:
        # Imported late: the portal loads asyncio, and aiortc takes half a second.
        from fastrtc_anyio._peers import webrtc
        from fastrtc_anyio._peers.portal import open_portal

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
                    self.early_readers.close()
                    tasks.cancel_scope.cancel()

    @property
    def is_open(self) -> bool:
        return self._opened is not None

    async def handle_request(
        self, body: object, *, on_outputs: OutputListener | None = None
    ) -> dict[str, str]:
        """See :meth:`fastrtc_anyio.Stream.handle_offer`."""
        self._require_open()
        request = parse_request(body, self.request_limits)
        if isinstance(request, CandidateRequest):
            await self.add_candidate(request.webrtc_id, request.candidate)
            return {"status": "success"}
        answer = await self.offer(request, on_outputs=on_outputs)
        return {
            "type": answer.description.type,
            "sdp": answer.description.sdp,
            "webrtc_id": answer.webrtc_id,
        }

    async def offer(
        self, request: OfferRequest, *, on_outputs: OutputListener | None = None
    ) -> Answer:
        """Begin a WebRTC session; see :meth:`fastrtc_anyio.Stream.offer`."""
        opened = self._require_open()
        if (restarted := await self._restart(request)) is not None:
            return restarted
        if callable(self._rtc):
            # Admission comes first: a refused client costs no TURN credentials.
            self.registry.admit(request.webrtc_id, self.concurrency_limit)
            given: Any = await call_user_function(self._rtc)
            rtc = RtcConfiguration.parse(given)
            opened = self._require_open()  # the service may have closed meanwhile
        else:
            rtc = self._rtc

        def make_peer(needs: MediaNeeds, buffers: BufferOptions) -> WebRTCPeer:
            return opened.peer_class(
                opened.portal,
                media=self.media,
                sample_rate=needs.sample_rate,
                channels=needs.channels,
                fps=needs.fps,
                configuration=rtc,
                buffers=buffers,
                liveness_s=self.limits.liveness,
                opus=self._opus,
                video=self._video,
                limits=self.request_limits,
            )

        async def negotiate() -> Answer:
            description = await peer.answer(request.description)
            for candidate in self._early.take(request.webrtc_id or "", current_time()):
                try:
                    await peer.add_ice_candidate(candidate)
                except SignalingError as exc:
                    logger.debug("ignored an early candidate: %s", exc)
            return Answer(description, session.alias or session.id)

        session, peer = self._create_session(opened, make_peer, request.webrtc_id)
        if on_outputs is not None:
            session.outputs.listen(on_outputs)
        return await self._start(opened, session, negotiate)

    async def _restart(self, request: OfferRequest) -> Answer | None:
        """Answer an offer for an ICE restart of a live session; None if the offer is for none."""
        webrtc_id = request.webrtc_id or ""
        session = self.registry.find(webrtc_id)
        if session is None:
            if request.restart:
                raise UnknownSession(f"no session has the id {webrtc_id!r}")
            return None
        if not isinstance(session.peer, self._require_open().peer_class):
            return None
        description = await session.peer.restart(request.description)
        if description is None:
            return None
        logger.log(self._log_level, "session %s: ICE restarts", session.id)
        return Answer(description, webrtc_id)

    async def restart_ice(self, session_id: str, remote: Remote) -> str:
        """Restart ICE in a session; return an SDP fragment. See :meth:`.WebRTCPeer.restart_ice`.

        Raises:
            UnknownSession: there is no such session.
        """
        session = self.registry.get(session_id)
        fragment = await self._webrtc_peer(session, session_id).restart_ice(remote)
        logger.log(self._log_level, "session %s: ICE restarts", session.id)
        return fragment

    async def add_candidate(self, webrtc_id: str, candidate: IceCandidate | None) -> None:
        """See :meth:`fastrtc_anyio.Stream.add_ice_candidate`."""
        session = self.registry.find(webrtc_id)
        if session is None:
            self._early.add(webrtc_id, candidate, current_time())
            await checkpoint()
            return
        await self._webrtc_peer(session, webrtc_id).add_ice_candidate(candidate)

    def _webrtc_peer(self, session: Session, name: str) -> WebRTCPeer:
        if not isinstance(session.peer, self._require_open().peer_class):
            raise InvalidStateError(f"{name!r} is not connected over WebRTC")
        return session.peer

    async def serve(
        self,
        make_peer: Callable[[MediaNeeds, BufferOptions], Peer],
        *,
        alias: str | None = None,
        phone: bool = False,
        websocket: Any = None,
    ) -> None:
        """See :meth:`fastrtc_anyio.Stream.serve_peer`."""
        opened = self._require_open()
        session, peer = self._create_session(opened, make_peer, alias, websocket, phone)

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
                    with anyio.move_on_after(self.limits.close, shield=True):
                        await peer.wait_closed()
                    with anyio.move_on_after(self.limits.close, shield=True):
                        await peer.aclose()
                    raise

    @asynccontextmanager
    async def open_outputs(self, webrtc_id: str) -> AsyncGenerator[OutputReader, None]:
        """See :meth:`fastrtc_anyio.Stream.open_outputs`."""
        reader = self._attach_reader(webrtc_id)
        try:
            await reader.wait_begun()
            yield reader
        finally:
            await reader.aclose()

    def read_outputs(self, webrtc_id: str) -> OutputStream:
        """See :meth:`fastrtc_anyio.Stream.output_stream`."""
        return OutputStream(self._attach_reader(webrtc_id))

    def _attach_reader(self, webrtc_id: str) -> OutputReader:
        session = self.registry.find(webrtc_id)
        if session is None:
            self._require_open()
            return self.early_readers.add(webrtc_id)
        reader = OutputReader()
        session.outputs.add(reader)
        return reader

    def _require_open(self) -> _Opened:
        if self._opened is None:
            raise StreamNotOpen(
                "the stream is not open: enter `async with stream:`, or run the lifespan of the "
                "application that it is mounted on. The lifespan of an application mounted inside "
                "another never runs: enter `async with stream:` in that of the outermost one"
            )
        return self._opened

    def _create_session(
        self,
        opened: _Opened,
        make_peer: Callable[[MediaNeeds, BufferOptions], P],
        alias: str | None,
        websocket: Any = None,
        phone: bool = False,
    ) -> tuple[Session, P]:
        self.registry.admit(alias, self.concurrency_limit)
        driver = self.make_driver()
        if driver.handler is not None:
            driver.handler.phone_mode = phone
        needs = driver.needs
        live = needs.live if self._live is None else self._live
        peer = make_peer(needs, self._choose_buffers(live))
        session = Session(
            peer,
            driver,
            limits=self.limits,
            alias=alias,
            asyncio_bridge=opened.asyncio_bridge,
            websocket=websocket,
        )
        if self.registry.has_abandoned:
            session.messages.send_nowait(encode_message("log", "earlier_session_abandoned"))
        self.registry.add(session)
        if alias is not None:
            self.early_readers.attach(alias, session.outputs)
        return session, peer

    async def _start(
        self, opened: _Opened, session: Session, negotiate: Callable[[], Awaitable[T]]
    ) -> T:
        """Run a session in a task of the service, and return the result of ``negotiate``."""
        try:
            negotiated: T = await opened.tasks.start(self._supervise, session, negotiate)
        except BaseException:
            # asyncio may have cancelled the task before it ran a single line.
            self.registry.forget(session)
            raise
        return negotiated

    async def _supervise(
        self,
        session: Session,
        negotiate: Callable[[], Awaitable[T]],
        task_status: TaskStatus[object],
    ) -> None:
        """Run a session, and log its error: other sessions are unaffected."""
        answered = False

        async def answer() -> T:
            nonlocal answered
            negotiated = await negotiate()
            answered = True
            logger.log(self._log_level, "session %s: answered", session.id)
            return negotiated

        try:
            await session.run(answer, task_status=task_status)
            if not answered:
                raise InvalidStateError(f"the session was ended: {session.closed}")
        except Exception as exc:
            if not answered:
                raise  # to the caller of offer() or serve()
            raised = session.closed and session.closed.reason is CloseReason.HANDLER_ERROR
            if isinstance(exc, WebRTCError) or (not raised and isinstance(exc, PeerError)):
                logger.warning("session %s ended: %r", session.id, exc)
                return
            logger.error("session %s (%s) ended", session.id, session.closed, exc_info=exc)
        finally:
            self.registry.forget(session)
            lost = session.closed is not None and session.closed.reason in _LOST
            level = logging.WARNING if lost else self._log_level
            logger.log(level, "session %s: %s", session.id, session.closed)


@dataclass(frozen=True)
class _Opened:
    """Resources of an open service."""

    tasks: TaskGroup
    """Owns the sessions."""
    portal: Portal
    asyncio_bridge: AsyncioBridge
    peer_class: type[WebRTCPeer]
