"""``SessionService``: the sessions of one handler, for any number of clients."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial

import anyio
from anyio import AsyncContextManagerMixin, CancelScope, create_task_group
from anyio.lowlevel import checkpoint

from fastrtc_anyio._core.groups import collapse_groups
from fastrtc_anyio._core.host import Host
from fastrtc_anyio._core.options import check_number, check_type, short_repr
from fastrtc_anyio._core.session_log import current_log
from fastrtc_anyio._core.watchdog import watch_loop
from fastrtc_anyio._driver.factory import Handler, make_driver_factory
from fastrtc_anyio._media.encode import OpusOptions
from fastrtc_anyio._media.media_plan import MediaNeeds, MediaPlan, Modality, Mode
from fastrtc_anyio._media.video_encode import VideoOptions
from fastrtc_anyio._peers.asyncio_bridge import open_asyncio_bridge
from fastrtc_anyio._peers.streams.audio import BufferOptions
from fastrtc_anyio._signaling.requests import (
    Answer,
    CandidateRequest,
    IceCandidate,
    OfferRequest,
    parse_request,
)
from fastrtc_anyio._signaling.restart import Remote
from fastrtc_anyio.abc import Peer
from fastrtc_anyio.errors import CloseReason
from fastrtc_anyio.limits import Limits, RequestLimits
from fastrtc_anyio.observability._dispatch import Observers
from fastrtc_anyio.observability.observer import LoopLoad, Observer
from fastrtc_anyio.outputs import OutputReader, OutputStream
from fastrtc_anyio.resumption import SessionStore
from fastrtc_anyio.session import Driver, Session

from .admission import Admission, ConcurrencyLimit, parse_limit
from .claims import SessionClaims
from .description import describe_session
from .early import EarlyReaders
from .load import LoadGauge
from .offers import Offers, OutputListener, RtcSource, WebRTCOptions
from .registry import SessionRegistry
from .resuming import Resuming
from .supervision import Resources, SessionOptions, Supervisor


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
        observers: Iterable[Observer] = (),
        drain_timeout: float | None = 25.0,
    ) -> None:
        self.observers: Observers = Observers(observers)
        self.media: MediaPlan = MediaPlan.of(modality, mode)
        self.make_driver: Callable[[], Driver] = make_driver_factory(handler, modality, mode)
        self.handler = handler
        self.mode: Mode = mode
        self.modality: Modality = modality
        self.concurrency_limit: int | None = parse_limit(concurrency_limit)
        check_type("limits", limits, Limits, optional=True)
        check_type("request_limits", request_limits, RequestLimits, optional=True)
        check_type("opus", opus, OpusOptions, optional=True)
        check_type("video", video, VideoOptions, optional=True)
        self.limits: Limits = limits or Limits()
        if time_limit is not None:
            self.limits = replace(self.limits, time_limit=time_limit)
        self.request_limits: RequestLimits = request_limits or RequestLimits()
        self.registry: SessionRegistry = SessionRegistry()
        self.early_readers: EarlyReaders = EarlyReaders(self.request_limits)
        choose = partial(BufferOptions.choose, output_s=output_buffer_s, input_s=input_buffer_s)
        choose(live)  # raises now for an impossible size
        log_level = logging.INFO if verbose else logging.DEBUG
        self._load = LoadGauge(self.limits.lag)
        self.admission: Admission = Admission(
            self.registry, self.concurrency_limit, self.request_limits, self._load
        )
        self.drain_timeout = drain_timeout
        self._host: Host | None = None
        self._supervisor = Supervisor(
            SessionOptions(self.make_driver, choose, self.limits, live, log_level),
            self.admission,
            self.early_readers,
            self.observers,
        )
        webrtc = WebRTCOptions(
            self.media,
            WebRTCOptions.parse_rtc(rtc_configuration),
            opus or OpusOptions(),
            video or VideoOptions(),
            self.limits.liveness,
            log_level,
        )
        self._resuming = Resuming(self.limits.resume, log_level)
        self._offers = Offers(
            webrtc, self.request_limits, self.admission, self._supervisor, self._resuming
        )

    @asynccontextmanager
    async def __asynccontextmanager__(self) -> AsyncGenerator[SessionService, None]:
        # Imported late: the portal loads asyncio, and aiortc takes half a second.
        from fastrtc_anyio._peers import webrtc
        from fastrtc_anyio._peers.portal import open_portal

        with collapse_groups(), watch_loop(self.limits.block):
            async with (
                open_portal() as portal,
                open_asyncio_bridge() as bridge,
                self.observers.observe(self),
                self._resuming.open(),
                create_task_group() as tasks,
            ):
                self._offers.clear()
                self._host = Host()
                self._supervisor.resources = Resources(tasks, portal, bridge, webrtc.WebRTCPeer)
                if self.limits.lag is not None or self.observers:
                    tasks.start_soon(self._load.measure, portal.pace)
                try:
                    yield self
                finally:
                    self._supervisor.resources = self._host = None
                    self._load.compare()  # the measurements are outdated when it opens again
                    self.admission.drainer.end()
                    self.early_readers.close()
                    tasks.cancel_scope.cancel()

    def measure_loops(self) -> Mapping[str, LoopLoad]:
        """See :class:`.ObservedStream`."""
        return self._load.measure_loops()

    @property
    def is_open(self) -> bool:
        return self._supervisor.resources is not None

    @property
    def claims(self) -> SessionClaims | None:
        return self._supervisor.claims

    @claims.setter
    def claims(self, claims: SessionClaims | None) -> None:
        self._supervisor.claims = claims

    @property
    def store(self) -> SessionStore:
        return self._resuming.store

    @store.setter
    def store(self, store: SessionStore) -> None:
        if not isinstance(store, SessionStore):
            raise TypeError(f"store must be a SessionStore; got {short_repr(store)}")
        self._resuming.store = store

    @property
    def is_draining(self) -> bool:
        return self.admission.drainer.is_draining

    @property
    def drain_timeout(self) -> float | None:
        return self.admission.drainer.timeout

    @drain_timeout.setter
    def drain_timeout(self, seconds: float | None) -> None:
        check_number("drain_timeout", seconds, at_least=0, unit="s", optional=True)
        self.admission.drainer.timeout = seconds

    def begin_drain(self) -> None:
        """Begin to drain, if the service is open. Idempotent."""
        if self._supervisor.resources is not None:
            self.admission.drainer.begin(self._supervisor.resources.tasks)
            self.early_readers.close()  # their sessions will not begin

    def end_sessions(self) -> None:
        """End all sessions now, and refuse new ones until the service is closed."""
        if self._supervisor.resources is not None:
            self.admission.drainer.cut(self._supervisor.resources.tasks)
            self.early_readers.close()

    async def drain(self) -> None:
        """See :meth:`fastrtc_anyio.Stream.drain`."""
        if self._host is not None and not self._host.is_current_thread:
            raise RuntimeError(
                "drain() must run on the event loop on which the stream was opened; "
                "anyio.from_thread.run(stream.drain) calls it from a thread of that loop"
            )
        self.begin_drain()
        await self.admission.drainer.wait()

    def check_draining(self) -> None:
        """Raise :class:`.Draining` if the service is draining."""
        self.admission.drainer.check()

    def find_unready(self) -> str | None:
        """Return in a word why no further session can begin now; None if one can."""
        if not self.is_open:
            return "closed"
        if self.is_draining:
            return "draining"
        if self.admission.is_full:
            return "full"
        return "overloaded" if self._load.is_overloaded(self.registry.active) else None

    def describe(self, session_id: str, identity: str | None = None) -> dict[str, object]:
        """See :meth:`fastrtc_anyio.Stream.describe`."""
        return describe_session(self.registry.get_any(session_id, identity))

    async def handle_request(
        self,
        body: object,
        *,
        on_outputs: OutputListener | None = None,
        identity: str | None = None,
        client: str | None = None,
    ) -> dict[str, str]:
        """See :meth:`fastrtc_anyio.Stream.handle_offer`.

        ``client`` names the client for the limits of one client; None exempts the request from
        them.
        """
        with self.observers.watch_refusals():
            self._supervisor.require_open()
            request = parse_request(body, self.request_limits)
        if isinstance(request, CandidateRequest):
            await self.add_candidate(request.webrtc_id, request.candidate, identity, client)
            return {"status": "success"}
        answer = await self.offer(request, on_outputs=on_outputs, identity=identity, client=client)
        return {
            "type": answer.description.type,
            "sdp": answer.description.sdp,
            "webrtc_id": answer.webrtc_id,
            **({} if answer.resume_token is None else {"resume_token": answer.resume_token}),
        }

    async def offer(
        self,
        request: OfferRequest,
        *,
        on_outputs: OutputListener | None = None,
        identity: str | None = None,
        client: str | None = None,
    ) -> Answer:
        """Begin a WebRTC session; see :meth:`handle_request`."""
        with self.observers.watch_refusals():
            return await self._offers.answer(
                request, on_outputs=on_outputs, identity=identity, client=client
            )

    async def restart_ice(self, session_id: str, remote: Remote) -> str:
        """Restart ICE in a session; see :meth:`.Offers.restart_ice`."""
        return await self._offers.restart_ice(session_id, remote)

    async def add_candidate(
        self,
        webrtc_id: str,
        candidate: IceCandidate | None,
        identity: str | None = None,
        client: str | None = None,
    ) -> None:
        """See :meth:`fastrtc_anyio.Stream.add_ice_candidate`."""
        await self._offers.add_candidate(webrtc_id, candidate, identity, client)

    async def serve(
        self,
        make_peer: Callable[[MediaNeeds, BufferOptions], Peer],
        *,
        alias: str | None = None,
        phone: bool = False,
        websocket: object = None,
        identity: str | None = None,
        client: str | None = None,
    ) -> None:
        """See :meth:`fastrtc_anyio.Stream.serve_peer`, and :meth:`handle_request`."""
        with self.observers.watch_refusals():
            self._supervisor.require_open()
            await self.admission.wait()
            session, peer = self._supervisor.create(
                make_peer,
                alias,
                identity,
                client,
                is_connected=True,
                websocket=websocket,
                phone=phone,
            )

        async def carry() -> None:
            current_log.set(session.log)  # this task is the session's own
            with CancelScope(shield=True):  # the end of a session needs its connection
                await peer.run()

        with collapse_groups():
            async with create_task_group() as tasks:
                tasks.start_soon(carry)
                try:
                    with self.observers.watch_refusals():
                        await self._begin(session)
                    await peer.wait_closed()
                except BaseException:
                    session.close(CloseReason.CANCELLED, "the server is stopping")
                    with anyio.move_on_after(self.limits.close, shield=True):
                        await peer.wait_closed()
                    with anyio.move_on_after(self.limits.close, shield=True):
                        await peer.aclose()
                    raise

    async def _begin(self, session: Session) -> None:
        try:
            await checkpoint()  # from here on the peer runs
        except BaseException:
            self.admission.forget(session)
            raise
        await self._supervisor.start(session, checkpoint)

    @asynccontextmanager
    async def open_outputs(
        self, webrtc_id: str, identity: str | None = None
    ) -> AsyncGenerator[OutputReader, None]:
        """See :meth:`fastrtc_anyio.Stream.open_outputs`."""
        reader = self._attach_reader(webrtc_id, identity)
        try:
            await reader.wait_begun()
            yield reader
        finally:
            await reader.aclose()

    def read_outputs(
        self, webrtc_id: str, identity: str | None = None, client: str | None = None
    ) -> OutputStream:
        """See :meth:`fastrtc_anyio.Stream.output_stream`, and :meth:`handle_request`."""
        return OutputStream(self._attach_reader(webrtc_id, identity, client))

    def _attach_reader(
        self, webrtc_id: str, identity: str | None, client: str | None = None
    ) -> OutputReader:
        session = self.registry.find(webrtc_id, identity)
        if session is None:
            self._supervisor.require_open()
            self.check_draining()
            return self.early_readers.add(webrtc_id, identity, client)
        reader = OutputReader()
        session.outputs.add(reader)
        return reader
