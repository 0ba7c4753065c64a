"""Call the observers of a stream, and contain their errors."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Generator, Iterable
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager
from typing import Concatenate, ParamSpec

from anyio import current_time

from fastrtc_anyio._core.log import logger
from fastrtc_anyio._core.options import short_repr
from fastrtc_anyio._core.user_code import is_coroutine_function
from fastrtc_anyio._media.playout import Played
from fastrtc_anyio._observation import Reply, ReplyEnd, Turn
from fastrtc_anyio._overload import as_overloaded
from fastrtc_anyio._user_code import user_code
from fastrtc_anyio.session import Session

from .observer import ObservedStream, Observer, refusal_reason

P = ParamSpec("P")

_NOTHING_PLAYED = Played(0, 0.0)


class Observers:
    """The observers of one stream.

    Raises:
        TypeError: one is not an :class:`.Observer`, or a method of one is a coroutine function.
        ValueError: one is listed twice.
    """

    def __init__(self, observers: Iterable[object] = ()) -> None:
        if not isinstance(observers, Iterable):
            raise TypeError(f"observers must be a list of observers; got {short_repr(observers)}")
        self._observers = tuple(_check(observer) for observer in observers)
        for number, one in enumerate(self._observers):
            if any(one is other for other in self._observers[:number]):
                raise ValueError(f"observers must not list one twice; got {short_repr(one)}")

    def __bool__(self) -> bool:
        return bool(self._observers)

    def __iter__(self) -> Generator[Observer, None, None]:
        yield from self._observers

    def overridden(self, name: str) -> list[Observer]:
        """Return the observers that override a method."""
        return [one for one in self._observers if _overrides(one, name)]

    def call(
        self, method: Callable[Concatenate[Observer, P], object], *args: P.args, **kwargs: P.kwargs
    ) -> None:
        """Call a method of the observers that override it."""
        name = method.__name__
        for one in self.overridden(name):
            with contained(one, name):
                getattr(one, name)(*args, **kwargs)

    @contextmanager
    def enter(
        self,
        method: Callable[Concatenate[Observer, P], AbstractContextManager[object]],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> Generator[None, None, None]:
        """Enter what a method of the observers returns, in their order, and leave it in reverse."""
        name = method.__name__
        entered: list[tuple[Observer, AbstractContextManager[object]]] = []
        for one in self.overridden(name):
            with contained(one, name):
                manager = getattr(one, name)(*args, **kwargs)
                manager.__enter__()
                entered.append((one, manager))
        try:
            yield
        finally:
            for one, manager in reversed(entered):
                with contained(one, name):
                    manager.__exit__(None, None, None)

    @asynccontextmanager
    async def observe(self, stream: ObservedStream) -> AsyncGenerator[None, None]:
        """Report that a stream opens now, and that it closes at the end of the block."""
        self.call(Observer.stream_opened, stream)
        try:
            yield
        finally:
            self.call(Observer.stream_closed, stream)

    @contextmanager
    def watch_refusals(self, errors: type[Exception] = Exception) -> Generator[None, None, None]:
        """Report an error of one of these classes that the block raises as a refusal."""
        try:
            yield
        except errors as exc:
            if self._observers:
                error = as_overloaded(exc) or exc
                self.call(Observer.refused, refusal_reason(error), error)
            raise

    def admit(self, session: Session) -> None:
        """Report that a session was admitted, and observe it, if there are observers."""
        if self._observers:
            session.observation = ObservedSession(self, session)


class ObservedSession:
    """The observers of one session: a :class:`.SessionObservation`."""

    def __init__(self, observers: Observers, session: Session) -> None:
        self._observers = observers
        self._session = session
        self._admitted_at = current_time()
        self._connected_at: float | None = None
        self._turn: Turn | None = None
        self._replies: dict[int, tuple[Reply, float]] = {}
        """Replies that have not ended, with the times at which they were due."""
        observers.call(Observer.session_admitted, session)

    def connected(self) -> None:
        self._connected_at = current_time()
        seconds = self._connected_at - self._admitted_at
        self._observers.call(Observer.session_connected, self._session, seconds)

    def ended(self) -> None:
        self._session.observation = None  # nothing is reported afterwards, and no cycle is left
        for number in list(self._replies):  # of code that ignores its cancellation
            self.reply_ended(number, ReplyEnd.CUT_OFF, _NOTHING_PLAYED)
        connected_at = self._connected_at
        seconds = None if connected_at is None else current_time() - connected_at
        self._observers.call(Observer.session_ended, self._session, seconds)

    def turn_ended(self, turn: Turn) -> None:
        self._turn = turn
        self._observers.call(Observer.turn_ended, self._session, turn)

    def reply_started(self, number: int) -> None:
        turn, self._turn = self._turn, None
        reply = Reply(number, turn)
        self._replies[number] = reply, current_time()
        self._observers.call(Observer.reply_started, self._session, reply)

    def reply_audible(self, number: int) -> None:
        if number not in self._replies:
            return
        reply, due = self._replies[number]
        latency = current_time() - due
        self._observers.call(Observer.reply_audible, self._session, reply, latency)

    def reply_ended(self, number: int, end: ReplyEnd, played: Played) -> None:
        if number not in self._replies:
            return
        reply, _ = self._replies.pop(number)
        self._observers.call(Observer.reply_ended, self._session, reply, end, played)

    def in_session(self) -> AbstractContextManager[object]:
        return self._observers.enter(Observer.in_session, self._session)

    def in_reply(self, number: int) -> AbstractContextManager[object]:
        reply, _ = self._replies[number]
        return self._observers.enter(Observer.in_reply, self._session, reply)


@contextmanager
def contained(observer: Observer, method: str) -> Generator[None, None, None]:
    """Log an error of an observer instead of raising it."""
    source = f"{type(observer).__name__}.{method}"
    try:
        with user_code(source):
            yield
    except (Exception, GeneratorExit):  # the latter is raised by the observer: nothing waits here
        logger.exception("the observer %s failed", source, event="observer.failed")


_METHODS = [name for name in vars(Observer) if not name.startswith("_")]


def _overrides(observer: Observer, name: str) -> bool:
    # An attribute of the object itself overrides the method, too.
    function: object = getattr(getattr(observer, name), "__func__", None)
    return function is not getattr(Observer, name)


def _check(observer: object) -> Observer:
    if not isinstance(observer, Observer):
        raise TypeError(
            "observers must be instances of fastrtc_anyio.observability.Observer; got "
            f"{short_repr(observer)}"
        )
    for name in _METHODS:
        if is_coroutine_function(getattr(observer, name)):
            source = f"{type(observer).__name__}.{name}"
            raise TypeError(f"{source} must be a plain function (def): observers do not wait")
    return observer
