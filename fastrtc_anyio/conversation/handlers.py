"""Handlers for conversations: a reply whenever the user pauses, and none that talks over them.

``ReplyOnPause(answer)`` is all there is to a voice agent: ``answer`` is a generator function that
is given what the user said and yields what is to be heard. Whoever speaks while it is heard
interrupts it: it is cancelled in the middle of whatever it does, and nothing of it is heard any
more.

The turn taking itself is :class:`.TurnMachine`; :mod:`.driver.conversation` drives it.
"""

from __future__ import annotations

import enum
import inspect
import re
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol, Self, TypeAlias, TypedDict, Unpack

import numpy as np
from numpy.typing import NDArray

from fastrtc_anyio._core.user_code import is_coroutine_function
from fastrtc_anyio._media.frames import Int16Array
from fastrtc_anyio._signaling.messages import encode_message
from fastrtc_anyio.errors import HandlerContractError
from fastrtc_anyio.handlers import Layout, StreamHandlerBase, WebRTCData
from fastrtc_anyio.speech.batch import ModelOptions, PauseDetectionModel, as_vad
from fastrtc_anyio.speech.loaders import get_stt_model
from fastrtc_anyio.speech.silero import get_silero_model
from fastrtc_anyio.speech.stt import PhraseSpotter, STTModel
from fastrtc_anyio.speech.vad import Vad

from .events import InterruptionJudge, TurnListener
from .foreground import BACKGROUND_DB
from .machine import PRE_ROLL_S
from .pause_rules import SPEECH_PROBABILITY, AlgoOptions

__all__ = [
    "AppState",
    "InputNeed",
    "ReplyOnPause",
    "ReplyOnStopWords",
]

Audio: TypeAlias = tuple[int, Int16Array]

_SETTINGS = (
    *("fn", "startup_fn", "algo_options", "model", "model_options", "can_interrupt", "needs_args"),
    *("interrupt_on", "confirm_interruption", "on_event", "pre_roll_s", "background_db"),
)
_copying: ContextVar[bool] = ContextVar("copying", default=False)
"""While a handler is made for a connection: what takes its time was done for the original."""


@dataclass
class AppState:
    """What ``determine_pause`` keeps from call to call; new for each turn.

    Attributes:
        buffer: int16, shape ``(n,)``: what was heard and is not judged yet. Setting it to None
            begins a new one.
        stream: int16, shape ``(n,)``: the utterance so far, for an algorithm that collects it.
        sampling_rate: of both, Hz.
        started_talking: whether the user has begun to talk. It has to be set for a pause to count.
        pause_detected: what the call before returned.
        responding: whether a reply goes on.
    """

    stream: NDArray[np.int16] | None = None
    sampling_rate: int = 0
    pause_detected: bool = False
    started_talking: bool = False
    responding: bool = False
    stopped: bool = False
    buffer: NDArray[np.int16] | None = None
    responded_audio: bool = False

    def new(self) -> AppState:
        """The state of the next turn."""
        return type(self)()


class InputNeed(enum.Enum):
    """What a function needs of the client's input."""

    NONE = "none"
    OPTIONAL = "optional"
    REQUIRED = "required"


class Turns(Protocol):
    """What a running conversation gives to its handler."""

    def trigger_response(self) -> None:
        """Have a reply begin now; on any thread."""


class TurnSettings(TypedDict, total=False):
    """What FastRTC does not have; see :class:`ReplyOnPause`."""

    interrupt_on: Literal["speech", "pause"]
    confirm_interruption: InterruptionJudge | None
    on_event: TurnListener | None
    pre_roll_s: float
    background_db: float


class ReplyOnPause(StreamHandlerBase):
    """Calls a function whenever the user pauses, and plays what it yields.

    Args:
        fn: a generator function, plain or async, ``((rate, samples), *inputs)``: what the user
            said, int16 of shape ``(1, n)`` at ``input_sample_rate``, and the client's inputs if it
            takes more than one argument. It yields what ``emit`` may return. A plain one runs on a
            thread. If the input is a :class:`WebRTCData`, that comes first, with the audio in it.
            On a telephone, which has no inputs, they are what the function itself last gave as
            ``AdditionalOutputs``, and None at first.
        startup_fn: the same without audio, called once at the beginning: a greeting.
        algo_options: when talking has started and when it has paused; FastRTC's defaults.
        model_options: for ``model``. Of :class:`SileroVadOptions`, the threshold.
        can_interrupt: False: the user is not heard from the moment a reply is due until it has been
            played out.
        expected_layout: of the client's audio. Turns are taken in mono.
        output_sample_rate: see :class:`StreamHandlerBase`.
        output_frame_size: deprecated, likewise.
        input_sample_rate: likewise.
        model: a :class:`Vad`, or a model as FastRTC has them; Silero's by default.
        needs_args: wait for the client's input also if ``fn`` takes one argument only.
        interrupt_on: ``"speech"``: a reply is interrupted as soon as the user starts to talk;
            ``"pause"``: once they have said something, as in FastRTC.
        confirm_interruption: judges what is said over a reply, whose playout is paused meanwhile;
            plain or async. True interrupts it, False lets it go on where it was, and None asks to
            be called again when there is more audio; that is an interruption if it is still
            undecided when the user has paused, or after 2 s. A plain one runs on a thread.
        on_event: called with every :class:`TurnEvent`, on the event loop: it must not block.
        pre_roll_s: seconds before the first speech that belong to what the user said, so that a
            soft first syllable is not cut.
        background_db: speech that is this much quieter than the user's is somebody else's: voices
            behind the user keep no turn going. Infinite: every voice is the user's.

    Raises:
        ImportError: no ``model`` is given, and what Silero's needs is not installed.
        TypeError: an argument is of the wrong kind.
        ValueError: an argument is out of range.

    Attributes:
        state: what an overridden ``determine_pause`` keeps; nothing else uses it.
    """

    def __init__(
        self,
        fn: Callable[..., Any],
        startup_fn: Callable[..., Any] | None = None,
        algo_options: AlgoOptions | None = None,
        model_options: ModelOptions = None,
        can_interrupt: bool = True,
        expected_layout: Layout = "mono",
        output_sample_rate: int = 24_000,
        output_frame_size: int | None = None,
        input_sample_rate: int = 48_000,
        model: Vad | PauseDetectionModel | None = None,
        needs_args: bool = False,
        *,
        interrupt_on: Literal["speech", "pause"] = "speech",
        confirm_interruption: InterruptionJudge | None = None,
        on_event: TurnListener | None = None,
        pre_roll_s: float = PRE_ROLL_S,
        background_db: float = BACKGROUND_DB,
    ) -> None:
        super().__init__(expected_layout, output_sample_rate, output_frame_size, input_sample_rate)
        for name, function in (
            ("fn", fn),
            ("startup_fn", startup_fn),
            ("confirm_interruption", confirm_interruption),
            ("on_event", on_event),
        ):
            if function is not None and not callable(function):
                raise TypeError(f"{name} must be a function; got {function!r}")
        for name, function in (("fn", fn), ("startup_fn", startup_fn)):
            if is_coroutine_function(function):
                raise TypeError(
                    f"{name} must be a generator function, plain or async: one that yields; "
                    f"{function!r} is a coroutine function"
                )
        if is_coroutine_function(on_event):
            raise TypeError(f"on_event must be a plain function; got {on_event!r}")
        if interrupt_on not in ("speech", "pause"):
            raise ValueError(f'interrupt_on must be "speech" or "pause"; got {interrupt_on!r}')
        numbers: dict[str, Any] = {"pre_roll_s": pre_roll_s, "background_db": background_db}
        for name, number in numbers.items():
            if isinstance(number, bool) or not isinstance(number, int | float) or not number >= 0:
                raise ValueError(f"{name} must be a number, 0 or more; got {number!r}")
        if algo_options is not None and not isinstance(algo_options, AlgoOptions):
            raise TypeError(f"algo_options must be an AlgoOptions; got {algo_options!r}")
        self.fn = fn
        self.startup_fn = startup_fn
        self.algo_options = algo_options or AlgoOptions()
        self.model_options = model_options
        self.can_interrupt = can_interrupt
        # An algorithm of one's own may do without.
        silero = model is None and not self.determines_pauses
        self.model: Any = get_silero_model() if silero else model
        self.needs_args = needs_args
        self.interrupt_on: Literal["speech", "pause"] = interrupt_on
        self.confirm_interruption = confirm_interruption
        self.on_event = on_event
        self.pre_roll_s = pre_roll_s
        self.background_db = background_db
        self.state = AppState()
        self._turns: Turns | None = None
        if not self.determines_pauses:
            _ = self.vad  # a model that is none is noticed here
        for name in ("receive", "emit", "process_audio"):
            if hasattr(self, name):
                raise TypeError(
                    f"{type(self).__name__}.{name} would never be called: override "
                    "determine_pause, give a model= that filters what it hears, or follow on_event"
                )
        self._settings = self._current_settings()

    # What it was made with: copy() makes the next one in the same way, also of a subclass.
    _made_with: tuple[tuple[Any, ...], dict[str, Any]]

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        handler = super().__new__(cls)
        handler._made_with = (args, kwargs)
        return handler

    def copy(self) -> Self:
        """Make the handler of one connection, with the arguments this one was made with, and the
        settings that were changed since."""
        args, kwargs = self._made_with
        copying = _copying.set(True)
        try:
            copy = type(self)(*args, **kwargs)
        finally:
            _copying.reset(copying)
        for name, value in self._current_settings().items():
            if value is not self._settings[name]:  # it was changed since
                setattr(copy, name, value)
        return copy

    def _current_settings(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in _SETTINGS}

    @property
    def vad(self) -> Vad:
        """The model, as a :class:`Vad`."""
        return as_vad(self.model, self.model_options, self.algo_options.audio_chunk_duration)

    @property
    def speech_probability(self) -> float:
        """From which probability on a window of audio is speech."""
        return float(getattr(self.model_options, "threshold", SPEECH_PROBABILITY))

    @property
    def determines_pauses(self) -> bool:
        """Whether a subclass has its own :meth:`determine_pause`."""
        return type(self).determine_pause is not ReplyOnPause.determine_pause

    def determine_pause(
        self, audio: NDArray[np.int16], sampling_rate: int, state: AppState
    ) -> bool:
        """Override this for an algorithm of your own: say whether the user has paused.

        It is called on a thread, with each 20 ms more. The usual algorithm does not come by here;
        this is FastRTC's, which judges one chunk of audio after the other, for who builds on it.

        Args:
            audio: int16, shape ``(n,)``: ``state.buffer``, what is not judged yet.
            sampling_rate: of it, Hz.
            state: of this turn. Set ``started_talking`` once the user talks, and ``buffer`` to None
                when it is judged.

        Returns:
            Whether the user has talked and has paused.
        """
        options = self.algo_options
        if len(audio) < options.audio_chunk_duration * sampling_rate:
            return False
        model = get_silero_model() if self.model is None else self.model
        if not hasattr(model, "vad"):
            raise HandlerContractError(
                f"FastRTC's algorithm wants a model with vad(audio, options); got {model!r}"
            )
        seconds, _ = model.vad((sampling_rate, audio), self.model_options)
        state.buffer = None
        if seconds > options.started_talking_threshold:
            state.started_talking = True
        if not state.started_talking:
            return False
        before = [] if state.stream is None else [state.stream]
        state.stream = np.concatenate([*before, audio])
        return bool(seconds < options.speech_threshold)

    def trigger_response(self) -> None:
        """Have a reply begin now, with what the user has said so far; on any thread.

        During a reply nothing happens, unless the user talks over it.

        Raises:
            RuntimeError: the session has not started, or is over.
        """
        if self._turns is None:
            raise RuntimeError("trigger_response() is for a session that is going on")
        self._turns.trigger_response()

    @property
    def reply_inputs(self) -> InputNeed:
        """Whether the client is asked for its input before a reply."""
        if self.needs_args and not self.phone_mode:
            return InputNeed.REQUIRED
        return self._input_need(self.fn, 1)

    @property
    def greeting_inputs(self) -> InputNeed:
        """Whether it is asked before the greeting."""
        return self._input_need(self.startup_fn, 0)

    def _input_need(self, function: Callable[..., Any] | None, own: int) -> InputNeed:
        if self.phone_mode or _takes(function) <= own:
            return InputNeed.NONE
        return InputNeed.REQUIRED if _requires(function) > own else InputNeed.OPTIONAL

    def reply_arguments(self, utterance: Int16Array) -> tuple[Any, ...]:
        """What ``fn`` is called with, for an utterance of int16, shape ``(1, n)``."""
        audio, inputs = (self.input_sample_rate, utterance), self._inputs()
        if inputs and isinstance(inputs[0], WebRTCData):
            data = inputs[0]
            # What was typed is answered once. The next utterance comes without it.
            self.latest_args = [WebRTCData(data.webrtc_id), *inputs[1:]]
            heard = audio if utterance.size else data.audio
            return _fitting(self.fn, (replace(data, audio=heard), *inputs[1:]))
        return _fitting(self.fn, (audio, *inputs))

    def greeting_arguments(self) -> tuple[Any, ...]:
        """What ``startup_fn`` is called with."""
        return _fitting(self.startup_fn, self._inputs())

    def _inputs(self) -> tuple[Any, ...]:
        args = self.latest_args
        return tuple(args[1:] if args[:1] == ["__webrtc_value__"] else args)


class ReplyOnStopWords(ReplyOnPause):
    """:class:`ReplyOnPause` that listens only to who says a stop word first.

    What is said after the stop word, in the same breath or after a pause however long, goes to
    ``fn``; all else is nobody's business. The client is sent ``stopword`` when one was heard.

    Args:
        fn: see :class:`ReplyOnPause`.
        stop_words: words or phrases, in any case.
        stt_model: finds the stop words: a :class:`PhraseSpotter`, or any :class:`STTModel`;
            ``get_stt_model("moonshine/base")`` by default, FastRTC's.

    The other arguments are those of :class:`ReplyOnPause`.

    Raises:
        ImportError: a model is not given, and what the default needs is not installed.
        ValueError: there is no stop word, or one that the model cannot know.
    """

    def __init__(
        self,
        fn: Callable[..., Any],
        stop_words: Sequence[str],
        startup_fn: Callable[..., Any] | None = None,
        algo_options: AlgoOptions | None = None,
        model_options: ModelOptions = None,
        can_interrupt: bool = True,
        expected_layout: Layout = "mono",
        output_sample_rate: int = 24_000,
        output_frame_size: int | None = None,
        input_sample_rate: int = 48_000,
        model: Vad | PauseDetectionModel | None = None,
        needs_args: bool = False,
        *,
        stt_model: STTModel | PhraseSpotter | None = None,
        **settings: Unpack[TurnSettings],
    ) -> None:
        if isinstance(stop_words, str) or not all(isinstance(word, str) for word in stop_words):
            raise TypeError(f"stop_words must be a list of strings; got {stop_words!r}")
        self.stop_words = [words for given in stop_words if (words := _plain(given))]
        if not self.stop_words:
            raise ValueError(f"stop_words must hold at least one word; got {stop_words!r}")
        super().__init__(
            fn,
            startup_fn,
            algo_options,
            model_options,
            can_interrupt,
            expected_layout,
            output_sample_rate,
            output_frame_size,
            input_sample_rate,
            model,
            needs_args,
            **settings,
        )
        if self.determines_pauses:
            raise TypeError(
                f"{type(self).__name__}.determine_pause would have to find the stop words as well: "
                "override find_stop_word, or derive from ReplyOnPause"
            )
        self.stt_model: Any = get_stt_model("moonshine/base") if stt_model is None else stt_model
        if hasattr(self.stt_model, "check_phrases") and not _copying.get():
            self.stt_model.check_phrases(self.stop_words)

    def stop_word_detected(self, text: str) -> bool:
        """Whether a stop word is in a text, in any case and whatever the punctuation."""
        text = _plain(text)
        return any(re.search(rf"\b{re.escape(words)}\b", text) for words in self.stop_words)

    def find_stop_word(self, audio: Audio) -> int | None:
        """Look for a stop word in audio; called on a thread.

        Args:
            audio: ``(rate, int16 (1, n))``.

        Returns:
            After how many samples the first stop word ends; None if there is none. A model that
            only transcribes cannot tell when: then that is the end of the audio.
        """
        rate, samples = audio
        if hasattr(self.stt_model, "spot"):
            seconds = self.stt_model.spot(audio, self.stop_words)
            return None if seconds is None else min(round(seconds * rate), samples.shape[1])
        return samples.shape[1] if self.stop_word_detected(self.stt_model.stt(audio)) else None

    def send_stopword(self) -> None:
        """Tell the client that a stop word was heard."""
        if self.channel is not None:
            self.channel.send(encode_message("stopword", ""))


def _plain(text: str) -> str:
    """Words alone, in lower case."""
    return " ".join(re.findall(r"[\w']+", text.lower()))


def _positional(function: Callable[..., Any]) -> list[inspect.Parameter]:
    return [
        parameter
        for parameter in inspect.signature(function).parameters.values()
        if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD)
    ]


def _takes(function: Callable[..., Any] | None) -> int:
    """How many positional arguments a function takes; a great many for ``*args``."""
    if function is None:
        return 0
    kinds = {parameter.kind for parameter in inspect.signature(function).parameters.values()}
    return 1000 if inspect.Parameter.VAR_POSITIONAL in kinds else len(_positional(function))


def _requires(function: Callable[..., Any] | None) -> int:
    """How many positional arguments a function cannot be called without."""
    return 0 if function is None else sum(p.default is p.empty for p in _positional(function))


def _fitting(function: Callable[..., Any] | None, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    """As many of the arguments as it takes; None for those it wants beyond."""
    if function is None:
        return ()
    missing = _requires(function) - len(arguments)
    return (arguments + (None,) * missing)[: _takes(function)]
