"""What may be given to a ``Stream``, and what a session makes of it."""

from __future__ import annotations

from collections.abc import Callable
from inspect import Parameter, signature
from typing import Any, TypeAlias

from anyio.lowlevel import checkpoint

from fastrtc_anyio._core.user_code import is_coroutine_function, is_generator, user_code
from fastrtc_anyio._media.media_plan import MediaNeeds, Modality, Mode
from fastrtc_anyio.conversation.handlers import ReplyOnPause
from fastrtc_anyio.errors import HandlerContractError
from fastrtc_anyio.functions import FunctionHandler, GeneratorHandler, VideoStreamHandler
from fastrtc_anyio.handlers import (
    AsyncAudioVideoStreamHandler,
    AsyncStreamHandler,
    AudioVideoStreamHandler,
    StreamHandler,
    StreamHandlerBase,
)
from fastrtc_anyio.session import Driver, Session, SessionFunction

from . import HandlerDriver

__all__ = ["Handler", "DriverFactory", "make_driver_factory"]

Handler: TypeAlias = (
    StreamHandlerBase | Callable[[], StreamHandlerBase] | SessionFunction | Callable[..., Any]
)
DriverFactory: TypeAlias = Callable[[], Driver]


class FunctionDriver:
    """Serves a session with a session function."""

    handler: StreamHandlerBase | None = None
    needs = MediaNeeds(live=True)

    def __init__(self, function: SessionFunction) -> None:
        self._function = function

    async def run(self, session: Session) -> None:
        with user_code(getattr(self._function, "__qualname__", repr(self._function))):
            await self._function(session)

    async def shut_down(self, session: Session) -> None:
        await checkpoint()

    async def join(self, deadline: float) -> int:
        await checkpoint()
        return 0


def make_driver_factory(handler: Any, modality: Modality, mode: Mode) -> DriverFactory:
    """Find out what ``handler`` is; each call of the factory is for one session.

    Args:
        handler: a handler object, of which each session gets a ``copy()``; a class or function
            that makes one without arguments; a session function; for video a function
            ``frame, *inputs -> frame``; for the mode ``"receive"`` a generator function.

    Raises:
        TypeError: it is none of these, or does not suit the modality and mode.
    """
    if is_generator(handler):
        handler = GeneratorHandler(handler)
    elif is_session_function(handler, modality):
        return lambda: FunctionDriver(handler)
    elif modality == "video" and _is_filter(handler):
        handler = VideoStreamHandler(handler)
    if isinstance(handler, StreamHandlerBase):
        original = handler
        _check_suits(type(handler), handler, modality, mode)
        return lambda: HandlerDriver(_copy(original))
    if isinstance(handler, type) and issubclass(handler, StreamHandlerBase):
        _check_suits(handler, handler, modality, mode)
    if callable(handler) and not _required(handler):
        return lambda: HandlerDriver(_made(handler, modality, mode))
    raise TypeError(
        "a handler is a handler object; a class or function that makes one without arguments; a "
        'session function `async def serve(session)`; with modality="video" a function `frame, '
        '*inputs -> frame`; with mode="receive" a generator function; got '
        f"{handler!r} for modality={modality!r}, mode={mode!r}"
    )


def is_session_function(handler: object, modality: Modality) -> bool:
    """Whether it is ``async def serve(session)``.

    With video, a coroutine function may also be a filter of pictures: there it is a session
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


def _is_filter(handler: object) -> bool:
    """Whether it is a function that takes a picture, not one that makes a handler."""
    return callable(handler) and not isinstance(handler, type) and bool(_parameters(handler))


def _check_suits(kind: type, handler: object, modality: Modality, mode: Mode) -> None:
    """Refuse a handler that could do nothing on its stream.

    Args:
        kind: its class.
        handler: itself, or the class if there is none yet.
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


def _parameters(function: Callable[..., Any]) -> list[Parameter]:
    return list(signature(function).parameters.values())


def _required(function: Callable[..., Any]) -> list[Parameter]:
    return [
        parameter
        for parameter in _parameters(function)
        if parameter.default is Parameter.empty
        and parameter.kind not in (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD)
    ]


def _made(make: Callable[[], Any], modality: Modality, mode: Mode) -> StreamHandlerBase:
    handler = make()
    if not isinstance(handler, StreamHandlerBase):
        raise HandlerContractError(f"{make!r} must make a handler object; got {handler!r}")
    try:
        _check_suits(type(handler), handler, modality, mode)
    except TypeError as exc:
        raise HandlerContractError(str(exc)) from None
    return handler


def _copy(handler: StreamHandlerBase) -> StreamHandlerBase:
    copy: Any = handler.copy()
    if copy is handler or not isinstance(copy, type(handler)):
        got = "itself" if copy is handler else f"{type(copy).__name__} {copy!r}"
        raise HandlerContractError(
            f"{type(handler).__name__}.copy() must return a new {type(handler).__name__}; got {got}"
        )
    return copy
