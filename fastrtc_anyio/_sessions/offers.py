"""Offers of WebRTC clients: begin sessions, restart ICE in them, and pass candidates on."""

from __future__ import annotations

import re
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

import anyio
from anyio import current_time, move_on_after
from anyio.lowlevel import checkpoint

from fastrtc_anyio._core.log import logger
from fastrtc_anyio._media.encode import OpusOptions
from fastrtc_anyio._media.media_plan import MediaNeeds, MediaPlan
from fastrtc_anyio._media.video_encode import VideoOptions
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
from .resuming import Resuming
from .supervision import Supervisor

if TYPE_CHECKING:
    from fastrtc_anyio._peers.webrtc import WebRTCPeer

OutputListener = Callable[[AdditionalOutputs], object]
RtcSource = RtcConfiguration | Mapping[str, object] | Callable[[], object] | None


_CREDENTIAL = re.compile(r"^a=((?:ice-ufrag|ice-pwd|fingerprint):\S.*?)\s*$", re.MULTILINE)
"""Attributes that only the sender of an offer knows before it sends the offer."""
_PREVIOUS_SECONDS = 2.0
"""Seconds for the former session of a client to free its slot."""


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


@dataclass(eq=False)
class _Attempt:
    """A client's first offer with its id."""

    credentials: frozenset[str]
    identity: str | None
    done: anyio.Event = field(default_factory=anyio.Event)
    answer: Answer | None = None
    session_id: str = ""


class Offers:
    """Answers the offers of WebRTC clients, and takes their candidates."""

    def __init__(
        self,
        options: WebRTCOptions,
        limits: RequestLimits,
        admission: Admission,
        supervisor: Supervisor,
        resuming: Resuming,
    ) -> None:
        self._options = options
        self._limits = limits
        self._admission = admission
        self._registry = admission.registry
        self._supervisor = supervisor
        self._resuming = resuming
        self._early = EarlyCandidates(limits)
        self._attempts: dict[str, _Attempt] = {}
        """First offers of clients that have not connected, by the clients' ids."""
        admission.on_forget = self._forget

    def clear(self) -> None:
        """Forget the candidates that came before their offers."""
        self._early.clear()

    async def answer(
        self,
        request: OfferRequest,
        *,
        on_outputs: OutputListener | None = None,
        identity: str | None = None,
        client: str | None = None,
    ) -> Answer:
        """Begin a WebRTC session; see :meth:`.SessionService.handle_request`.

        A client that repeats its offer before it has connected receives the first answer again.
        """
        self._supervisor.require_open()
        if (repeated := await self._repeat(request, identity)) is not None:
            return repeated
        if (restarted := await self._restart(request, identity)) is not None:
            return restarted
        with self._attempt(request, identity) as attempt:
            attempt.answer = await self._begin(attempt, request, on_outputs, identity, client)
        return attempt.answer

    def _forget(self, session: Session) -> None:
        """Forget the offer of a session that has ended. A later one may have its id by now."""
        self._resuming.forget(session)
        attempt = self._attempts.get(session.alias or "")
        if attempt is not None and attempt.session_id == session.id:
            del self._attempts[session.alias or ""]

    async def _begin(
        self,
        attempt: _Attempt,
        request: OfferRequest,
        on_outputs: OutputListener | None,
        identity: str | None,
        client: str | None,
    ) -> Answer:
        previous = await self._resuming.end_previous(request.resume_token, identity)
        if previous is not None:
            with move_on_after(_PREVIOUS_SECONDS):
                await self._registry.wait_closed(previous)
        # Admission comes first: a refused client costs no TURN credentials.
        self._admission.check(request.webrtc_id, client)
        await self._admission.wait(in_steps=False)
        make_peer = await self._prepare_peer()
        session, peer = self._supervisor.create(
            make_peer, request.webrtc_id, identity, client, is_connected=False
        )
        attempt.session_id = session.id
        token = self._resuming.register(session) if request.can_resume else None
        key, owner = request.webrtc_id or "", identity or ANONYMOUS
        # Taken out: the task of the session keeps the function, which must not keep a long offer.
        offered, former_token = [request.description], request.resume_token

        async def negotiate() -> Answer:
            description = await peer.answer(offered.pop())
            for candidate in self._early.take(key, current_time(), owner):
                try:
                    await peer.add_ice_candidate(candidate)
                except SignalingError as exc:
                    logger.debug("ignored an early candidate: %s", exc, event="candidate.ignored")
            await self._resuming.resume(session, former_token)
            return Answer(description, session.alias or session.id, token)

        if on_outputs is not None:
            session.outputs.listen(on_outputs)
        return await self._supervisor.start(session, negotiate)

    async def _repeat(self, request: OfferRequest, identity: str | None) -> Answer | None:
        """Return the answer to a client's first offer, if this one repeats it."""
        credentials = _read_credentials(request)
        while (first := self._find_attempt(request)) is not None:
            if not credentials or (first.credentials, first.identity) != (credentials, identity):
                break
            await first.done.wait()
            if first.answer is not None:
                return first.answer
        return None

    @contextmanager
    def _attempt(
        self, request: OfferRequest, identity: str | None
    ) -> Generator[_Attempt, None, None]:
        """Note the first offer of a client, whose repetitions wait until the block has ended.

        Raises:
            InvalidStateError: another client's offer with the same id is being answered.
        """
        attempt, name = _Attempt(_read_credentials(request), identity), request.webrtc_id
        self._attempts = {
            key: one for key, one in self._attempts.items() if self._is_current(key, one)
        }
        if name is not None:
            if name in self._attempts:
                raise InvalidStateError(f"the webrtc_id {name!r} is in use")
            self._attempts[name] = attempt
        try:
            yield attempt
        finally:
            if name is not None and attempt.answer is None:
                self._attempts.pop(name, None)
            attempt.done.set()

    def _find_attempt(self, request: OfferRequest) -> _Attempt | None:
        name = request.webrtc_id or ""
        attempt = self._attempts.get(name)
        return attempt if attempt is not None and self._is_current(name, attempt) else None

    def _is_current(self, name: str, attempt: _Attempt) -> bool:
        """Whether an offer is being answered, or its client has yet to connect."""
        session = self._registry.find(name)
        return not attempt.done.is_set() or (
            session is not None and self._admission.is_pending(session)
        )

    async def _prepare_peer(self) -> Callable[[MediaNeeds, BufferOptions], WebRTCPeer]:
        """Return a function that creates the peer, once its RTC configuration is known."""
        options, rtc = self._options, self._options.rtc
        if callable(rtc):
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
                input_sample_rate=needs.input_sample_rate,
                input_channels=needs.input_channels,
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
        self._attempts.pop(webrtc_id, None)  # its answer is outdated
        self._report_restart(session)
        return Answer(description, webrtc_id)

    async def restart_ice(self, session_id: str, remote: Remote) -> str:
        """Restart ICE in a session; return an SDP fragment. See :meth:`.WebRTCPeer.restart_ice`.

        Raises:
            UnknownSession: there is no such session.
        """
        session = self._registry.get(session_id)
        fragment = await self._webrtc_peer(session, session_id).restart_ice(remote)
        self._report_restart(session)
        return fragment

    def _report_restart(self, session: Session) -> None:
        session.log.note("session.ice_restarted")
        logger.log(
            self._options.log_level,
            "session %s: ICE restarts",
            session.log_id,
            event="session.ice_restarted",
            session_id=session.log_id,
        )

    async def add_candidate(
        self,
        webrtc_id: str,
        candidate: IceCandidate | None,
        identity: str | None = None,
        client: str | None = None,
    ) -> None:
        """See :meth:`fastrtc_anyio.Stream.add_ice_candidate`."""
        session = self._registry.find(webrtc_id, identity)
        if session is None:
            owner = identity or ANONYMOUS
            self._early.add(webrtc_id, candidate, current_time(), owner, client)
            await checkpoint()
            return
        await self._webrtc_peer(session, webrtc_id).add_ice_candidate(candidate)

    def _webrtc_peer(self, session: Session, name: str) -> WebRTCPeer:
        if not isinstance(session.peer, self._supervisor.require_open().peer_class):
            raise InvalidStateError(f"{name!r} is not connected over WebRTC")
        return session.peer


def _read_credentials(request: OfferRequest) -> frozenset[str]:
    return frozenset(_CREDENTIAL.findall(request.description.sdp))
