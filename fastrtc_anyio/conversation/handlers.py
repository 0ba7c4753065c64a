"""Handlers for conversations: a reply whenever the user pauses.

:class:`.TurnMachine` decides about turns; :mod:`fastrtc_anyio._driver.conversation` drives it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextvars import ContextVar
from dataclasses import replace
from functools import partial
from typing import Any, Literal, Self, TypeAlias, TypedDict, Unpack

import numpy as np
from numpy.typing import NDArray

from fastrtc_anyio._core.options import check_choice, check_number, check_type
from fastrtc_anyio._media.frames import Int16Array
from fastrtc_anyio._signaling.messages import encode_message
from fastrtc_anyio.errors import HandlerContractError
from fastrtc_anyio.handlers import StreamHandlerBase, WebRTCData
from fastrtc_anyio.handlers.emit_types import Layout, client_inputs
from fastrtc_anyio.speech.batch import ModelOptions, PauseDetectionModel, as_vad
from fastrtc_anyio.speech.loaders import get_stt_model
from fastrtc_anyio.speech.silero import get_silero_model
from fastrtc_anyio.speech.stt import PhraseSpotter, STTModel
from fastrtc_anyio.speech.vad import Vad

from .custom_rule import AppState
from .events import InterruptionJudge, TurnListener
from .foreground import BACKGROUND_DB
from .machine import PRE_ROLL_S
from .pause_rules import SPEECH_PROBABILITY, AlgoOptions
from .phrases import contains_phrase, spoken_words
from .reply_calls import InputNeed, ReplyCall, check_functions, fit_arguments, input_need

__all__ = ["ReplyOnPause", "ReplyOnStopWords", "TurnSettings"]

Audio: TypeAlias = tuple[int, Int16Array]

_SETTINGS = (
    *("fn", "startup_fn", "algo_options", "model", "model_options", "can_interrupt", "needs_args"),
    *("interrupt_on", "confirm_interruption", "on_event", "pre_roll_s", "background_db"),
)
_copying: ContextVar[bool] = ContextVar("copying", default=False)
"""Set while :meth:`ReplyOnPause.copy` makes a handler: the original has done the slow checks."""


class TurnSettings(TypedDict, total=False):
    """Settings that FastRTC does not have; see :class:`ReplyOnPause`."""

    interrupt_on: Literal["speech", "pause"]
    confirm_interruption: InterruptionJudge | None
    on_event: TurnListener | None
    pre_roll_s: float
    background_db: float


class ReplyOnPause(StreamHandlerBase):
    """Call a function whenever the user pauses, and play the audio it yields.

    ``ReplyOnPause(answer)`` is a complete voice agent. A user who speaks over the reply interrupts
    it: the function is cancelled wherever it waits, and the client hears no more of the reply.

    Args:
        fn: a generator function, plain or async, ``((rate, samples), *inputs)``. It receives the
            utterance, int16 of shape ``(1, n)`` at ``input_sample_rate``, and, if it takes more
            than one argument, the client's inputs. It yields the values that ``emit`` may return. A
            plain function runs on a thread. If the first input is a :class:`WebRTCData`, the
            function receives it first, with the audio in it. A telephone has no inputs: the
            function then receives the values of its last ``AdditionalOutputs``, None at first.
        startup_fn: a generator function without the audio argument, called once at the beginning:
            a greeting.
        algo_options: thresholds for the start of speech and for a pause; FastRTC's defaults.
        model_options: options for ``model``. Only the threshold of :class:`SileroVadOptions` has an
            effect.
        can_interrupt: whether to listen during a reply. If False, the handler ignores the user from
            the moment a reply is due until it has been played out.
        expected_layout: layout of the client's audio. Turn taking uses mono.
        output_sample_rate, output_frame_size, input_sample_rate: see :class:`StreamHandlerBase`.
        model: a :class:`Vad`, or a model with FastRTC's interface; Silero by default.
        needs_args: whether to wait for the client's input even if ``fn`` takes one argument.
        interrupt_on: ``"speech"``: the user interrupts a reply by starting to speak. ``"pause"``:
            the user interrupts it by pausing after speech, as in FastRTC.
        confirm_interruption: judges speech over a reply, plain or async. Playout is paused until it
            decides. True interrupts the reply and False continues it. None requests another call
            once there is more audio; it counts as True once the user has paused, or after 2 s. A
            plain function runs on a thread.
        on_event: called with every :class:`TurnEvent`, on the event loop: it must not block.
        pre_roll_s: seconds before the first speech that belong to an utterance, so that a soft
            first syllable is included.
        background_db: level difference in dB from which speech belongs to a background voice.
            Background voices keep no turn going. Infinity: all voices are the user's.

    Raises:
        ImportError: ``model`` is not given, and the packages that Silero needs are not installed.
        TypeError: an argument has the wrong type.
        ValueError: an argument is out of range.

    Attributes:
        state: state of an overridden ``determine_pause``; not used otherwise.
        speech_detected: whether the user has spoken in this call, as far as ``model`` can tell.
    """

    def __init__(
        self,
        fn: Callable[..., object],
        startup_fn: Callable[..., object] | None = None,
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
        check_functions(fn, startup_fn, confirm_interruption, on_event)
        check_choice("interrupt_on", interrupt_on, ("speech", "pause"))
        check_number("pre_roll_s", pre_roll_s, at_least=0, unit="s")
        check_number("background_db", background_db, at_least=0, finite=False, unit="dB")
        check_type("algo_options", algo_options, AlgoOptions, optional=True)
        self.fn = fn
        self.startup_fn = startup_fn
        self.algo_options: AlgoOptions = algo_options or AlgoOptions()
        self.model_options = model_options
        self.can_interrupt = can_interrupt
        # A custom determine_pause may need no model.
        silero = model is None and not self.determines_pauses
        self.model: Vad | PauseDetectionModel | None = get_silero_model() if silero else model
        self.needs_args = needs_args
        self.interrupt_on: Literal["speech", "pause"] = interrupt_on
        self.confirm_interruption = confirm_interruption
        self.on_event = on_event
        self.pre_roll_s = pre_roll_s
        self.background_db = background_db
        self.state: AppState = AppState()
        self.speech_detected: bool = False
        self._trigger: Callable[[], object] | None = None
        if not self.determines_pauses:
            _ = self.vad  # raises for an object that is not a model
        for name in ("receive", "emit", "process_audio"):
            if hasattr(self, name):
                raise TypeError(
                    f"{type(self).__name__}.{name} would never be called: override "
                    "determine_pause, pass a model= that filters its input, or use on_event"
                )
        self._settings = self._current_settings()

    # The arguments of this object, so that copy() can make a subclass with any signature.
    _made_with: tuple[tuple[Any, ...], dict[str, Any]]

    def __new__(cls, *args: object, **kwargs: object) -> Self:
        handler = super().__new__(cls)
        handler._made_with = (args, kwargs)
        return handler

    def copy(self) -> Self:
        """Make the handler of one connection: with the arguments of this one, and with the settings
        that were changed since."""
        args, kwargs = self._made_with
        copying = _copying.set(True)
        try:
            copy = type(self)(*args, **kwargs)
        finally:
            _copying.reset(copying)
        for name, value in self._current_settings().items():
            if value is not self._settings[name]:
                setattr(copy, name, value)
        return copy

    def _current_settings(self) -> dict[str, object]:
        return {name: getattr(self, name) for name in _SETTINGS}

    @property
    def vad(self) -> Vad:
        """The model as a :class:`Vad`."""
        return as_vad(self.model, self.model_options, self.algo_options.audio_chunk_duration)

    @property
    def speech_probability(self) -> float:
        """Probability from which a window of audio counts as speech."""
        return float(getattr(self.model_options, "threshold", SPEECH_PROBABILITY))

    @property
    def determines_pauses(self) -> bool:
        """Whether a subclass overrides :meth:`determine_pause`."""
        return type(self).determine_pause is not ReplyOnPause.determine_pause

    def determine_pause(
        self, audio: NDArray[np.int16], sampling_rate: int, state: AppState
    ) -> bool:
        """Return whether the user has paused. Override this method for a custom algorithm.

        It is called on a thread after every 20 ms of audio. The default algorithm does not use this
        method. This implementation is FastRTC's algorithm, which judges consecutive chunks of
        audio, for subclasses that build on it.

        Args:
            audio: int16, shape ``(n,)``: ``state.buffer``, the audio not judged yet.
            sampling_rate: rate of the audio in Hz.
            state: state of this turn. Set ``started_talking`` once the user speaks, and ``buffer``
                to None once the audio is judged.

        Returns:
            Whether the user has spoken and has paused.
        """
        options = self.algo_options
        if len(audio) < options.audio_chunk_duration * sampling_rate:
            return False
        model: object = get_silero_model() if self.model is None else self.model
        vad = getattr(model, "vad", None)
        if vad is None:
            raise HandlerContractError(
                f"model must have vad(audio, options) for FastRTC's algorithm; got {model!r}"
            )
        seconds, _ = vad((sampling_rate, audio), self.model_options)
        state.buffer = None
        if seconds > options.started_talking_threshold:
            state.started_talking = True
        if not state.started_talking:
            return False
        before = [] if state.stream is None else [state.stream]
        state.stream = np.concatenate([*before, audio])
        return bool(seconds < options.speech_threshold)

    def trigger_response(self) -> None:
        """Reply now, to the utterance in progress or to an empty one. Any thread may call this.

        No effect during a reply, unless the user speaks over it.

        Raises:
            RuntimeError: the session has not started or has ended.
        """
        if self._trigger is None:
            raise RuntimeError("trigger_response() requires an active session")
        self._trigger()

    def set_trigger(
        self,
        trigger: Callable[[], object] | None,
        stop: Callable[[int], object] = lambda number: None,
    ) -> None:
        """Set the functions that start a reply and stop one. Called by the session."""
        self._trigger = trigger
        self.stop_reply: Callable[[int], object] = stop

    def reply_call(self, utterance: Int16Array) -> ReplyCall:
        """Prepare the call of ``fn`` with an utterance: int16, shape ``(1, n)``."""
        if self.phone_mode:
            need = InputNeed.NONE
        else:
            need = InputNeed.REQUIRED if self.needs_args else input_need(self.fn, 1)
        return ReplyCall(self.fn, need, partial(self._reply_arguments, utterance))

    def greeting_call(self) -> ReplyCall | None:
        """Prepare the call of ``startup_fn``; None if there is none."""
        function = self.startup_fn
        if function is None:
            return None
        need = InputNeed.NONE if self.phone_mode else input_need(function, 0)
        return ReplyCall(
            function, need, lambda: fit_arguments(function, client_inputs(self.latest_args))
        )

    def _reply_arguments(self, utterance: Int16Array) -> tuple[object, ...]:
        audio, inputs = (self.input_sample_rate, utterance), client_inputs(self.latest_args)
        if inputs and isinstance(inputs[0], WebRTCData):
            data = inputs[0]
            # Typed text belongs to one reply: the next utterance comes without it.
            self.latest_args: list[Any] = [WebRTCData(data.webrtc_id), *inputs[1:]]
            heard = audio if utterance.size else data.audio
            return fit_arguments(self.fn, (replace(data, audio=heard), *inputs[1:]))
        return fit_arguments(self.fn, (audio, *inputs))


class ReplyOnStopWords(ReplyOnPause):
    """:class:`ReplyOnPause` that replies only after a stop word.

    ``fn`` receives the speech after the stop word, said in the same breath or after a pause of any
    length. The handler ignores all other speech. The client receives the message ``stopword`` when
    a stop word is found.

    Args:
        fn: see :class:`ReplyOnPause`.
        stop_words: words or phrases; see :meth:`stop_word_detected`.
        stt_model: finds the stop words: a :class:`PhraseSpotter` or an :class:`STTModel`;
            ``get_stt_model("moonshine/base")`` by default, as in FastRTC.

    The other arguments are those of :class:`ReplyOnPause`.

    Raises:
        ImportError: a model is not given, and the packages that the default needs are not
            installed.
        TypeError: an argument has the wrong type.
        ValueError: ``stop_words`` is empty or holds one without a letter or digit, or the model
            cannot recognise one of them.
    """

    def __init__(
        self,
        fn: Callable[..., object],
        stop_words: Sequence[str],
        startup_fn: Callable[..., object] | None = None,
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
        self.stop_words: list[str] = [spoken_words(given) for given in stop_words]
        if not self.stop_words or not all(self.stop_words):
            raise ValueError(
                "stop_words must hold at least one phrase, each of at least one word; got "
                f"{stop_words!r}"
            )
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
        self.stt_model: STTModel | PhraseSpotter = (
            get_stt_model("moonshine/base") if stt_model is None else stt_model
        )
        # Looking up words reads files, which copy() must not do on the event loop.
        check_phrases = getattr(self.stt_model, "check_phrases", None)
        if check_phrases is not None and not _copying.get():
            check_phrases(self.stop_words)

    def stop_word_detected(self, text: str) -> bool:
        """Return whether a text contains a stop word as whole words.

        Ignores case, punctuation, Unicode normal forms and vowel points. In scripts without spaces
        a stop word may be anywhere; in Korean a particle may follow.
        """
        return any(contains_phrase(text, words) for words in self.stop_words)

    def find_stop_word(self, audio: Audio) -> int | None:
        """Search audio for a stop word; called on a thread.

        Args:
            audio: ``(rate, int16 (1, n))``.

        Returns:
            Number of samples up to the end of the first stop word, or None. For a model that only
            transcribes, that is the end of the audio.
        """
        rate, samples = audio
        model = self.stt_model
        if isinstance(model, PhraseSpotter):
            seconds = model.spot(audio, self.stop_words)
            return None if seconds is None else min(round(seconds * rate), samples.shape[1])
        return samples.shape[1] if self.stop_word_detected(model.stt(audio)) else None

    def send_stopword(self) -> None:
        """Send the client the message ``stopword``."""
        if self.channel is not None:
            self.channel.send(encode_message("stopword", ""))
