"""Heard text of a reply, its transcript and its captions, on virtual time."""

from __future__ import annotations

import json
import math
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import aclosing
from typing import Any

import anyio
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastrtc_anyio import (
    AdditionalOutputs,
    CloseStream,
    ReplyFinished,
    ReplyInterrupted,
    TranscriptEntry,
    get_current_context,
    note_speech,
    run_sync,
)
from fastrtc_anyio._media.frames import Int16Array
from fastrtc_anyio.audio import audio_to_float32, audio_to_int16
from fastrtc_anyio.conversation.events import InterruptionRejected
from fastrtc_anyio.conversation.heard import TOLERANCE_S, cut_text
from fastrtc_anyio.speech.notes import Part, Sentence, note_audio
from fastrtc_anyio.speech.tts import PAUSE_S, SentenceTTS, TTSOptions
from fastrtc_anyio.testing import Call, open_call
from tests.kit.conversations import AGENTS, OUT, Log, agent, say, silence, voice, words

ONE, TWO, THREE = "This is the first sentence.", "Here is another.", "And now the last one."
TEXT = f"{ONE} {TWO} {THREE}"
PER_CHARACTER_S = 0.0493  # no word ends with a frame
ONE_S, TWO_S, THREE_S = (len(text) * PER_CHARACTER_S for text in (ONE, TWO, THREE))
TEXT_S = ONE_S + TWO_S + THREE_S + 2 * PAUSE_S


class Voice(SentenceTTS[TTSOptions]):
    """Speaks each character for the same time, without a thread."""

    def __init__(self, rate: int = OUT) -> None:
        self.rate = rate

    def speak(self, sentence: str, options: TTSOptions | None) -> tuple[int, Int16Array]:
        count = round(len(sentence) * PER_CHARACTER_S * self.rate)
        return self.rate, np.full((1, count), 5000, np.int16)

    async def speak_async(
        self, sentence: str, options: TTSOptions | None
    ) -> tuple[int, Int16Array]:
        await anyio.lowlevel.checkpoint()
        return self.speak(sentence, options)


VOICE = Voice()


async def streamed() -> AsyncGenerator[Any, None]:
    async with aclosing(VOICE.stream_tts(TEXT)) as speech:
        async for chunk in speech:
            yield chunk


def plain() -> Generator[Any, None, None]:
    yield from VOICE.stream_tts_sync(TEXT)


async def whole() -> AsyncGenerator[Any, None]:
    yield await run_sync(VOICE.tts, TEXT), AdditionalOutputs("spoken")


async def in_frames() -> AsyncGenerator[Any, None]:
    async for rate, samples in VOICE.stream_tts(TEXT):
        for start in range(0, samples.shape[1], 480):
            yield rate, samples[:, start : start + 480]


async def converted() -> AsyncGenerator[Any, None]:
    async for rate, samples in VOICE.stream_tts(TEXT):
        yield rate, audio_to_int16(audio_to_float32(samples))


async def resampled() -> AsyncGenerator[Any, None]:
    async for chunk in Voice(22_050).stream_tts(TEXT):
        yield chunk


async def ahead() -> AsyncGenerator[Any, None]:
    """One task for each sentence: the last one is complete first."""
    spoken: dict[str, Any] = {}
    done = {text: anyio.Event() for text in (ONE, TWO, THREE)}

    async def speak(text: str, wait: float) -> None:
        await anyio.sleep(wait)
        spoken[text] = await run_sync(VOICE.tts, text)
        done[text].set()

    async with anyio.create_task_group() as tasks:
        for text, wait in ((ONE, 0.03), (TWO, 0.02), (THREE, 0.01)):
            tasks.start_soon(speak, text, wait)
    for text in (ONE, TWO, THREE):
        await done[text].wait()
        yield spoken[text]
        if text != THREE:
            yield OUT, np.full((1, round(PAUSE_S * OUT)), 1, np.int16)


async def noted() -> AsyncGenerator[Any, None]:
    for text, pause in ((ONE, 0.0), (TWO, PAUSE_S), (THREE, PAUSE_S)):
        if pause:
            note_speech("", pause)
            yield words(pause)
        seconds = len(text) * PER_CHARACTER_S
        note_speech(text, seconds)
        yield words(seconds)


CACHED = [*VOICE.stream_tts_sync(TEXT)]


async def cached() -> AsyncGenerator[Any, None]:
    for chunk in CACHED:
        yield chunk


WAYS = [streamed, plain, whole, in_frames, converted, resampled, ahead, noted, cached]
ways = pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)


def replying(way: Callable[[], Any]) -> Callable[[Any], Any]:
    """Make a reply function: plain for a plain generator function."""
    if way is not plain:

        async def reply(audio: Any) -> AsyncGenerator[Any, None]:
            async with aclosing(way()) as speech:
                async for chunk in speech:
                    yield chunk

        return reply

    def reply_plain(audio: Any) -> Generator[Any, None, None]:
        yield from way()

    return reply_plain


def expected(seconds: float) -> str:
    """The text of the first seconds of the audio, worked out word by word."""
    heard, begin = [], 0.0
    for sentence in (ONE, TWO, THREE):
        end = 0
        for word in sentence.split():
            end = sentence.index(word, end) + len(word)
            if begin + end * PER_CHARACTER_S <= seconds + TOLERANCE_S:
                heard.append(word)
        begin += len(sentence) * PER_CHARACTER_S + PAUSE_S
    return " ".join(heard)


def transcripts(call: Call) -> list[dict[str, Any]]:
    """The transcript messages that the client has received."""
    received = [json.loads(text) for text in call.client.inbox._inbox]
    return [message["data"] for message in received if message["type"] == "transcript"]


@ways
async def test_finished_reply_has_the_whole_text(way: Any) -> None:
    log = Log()
    async with open_call(agent(replying(way), on_event=log)) as call:
        await say(call, voice(1), silence(5.5))
        assert [*call.session.transcript] == [TranscriptEntry("assistant", TEXT)]
    (finished,) = log.of(ReplyFinished)
    assert finished.text == TEXT
    assert finished.played.seconds == pytest.approx(TEXT_S, abs=0.001)


@ways
@pytest.mark.parametrize("after", [0.6, 1.4, 2.1, 3.3])
async def test_interrupted_reply_has_the_words_that_were_played(way: Any, after: float) -> None:
    log = Log()
    async with open_call(agent(replying(way), on_event=log)) as call:
        await say(call, voice(1), silence(0.5 + after), voice(0.3))
        (interrupted,) = log.of(ReplyInterrupted)
        assert interrupted.text == expected(interrupted.played.seconds)
        assert interrupted.text
        assert interrupted.text != TEXT
        assert call.session.transcript.messages() == [
            {"role": "assistant", "content": interrupted.text}
        ]


@pytest.mark.parametrize("offset", range(0, 2000, 70))
async def test_interruption_at_any_time(offset: int) -> None:
    log = Log()
    async with open_call(agent(replying(streamed), on_event=log)) as call:
        await say(call, voice(1), silence(0.6 + offset / 1000), voice(0.3))
    (interrupted,) = log.of(ReplyInterrupted)
    assert interrupted.text == expected(interrupted.played.seconds)


async def test_rejected_interruption_loses_no_text() -> None:
    async def reject(interruption: Any) -> bool:
        await anyio.sleep(0.5)
        return False

    log = Log()
    handler = agent(replying(streamed), on_event=log, confirm_interruption=reject)
    async with open_call(handler) as call:
        await say(call, voice(1), silence(1.5), voice(0.2), silence(6))
        messages = transcripts(call)
    assert log.of(InterruptionRejected)
    assert log.of(ReplyFinished)[0].text == TEXT
    assert [message.get("sentence") for message in messages] == [ONE, TWO, THREE, None]
    assert "interrupted" not in messages[-1]


async def test_reply_without_text_has_none_and_sends_nothing() -> None:
    async def reply(audio: Any) -> AsyncGenerator[Any, None]:
        yield words(1)

    log = Log()
    async with open_call(agent(reply, on_event=log)) as call:
        await say(call, voice(1), silence(2))
        assert log.of(ReplyFinished)[0].text == ""
        assert len(call.session.transcript) == 0
        assert transcripts(call) == []


async def test_interruption_before_the_first_word_adds_nothing() -> None:
    async def reply(audio: Any) -> AsyncGenerator[Any, None]:
        get_current_context()  # in the task of the session
        handler.send_transcript("user", "Hello?")
        await anyio.sleep(1)
        async for chunk in VOICE.stream_tts(TEXT):
            yield chunk

    log = Log()
    handler = agent(reply, on_event=log)
    async with open_call(handler) as call:
        await say(call, voice(1), silence(0.8), voice(0.4), silence(0.6))
        assert log.of(ReplyInterrupted)[0].text == ""
        assert call.session.transcript.messages("Be brief.") == [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Hello? Hello?"},
        ]


async def test_listener_sees_the_text_in_the_transcript() -> None:
    seen: list[Any] = []

    def listen(event: Any) -> None:
        if isinstance(event, ReplyFinished | ReplyInterrupted):
            seen.append((event.text, call.session.transcript.messages()[-1]["content"]))

    async with open_call(agent(replying(streamed), on_event=listen)) as call:
        await say(call, voice(1), silence(1.5), voice(1), silence(6))
    assert [text for text, _ in seen] == [entry.text for entry in call.session.transcript]
    assert seen[1] == (TEXT, f"{seen[0][0]} {TEXT}")


async def test_captions_arrive_when_their_sentences_are_played() -> None:
    log = Log()
    async with open_call(agent(replying(streamed), on_event=log)) as call:
        counts = []
        await say(call, voice(1))
        for _ in range(300):
            await say(call, silence(0.02))
            counts.append((len(transcripts(call)), np.count_nonzero(call.heard) / OUT))
        messages = transcripts(call)
    assert messages == [
        {
            "id": "reply-1",
            "role": "assistant",
            "text": text,
            "final": False,
            "sentence": sentence,
            "seconds": pytest.approx(len(sentence) * PER_CHARACTER_S, abs=0.001),
        }
        for sentence, text in ((ONE, ONE), (TWO, f"{ONE} {TWO}"), (THREE, TEXT))
    ] + [{"id": "reply-1", "role": "assistant", "text": TEXT, "final": True}]
    starts = [next(heard for count, heard in counts if count >= n) for n in (2, 3)]
    silent = PAUSE_S  # zero samples, which count_nonzero leaves out
    assert starts[0] + silent == pytest.approx(ONE_S + PAUSE_S, abs=0.06)
    assert starts[1] + 2 * silent == pytest.approx(ONE_S + TWO_S + 2 * PAUSE_S, abs=0.06)


async def test_interrupted_reply_ends_its_caption() -> None:
    async with open_call(agent(replying(streamed))) as call:
        await say(call, voice(1), silence(1.5), voice(0.3))
        first, last = transcripts(call)
    assert first["text"] == first["sentence"] == ONE
    assert last == {
        "id": "reply-1",
        "role": "assistant",
        "text": cut_text(ONE, 1.1, ONE_S),
        "final": True,
        "interrupted": True,
    }


@AGENTS
async def test_greeting_has_a_text(asynchronous: bool) -> None:
    log = Log()
    greet = streamed if asynchronous else plain
    async with open_call(agent(replying(streamed), startup_fn=greet, on_event=log)) as call:
        await say(call, silence(2), voice(0.3))
        assert log.of(ReplyInterrupted)[0].text == expected(2.1)
        assert call.session.transcript.messages()[0]["role"] == "assistant"


async def test_hang_up_during_a_reply_adds_the_words_played() -> None:
    log = Log()
    async with open_call(agent(replying(streamed), on_event=log)) as call:
        await say(call, voice(1), silence(2))
    assert log.kinds[-1] == "ReplyStarted"
    (entry,) = call.session.transcript
    assert entry.text == expected(np.count_nonzero(call.heard) / OUT)


async def test_goodbye_has_its_whole_text() -> None:
    async def reply(audio: Any) -> AsyncGenerator[Any, None]:
        async for chunk in VOICE.stream_tts(ONE):
            yield chunk
        yield CloseStream("Goodbye.")

    log = Log()
    async with open_call(agent(reply, on_event=log)) as call:
        await say(call, voice(1), silence(1))
        await call.ended.wait()
    assert log.of(ReplyFinished)[0].text == ONE
    assert [entry.text for entry in call.session.transcript] == [ONE]


@AGENTS
async def test_hang_up_counts_the_audio_that_was_queued(asynchronous: bool) -> None:
    def reply(audio: Any) -> Generator[Any, None, None]:
        yield from VOICE.stream_tts_sync(ONE)
        handler.hang_up()
        yield from VOICE.stream_tts_sync(TWO)

    async def reply_async(audio: Any) -> AsyncGenerator[Any, None]:
        for chunk in reply(audio):
            yield chunk

    log = Log()
    handler = agent(reply_async if asynchronous else reply, on_event=log)
    async with open_call(handler) as call:
        await say(call, voice(1), silence(3))
        await call.ended.wait()
    assert log.of(ReplyFinished)[0].text == ONE
    assert [entry.text for entry in call.session.transcript] == [ONE]


async def test_dropped_audio_is_not_heard() -> None:
    async def reply(audio: Any) -> AsyncGenerator[Any, None]:
        async for chunk in VOICE.stream_tts(f"{ONE} {TWO}"):
            yield chunk
        await anyio.sleep(1)
        played.append(handler.clear_queue().seconds)
        async for chunk in VOICE.stream_tts(THREE):
            yield chunk

    log, played = Log(), list[float]()
    handler = agent(reply, on_event=log)
    async with open_call(handler) as call:
        await say(call, voice(1), silence(4))
    assert log.of(ReplyFinished)[0].text == f"{cut_text(ONE, played[0], ONE_S)} {THREE}"
    assert ONE not in log.of(ReplyFinished)[0].text


async def test_dropped_music_does_not_delay_the_text() -> None:
    async def reply(audio: Any) -> AsyncGenerator[Any, None]:
        yield words(3)  # until the answer is ready
        await anyio.sleep(0.5)
        handler.clear_queue()
        async for chunk in streamed():
            yield chunk

    log = Log()
    handler = agent(reply, on_event=log)
    async with open_call(handler) as call:
        await say(call, voice(1), silence(0.6 + 0.5 + 1.7), voice(0.4), silence(6.5))
    (interrupted,), (finished,) = log.of(ReplyInterrupted), log.of(ReplyFinished)
    assert interrupted.text == expected(interrupted.played.seconds - 0.5)
    assert finished.text == TEXT


OPERATIONS = st.one_of(
    st.tuples(st.just("music"), st.floats(0.1, 2)),
    st.tuples(st.just("speak"), st.integers(1, 5)),  # words
    st.tuples(st.just("note"), st.integers(1, 5)),
    st.tuples(st.just("wait"), st.floats(0, 1.5)),
    st.tuples(st.just("clear"), st.floats(0, 0.5)),
)


@settings(max_examples=15)
@given(operations=st.lists(OPERATIONS, min_size=4, max_size=12), end=st.floats(0.5, 10))
async def test_text_is_that_of_the_samples_that_arrived(
    operations: list[tuple[str, Any]], end: float
) -> None:
    """Each word has four letters, and each sentence its own level."""
    sentences: list[str] = []
    seconds_of = 5 * PER_CHARACTER_S

    async def reply(audio: Any) -> AsyncGenerator[Any, None]:
        for name, value in operations:
            if name == "music":
                yield OUT, np.full((1, round(value * OUT)), 99, np.int16)
            elif name in ("speak", "note"):
                prefix = chr(ord("a") + len(sentences))
                text = " ".join(f"{prefix}{i:03}" for i in range(value))
                sentences.append(text)
                seconds = value * seconds_of
                samples = np.full((1, round(seconds * OUT)), 100 + len(sentences), np.int16)
                if name == "speak":
                    note_audio(samples, [Part(Sentence(text, seconds), seconds)])
                else:
                    note_speech(text, seconds)
                yield OUT, samples
            else:
                await anyio.sleep(value)
                if name == "clear":
                    handler.clear_queue()

    log = Log()
    handler = agent(reply, on_event=log)
    async with open_call(handler) as call:
        await say(call, voice(1), silence(0.5 + end), voice(0.3))
        await anyio.sleep(0.1)
        heard = call.heard
    (over,) = [*log.of(ReplyInterrupted), *log.of(ReplyFinished)][:1]
    for number, text in enumerate(sentences):
        seconds = np.count_nonzero(heard == 101 + number) / OUT
        fewest, most = (int((seconds + slack) / seconds_of + 0.2) for slack in (-0.08, 0.08))
        count = over.text.count(text[0])
        assert fewest <= count <= max(most, 0), (text, seconds, over)


async def test_other_sound_has_no_text() -> None:
    async def reply(audio: Any) -> AsyncGenerator[Any, None]:
        spoken = VOICE.tts(ONE)  # ahead of the jingle
        yield words(1.5)
        yield spoken
        yield words(1.5)

    log = Log()
    async with open_call(agent(reply, on_event=log)) as call:
        await say(call, voice(1), silence(2), voice(0.4), silence(0.1))
        assert log.of(ReplyInterrupted)[0].text == cut_text(ONE, 0.1 + 0.02, ONE_S)


async def test_note_without_duration() -> None:
    async def reply(audio: Any) -> AsyncGenerator[Any, None]:
        for text in (ONE, TWO):
            note_speech(text)
            for _ in range(10):
                yield words(0.1)

    log = Log()
    async with open_call(agent(reply, on_event=log)) as call:
        await say(call, voice(1), silence(4))
    assert log.of(ReplyFinished)[0].text == f"{ONE} {TWO}"


async def test_note_without_duration_is_measured_once_all_audio_is_queued() -> None:
    text = "The voice speaks this sentence twice as fast as other voices do."

    async def reply(audio: Any) -> AsyncGenerator[Any, None]:
        note_speech(text)
        yield words(2)

    log = Log()
    async with open_call(agent(reply, on_event=log)) as call:
        await say(call, voice(1), silence(0.6 + 1.5), voice(0.3))
    (interrupted,) = log.of(ReplyInterrupted)
    assert interrupted.text == cut_text(text, interrupted.played.seconds, 2.0)
    assert interrupted.played.seconds < 2


async def test_reply_of_a_receiving_session_is_not_heard() -> None:
    log = Log()
    async with open_call(agent(replying(streamed), on_event=log), mode="send") as call:
        await say(call, voice(1), silence(2))
        assert log.of(ReplyFinished)[0].text == ""
        assert transcripts(call) == []


class TestSendTranscript:
    @AGENTS
    async def test_any_thread_may_send(self, asynchronous: bool) -> None:
        def reply(audio: Any) -> Generator[Any, None, None]:
            handler.send_transcript("user", " What time is it? ")
            handler.send_transcript("user", "  ")
            yield from VOICE.stream_tts_sync(ONE)

        async def reply_async(audio: Any) -> AsyncGenerator[Any, None]:
            for chunk in reply(audio):
                yield chunk

        handler = agent(reply_async if asynchronous else reply)
        async with open_call(handler) as call:
            await say(call, voice(1), silence(3))
            assert [*call.session.transcript] == [
                TranscriptEntry("user", "What time is it?"),
                TranscriptEntry("assistant", ONE),
            ]
            first, *_, last = transcripts(call)
        assert first == {"id": "said-1", "role": "user", "text": "What time is it?", "final": True}
        assert last["text"] == ONE

    async def test_session_function_may_send(self) -> None:
        async def serve(session: Any) -> None:
            await run_sync(session.send_transcript, "user", "Hello.")
            await anyio.sleep_forever()

        async with open_call(serve) as call:
            with anyio.fail_after(10):
                while not transcripts(call):
                    await anyio.sleep(0.1)
            assert len(call.session.transcript) == 1

    def test_handler_without_a_session_raises(self) -> None:
        with pytest.raises(RuntimeError, match="send_transcript exists once the session"):
            agent(replying(streamed)).send_transcript("user", "Hello.")


def test_note_outside_a_reply_has_no_effect() -> None:
    note_speech("Hello.", 1.0)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: note_speech(1), TypeError, "text must be a str"),  # type: ignore[arg-type]
        (lambda: note_speech("a", -1), ValueError, "seconds must be a number at least 0; got -1"),
        (lambda: note_speech("a", math.inf), ValueError, "seconds must be"),
    ],
)
def test_note_speech_checks_its_arguments(
    call: Callable[[], None], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        call()
