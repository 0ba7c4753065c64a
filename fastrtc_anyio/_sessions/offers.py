"""Offers of WebRTC clients: begin sessions, restart ICE in them, and pass candidates on."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from anyio import current_time
from anyio.lowlevel import checkpoint

from fastrtc_anyio._media.encode import OpusOptions, VideoOptions
from fastrtc_anyio._media.media_plan import MediaNeeds, MediaPlan
from fastrtc_anyio._peers.streams.audio import BufferOptions
from fastrtc_anyio._signaling.ice import RtcConfiguration
from fastrtc_anyio._signaling.requests import Answer, IceCandidate, OfferRequest
from fastrtc_anyio._signaling.restart import Remote
from fastrtc_anyio._user_code import call_user_function
from fastrtc_anyio.errors import InvalidStateError, SignalingError, UnknownSession
from fastrtc_anyio.limits import RequestLimits
from fastrtc_anyio.outputs import AdditionalOutputs
from fastrtc_anyio.session import Session

from .admission import Admission
from .early import EarlyCandidates
from .ownership import ANONYMOUS
from .supervision import Supervisor

if TYPE_CHECKING:
    from fastrtc_anyio._peers.webrtc import WebRTCPeer

logger = logging.getLogger("fastrtc_anyio")

OutputListener = Callable[[AdditionalOutputs], object]
RtcSource = RtcConfiguration | Mapping[str, object] | Callable[[], object] | None


@dataclass(frozen=True)
class WebRTCOptions:
    """Settings of every WebRTC connection of a service."""

    media: MediaPlan
    rtc: RtcConfiguration | Callable[[], object]
    opus: OpusOptions
    video: VideoOptions
    liveness: float | None
    log_level: int

    @staticmethod
    def parse_rtc(source: RtcSource) -> RtcConfiguration | Callable[[], object]:
        """Read the server's RTC configuration, unless a function makes it for each call."""
        return source if callable(source) else RtcConfiguration.parse(source)


class Offers:
    """Answers the offers of WebRTC clients, and takes their candidates."""

    def __init__(
        self,
        options: WebRTCOptions,
        limits: RequestLimits,
        admission: Admission,
        supervisor: Supervisor,
    ) -> None:
        self._options = options
        self._limits = limits
        self._admission = admission
        self._registry = admission.registry
        self._supervisor = supervisor
        self._early = EarlyCandidates(limits)

    def clear(self) -> None:
        """Forget the candidates that came before their offers."""
        self._early.clear()

    async def answer(
        self,
        request: OfferRequest,
        *,
        on_outputs: OutputListener | None = None,
        identity: str | None = None,
    ) -> Answer:
        """Begin a WebRTC session; see :meth:`fastrtc_anyio.Stream.offer`."""
        self._supervisor.require_open()
        if (restarted := await self._restart(request, identity)) is not None:
            return restarted
        session, peer = self._supervisor.create(
            await self._prepare_peer(request.webrtc_id), request.webrtc_id, identity
        )
        key, owner = request.webrtc_id or "", identity or ANONYMOUS

        async def negotiate() -> Answer:
            description = await peer.answer(request.description)
            for candidate in self._early.take(key, current_time(), owner):
                try:
                    await peer.add_ice_candidate(candidate)
                except SignalingError as exc:
                    logger.debug("ignored an early candidate: %s", exc)
            return Answer(description, session.alias or session.id)

        if on_outputs is not None:
            session.outputs.listen(on_outputs)
        return await self._supervisor.start(session, negotiate)

    async def _prepare_peer(
        self, alias: str | None
    ) -> Callable[[MediaNeeds, BufferOptions], WebRTCPeer]:
        """Return a function that creates the peer, once its RTC configuration is known."""
        options, rtc = self._options, self._options.rtc
        if callable(rtc):
            # Admission comes first: a refused client costs no TURN credentials.
            self._admission.admit(alias)
            given: object = await call_user_function(rtc)
            rtc = RtcConfiguration.parse(cast("RtcConfiguration | Mapping[str, object]", given))
        resources = self._supervisor.require_open()  # it may have closed meanwhile
        configuration = rtc

        def make_peer(needs: MediaNeeds, buffers: BufferOptions) -> WebRTCPeer:
            return resources.peer_class(
                resources.portal,
                media=options.media,
                sample_rate=needs.sample_rate,
                channels=needs.channels,
                fps=needs.fps,
                configuration=configuration,
                buffers=buffers,
                liveness_s=options.liveness,
                opus=options.opus,
                video=options.video,
                limits=self._limits,
            )

        return make_peer

    async def _restart(self, request: OfferRequest, identity: str | None) -> Answer | None:
        """Answer an offer for an ICE restart of a live session; None if the offer is for none."""
        webrtc_id = request.webrtc_id or ""
        session = self._registry.find(webrtc_id, identity)
        if session is None:
            if request.restart:
                raise UnknownSession(f"no session has the id {webrtc_id!r}")
            return None
        if not isinstance(session.peer, self._supervisor.require_open().peer_class):
            return None
        description = await session.peer.restart(request.description)
        if description is None:
            return None
        logger.log(self._options.log_level, "session %s: ICE restarts", session.log_id)
        return Answer(description, webrtc_id)

    async def restart_ice(self, session_id: str, remote: Remote) -> str:
        """Restart ICE in a session; return an SDP fragment. See :meth:`.WebRTCPeer.restart_ice`.

        Raises:
            UnknownSession: there is no such session.
        """
        session = self._registry.get(session_id)
        fragment = await self._webrtc_peer(session, session_id).restart_ice(remote)
        logger.log(self._options.log_level, "session %s: ICE restarts", session.log_id)
        return fragment

    async def add_candidate(
        self, webrtc_id: str, candidate: IceCandidate | None, identity: str | None = None
    ) -> None:
        """See :meth:`fastrtc_anyio.Stream.add_ice_candidate`."""
        session = self._registry.find(webrtc_id, identity)
        if session is None:
            self._early.add(webrtc_id, candidate, current_time(), identity or ANONYMOUS)
            await checkpoint()
            return
        await self._webrtc_peer(session, webrtc_id).add_ice_candidate(candidate)

    def _webrtc_peer(self, session: Session, name: str) -> WebRTCPeer:
        if not isinstance(session.peer, self._supervisor.require_open().peer_class):
            raise InvalidStateError(f"{name!r} is not connected over WebRTC")
        return session.peer
