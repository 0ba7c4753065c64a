"""Drivers for the values that an application may pass to a ``Stream``."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from inspect import Parameter, signature
from typing import TypeAlias, cast

from anyio import CancelScope, create_task_group, sleep_forever
from anyio.abc import TaskGroup
from anyio.lowlevel import checkpoint

from fastrtc_anyio._core.groups import collapse_groups
from fastrtc_anyio._core.user_code import is_coroutine_function, is_generator_function
from fastrtc_anyio._media.media_plan import MediaNeeds, Modality, Mode
from fastrtc_anyio._user_code import user_code
from fastrtc_anyio.conversation.handlers import ReplyOnPause
from fastrtc_anyio.errors import HandlerContractError
from fastrtc_anyio.handlers import (
    AsyncAudioVideoStreamHandler,
    AsyncStreamHandler,
    AudioVideoStreamHandler,
    StreamHandler,
    StreamHandlerBase,
    VideoStreamHandler,
)
from fastrtc_anyio.handlers.functions import FunctionHandler
from fastrtc_anyio.session import Driver, Session, SessionFunction

from .calls import Calls
from .conversation import converse
from .generators import GeneratorHandler
from .handler import HandlerDriver
from .run import HandlerRun

Handler: TypeAlias = (
    StreamHandlerBase | Callable[[], StreamHandlerBase] | SessionFunction | Callable[..., object]
)


class FunctionDriver:
    """Serves a session with a session function."""

    handler: StreamHandlerBase | None = None
    needs = MediaNeeds(live=True)

    def __init__(self, function: SessionFunction) -> None:
        self._function = function
        self.name: str = getattr(function, "__qualname__", repr(function))
        self.turns: ReplyOnPause | None = None
        """The handler that takes the turns for the function, if it has begun to."""
        self._scope = CancelScope()
        self._run: HandlerRun[ReplyOnPause] | None = None
        self._calls: Calls | None = None

    async def run(self, session: Session) -> None:
        try:
            with collapse_groups():
                async with create_task_group() as tasks:
                    session.set_converse(partial(self._converse, session, tasks))
                    with self._scope, user_code(self.name):
                        await self._function(session)
                    if session.is_hanging_up:
                        await sleep_forever()
                    tasks.cancel_scope.cancel()
        finally:  # without reference cycles
            session.set_converse(None)
            self._run = None

    def _converse(self, session: Session, tasks: TaskGroup, handler: ReplyOnPause) -> None:
        """Let a handler take the turns for the function."""
        if self._run is not None:
            raise RuntimeError("utterances() serves one iterator in each session")
        session.audio_out.work_ahead()
        self.turns = handler
        self._calls = Calls(handler)
        self._run = HandlerRun(handler, session, self._calls)
        tasks.start_soon(converse, self._run)

    async def play_out(self, session: Session) -> None:
        self._scope.cancel()
        await (session.wait_played() if self._run is None else self._run.play_out())

    async def shut_down(self, session: Session) -> None:
        await checkpoint()

    async def join(self, deadline: float) -> int:
        await checkpoint()
        return 0 if self._calls is None else await self._calls.join(deadline)


def make_driver_factory(handler: object, modality: Modality, mode: Mode) -> Callable[[], Driver]:
    """Make a factory that makes the driver of one session.

    Raises:
        TypeError: ``handler`` is none of the values in the message, or does not match the modality
            and mode of the stream.
    """
    given = handler
    if callable(handler):
        if is_generator_function(handler):
            handler = GeneratorHandler(handler)
        elif _is_session_function(handler, modality):
            function = cast(SessionFunction, handler)
            return lambda: FunctionDriver(function)
        elif modality == "video" and not isinstance(handler, type) and _parameters(handler):
            handler = VideoStreamHandler(handler)
    if isinstance(handler, StreamHandlerBase):
        original = handler
        _check_matches(type(handler), handler, modality, mode)
        return lambda: HandlerDriver(_copy(original))
    if isinstance(handler, type) and issubclass(handler, StreamHandlerBase):
        _check_matches(handler, handler, modality, mode)
    if callable(handler) and not _required(handler):
        make = handler
        return lambda: HandlerDriver(_make(make, modality, mode))
    raise TypeError(
        "handler must be a handler object; a class or function that makes one without arguments; a "
        'session function `async def serve(session)`; with modality="video" a function `frame, '
        '*inputs -> frame`; with mode="receive" a generator function; got '
        f"{given!r} for modality={modality!r}, mode={mode!r}"
    )


def _is_session_function(handler: object, modality: Modality) -> bool:
    """Return whether ``handler`` is a session function.

    With video, a coroutine function may also be a filter of pictures. There it is a session
    function if its only parameter is called ``session`` or annotated as a :class:`Session`.
    """
    if not is_coroutine_function(handler) or not callable(handler):
        return False
    parameters = _parameters(handler)
    if modality == "audio":
        return len(_required(handler)) <= 1 and bool(parameters)
    return len(parameters) == 1 and (
        parameters[0].name == "session"
        or parameters[0].annotation in (Session, "Session", "fastrtc_anyio.Session")
    )


def _check_matches(kind: type, handler: object, modality: Modality, mode: Mode) -> None:
    """Refuse a handler that has no use for the media of its stream.

    ``handler`` is the handler, or its class if it has not been made yet.
    """
    wanted = ""
    if isinstance(handler, FunctionHandler):
        if modality not in handler.modalities or (mode == "receive") != handler.generates:
            modes = ("receive",) if handler.generates else ("send-receive", "send")
            wanted = f"modality {_either(handler.modalities)} with mode {_either(modes)}"
        handler = handler.callable
    elif not issubclass(kind, AudioVideoStreamHandler | AsyncAudioVideoStreamHandler):
        if issubclass(kind, ReplyOnPause):
            if modality != "audio" or mode == "receive":
                wanted = 'modality="audio" with mode "send-receive" or "send"'
        elif not issubclass(kind, StreamHandler | AsyncStreamHandler):
            wanted = "nothing: derive from one of the handler classes"
        elif modality != "audio":
            wanted = (
                'modality="audio", which is not the default; with video, derive from '
                "AudioVideoStreamHandler or AsyncAudioVideoStreamHandler"
            )
    if wanted:
        raise TypeError(
            f"{handler!r} is for {wanted}; got modality={modality!r} with mode={mode!r}"
        )


def _either(words: tuple[str, ...]) -> str:
    return " or ".join(f'"{word}"' for word in words)


def _parameters(function: Callable[..., object]) -> list[Parameter]:
    return list(signature(function).parameters.values())


def _required(function: Callable[..., object]) -> list[Parameter]:
    return [
        parameter
        for parameter in _parameters(function)
        if parameter.default is Parameter.empty
        and parameter.kind not in (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD)
    ]


def _make(make: Callable[[], object], modality: Modality, mode: Mode) -> StreamHandlerBase:
    with user_code(getattr(make, "__qualname__", repr(make))):
        handler = make()
    if not isinstance(handler, StreamHandlerBase):
        raise HandlerContractError(f"{make!r} must return a handler object; got {handler!r}")
    try:
        _check_matches(type(handler), handler, modality, mode)
    except TypeError as exc:
        raise HandlerContractError(str(exc)) from None
    return handler


def _copy(handler: StreamHandlerBase) -> StreamHandlerBase:
    with user_code(f"{type(handler).__name__}.copy"):
        copy: object = handler.copy()
    if copy is handler or not isinstance(copy, type(handler)):
        got = "itself" if copy is handler else f"{type(copy).__name__} {copy!r}"
        raise HandlerContractError(
            f"{type(handler).__name__}.copy() must return a new {type(handler).__name__}; got {got}"
        )
    return copy
