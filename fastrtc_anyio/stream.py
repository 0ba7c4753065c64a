"""A stream: one handler, and everybody who is talking to it."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from inspect import Parameter, iscoroutinefunction, signature
from typing import TYPE_CHECKING, Any, Literal, cast

from anyio import AsyncContextManagerMixin, create_task_group, move_on_after
from anyio.abc import TaskGroup, TaskStatus
from anyio.lowlevel import checkpoint

from .driver import HandlerProgram
from .errors import (
    AdmissionError,
    HandlerContractError,
    InvalidStateError,
    PeerError,
    SignalingError,
    StreamNotOpen,
    WebRTCError,
)
from .groups import unwrapped
from .handlers import StreamHandlerBase
from .protocol.ice import RtcConfiguration
from .protocol.session_state import SessionState
from .protocol.signaling import CandidateRequest, IceCandidate, OfferRequest, parse_request
from .session import FunctionProgram, Limits, Program, Session, SessionFunction
from .workers import Host

if TYPE_CHECKING:
    from .peers._portal import Portal
    from .peers.webrtc import WebRTCPeer

__all__ = ["Stream"]

logger = logging.getLogger("fastrtc_anyio")

_SDK_SECONDS = 5.0
_EARLY_IDS = 64
_EARLY_CANDIDATES = 32
"""Candidates that come before their offer are kept for so many clients, so many for each."""

Handler = StreamHandlerBase | Callable[[], StreamHandlerBase] | SessionFunction


class Stream(AsyncContextManagerMixin):
    """Serves a handler to clients over WebRTC.

    ``async with stream:`` opens it: the block owns every session, and leaving it ends them all
    within their limits. :meth:`mount` does that in a web application's lifespan.

    Args:
        handler: a handler object, of which each session gets a ``copy()``; a handler class, or a
            function, called without arguments for each session's handler; or a session function
            ``async def serve(session)``.
        mode: ``"send-receive"``.
        modality: ``"audio"``.
        concurrency_limit: sessions at a time. ``"default"`` is 1, None is no limit.
        time_limit: seconds a session may be connected; None is no limit.
        server_rtc_configuration: how this side finds a way to the client: an
            :class:`RtcConfiguration` or a W3C dictionary.
        rtc_configuration: the same for the client's side: handed to the page.
        limits: the other deadlines of a session.
        output_buffer_s: seconds of audio a handler may work ahead of what is played.

    Raises:
        TypeError: ``handler`` is none of these.
        ValueError: a mode, a modality or a limit that is not possible.
    """

    def __init__(
        self,
        handler: Handler,
        *,
        mode: Literal["send-receive", "receive", "send"] = "send-receive",
        modality: Literal["video", "audio", "audio-video"] = "video",
        concurrency_limit: int | Literal["default"] | None = "default",
        time_limit: float | None = None,
        server_rtc_configuration: RtcConfiguration | Mapping[str, Any] | None = None,
        rtc_configuration: Mapping[str, Any] | None = None,
        limits: Limits | None = None,
        output_buffer_s: float = 30.0,
    ) -> None:
        if (modality, mode) != ("audio", "send-receive"):
            raise ValueError(
                'this version serves modality="audio" with mode="send-receive"; '
                f"got modality={modality!r} with mode={mode!r}"
            )
        self._make_program = _program_maker(handler)
        self.handler = handler
        self.mode = mode
        self.modality = modality
        self.concurrency_limit = _parse_limit(concurrency_limit)
        self.rtc_configuration = dict(rtc_configuration or {})
        self._rtc = RtcConfiguration.parse(server_rtc_configuration)
        self._limits = limits or Limits()
        if time_limit is not None:
            self._limits = replace(self._limits, time_limit=time_limit)
        self._output_buffer_s = output_buffer_s
        self._opened: _Opened | None = None
        self._sessions: dict[str, Session] = {}
        self._early: OrderedDict[str, list[IceCandidate | None]] = OrderedDict()

    @asynccontextmanager
    async def __asynccontextmanager__(self) -> AsyncGenerator[Stream, None]:
        # The portal is the only door to asyncio, and aiortc takes half a second to load.
        from .peers import webrtc
        from .peers._portal import open_portal

        with unwrapped():
            async with open_portal() as portal, _Opened.open(portal, webrtc.WebRTCPeer) as opened:
                self._opened = opened
                try:
                    yield self
                finally:
                    self._opened = None

    @property
    def is_open(self) -> bool:
        """Whether sessions can be started."""
        return self._opened is not None

    @property
    def active(self) -> int:
        """Sessions that hold a slot."""
        return sum(session.state is not SessionState.CLOSED for session in self._sessions.values())

    @property
    def sessions(self) -> Mapping[str, Session]:
        """The live sessions, by their ids."""
        return dict(self._sessions)

    async def offer(self, body: object) -> dict[str, Any]:
        """Carry out a request of the signalling protocol: an offer, or a candidate of one.

        Args:
            body: ``{"type": "offer", "sdp": ..., "webrtc_id": ...}`` or ``{"type":
                "ice-candidate", "candidate": {...} | None, "webrtc_id": ...}``; or an object with
                these as attributes.

        Returns:
            ``{"type": "answer", "sdp": ...}``, or ``{"status": "success"}`` for a candidate.

        Raises:
            InvalidOffer, InvalidCandidate: the body or what is in it is malformed.
            InvalidStateError: the ``webrtc_id`` is in use.
            AdmissionError: all slots are taken.
            StreamNotOpen: the stream was not opened.
            HandlerContractError: the handler's ``copy()`` or methods are not as they must be.

        Cancellation:
            Ends the session that was being made.
        """
        opened = self._opened
        if opened is None:
            raise StreamNotOpen(
                "the stream is not open. An application that is mounted inside another never has "
                "its lifespan run: put `async with stream:` into the lifespan of the outermost one"
            )
        request = parse_request(body if isinstance(body, Mapping) else _attributes(body))
        if isinstance(request, CandidateRequest):
            await self._add_candidate(request)
            return {"status": "success"}
        session, peer = self._admit(request, opened)
        negotiate = partial(peer.answer, request.description)
        try:
            answer = await opened.tasks.start(self._supervise, session, negotiate)
        except BaseException:
            # asyncio may have cancelled the task before it ran a single line.
            self._sessions.pop(session.id, None)
            raise
        return {"type": answer.type, "sdp": answer.sdp}

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

    def _admit(self, request: OfferRequest, opened: _Opened) -> tuple[Session, WebRTCPeer]:
        alias = request.webrtc_id
        if alias is not None and self._find(alias) is not None:
            raise InvalidStateError(f"the webrtc_id {alias!r} is in use")
        limit, active = self.concurrency_limit, self.active
        if limit is not None and active >= limit:
            raise AdmissionError(limit, active)
        program = self._make_program(opened.asyncio_loop)
        sample_rate, channels = 48_000, 1
        if isinstance(program, HandlerProgram):
            sample_rate = program.handler.output_sample_rate
            channels = 2 if program.handler.expected_layout == "stereo" else 1
        peer = opened.peer_class(
            opened.portal,
            sample_rate=sample_rate,
            channels=channels,
            configuration=self._rtc,
            output_buffer_s=self._output_buffer_s,
            liveness_s=self._limits.liveness,
        )
        session = Session(peer, program, limits=self._limits, alias=alias)
        self._sessions[session.id] = session
        return session, peer

    async def _supervise(
        self, session: Session, negotiate: Callable[[], Any], *, task_status: TaskStatus[Any]
    ) -> None:
        """Where an error of a session ends: it is logged, and its siblings never notice."""
        answered = False

        async def answer() -> Any:
            nonlocal answered
            made = await negotiate()
            await self._add_early_candidates(session)
            answered = True
            return made

        try:
            await session.run(answer, task_status=task_status)
            if not answered:
                raise InvalidStateError(f"the session was ended: {session.closed}")
        except Exception as exc:
            if not answered:
                raise  # to the caller of offer(), who is waiting for the answer
            if isinstance(exc, PeerError | WebRTCError):
                logger.warning("session %s ended: %r", session.id, exc)
                return
            logger.error("session %s (%s) ended", session.id, session.closed, exc_info=exc)
        finally:
            self._sessions.pop(session.id, None)

    async def _add_candidate(self, request: CandidateRequest) -> None:
        session = self._find(request.webrtc_id)
        if session is not None:
            await cast("WebRTCPeer", session.peer).add_ice_candidate(request.candidate)
            return
        early = self._early.setdefault(request.webrtc_id, [])
        self._early.move_to_end(request.webrtc_id)
        if len(early) < _EARLY_CANDIDATES:
            early.append(request.candidate)
        if len(self._early) > _EARLY_IDS:
            self._early.popitem(last=False)
        await checkpoint()

    async def _add_early_candidates(self, session: Session) -> None:
        for candidate in self._early.pop(session.alias or "", []):
            try:
                await cast("WebRTCPeer", session.peer).add_ice_candidate(candidate)
            except SignalingError as exc:
                logger.debug("ignored: %s", exc)

    def _find(self, alias: str) -> Session | None:
        for session in self._sessions.values():
            if session.alias == alias and session.state is not SessionState.CLOSED:
                return session
        return None


class _Opened:
    """What exists while a stream is open."""

    def __init__(self, tasks: TaskGroup, portal: Portal, peer_class: type[WebRTCPeer]) -> None:
        self.tasks = tasks
        """Owns the sessions."""
        self.portal = portal
        self.peer_class = peer_class
        self._host_loop = Host().asyncio_loop
        self._sdk_portal = type(portal)("fastrtc-sdk", workers=None)

    def asyncio_loop(self) -> Any:
        """``handler.loop``: the host's own loop if that is asyncio's, or else a second one."""
        if self._host_loop is not None:
            return self._host_loop
        return self._sdk_portal.start_once()

    @classmethod
    @asynccontextmanager
    async def open(
        cls, portal: Portal, peer_class: type[WebRTCPeer]
    ) -> AsyncGenerator[_Opened, None]:
        opened: _Opened | None = None
        try:
            async with create_task_group() as tg:
                opened = cls(tg, portal, peer_class)
                try:
                    yield opened
                finally:
                    tg.cancel_scope.cancel()
        finally:
            if opened is not None and opened._sdk_portal.is_open:
                # Users' code runs there, and may never end. The thread is a daemon.
                with move_on_after(_SDK_SECONDS, shield=True) as scope:
                    await opened._sdk_portal.stop()
                if scope.cancelled_caught:
                    logger.error("handler.loop is blocked by what runs on it; left behind")


def _program_maker(handler: Any) -> Callable[[Callable[[], Any]], Program]:
    if isinstance(handler, StreamHandlerBase):
        return lambda loop: HandlerProgram(_copy(handler), loop)
    if iscoroutinefunction(handler):
        return lambda _loop: FunctionProgram(handler)
    if callable(handler) and not _required_parameters(handler):
        return lambda loop: HandlerProgram(_made(handler), loop)
    raise TypeError(
        "a handler is a StreamHandler or AsyncStreamHandler object, a class or function that makes "
        f"one without arguments, or a session function `async def serve(session)`; got {handler!r}"
    )


def _required_parameters(function: Callable[..., Any]) -> list[str]:
    return [
        name
        for name, parameter in signature(function).parameters.items()
        if parameter.default is Parameter.empty
        and parameter.kind not in (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD)
    ]


def _made(make: Callable[[], Any]) -> StreamHandlerBase:
    handler = make()
    if not isinstance(handler, StreamHandlerBase):
        raise HandlerContractError(
            f"{make!r} must make a StreamHandler or AsyncStreamHandler; got {handler!r}"
        )
    return handler


def _copy(handler: StreamHandlerBase) -> StreamHandlerBase:
    copy: Any = handler.copy()
    if copy is handler or not isinstance(copy, type(handler)):
        got = "itself" if copy is handler else f"{type(copy).__name__} {copy!r}"
        raise HandlerContractError(
            f"{type(handler).__name__}.copy() must return a new {type(handler).__name__}; got {got}"
        )
    return copy


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
