"""Spans, as OpenTelemetry's SDK exports them."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator
from typing import Any

import anyio
import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from fastrtc_anyio.observability import Tracing
from fastrtc_anyio.testing import open_call
from tests.kit.conversations import AGENTS, HOP, agent, answering, say, silence, voice, words


class Spans:
    """A tracer provider that keeps the spans, and the tracing that uses it, on virtual time."""

    def __init__(self) -> None:
        self._exporter = InMemorySpanExporter()
        self.provider = TracerProvider(shutdown_on_exit=False)
        self.provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.tracing = Tracing(self.provider, clock=lambda: round(anyio.current_time() * 1e9))

    def of(self, name: str) -> list[ReadableSpan]:
        return [span for span in self._exporter.get_finished_spans() if span.name == name]


def attributes(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


def seconds(span: ReadableSpan) -> float:
    assert span.end_time is not None
    assert span.start_time is not None
    return (span.end_time - span.start_time) / 1e9


def is_child(span: ReadableSpan, parent: ReadableSpan) -> bool:
    assert parent.context is not None
    return span.parent is not None and span.parent.span_id == parent.context.span_id


async def test_spans_of_a_conversation() -> None:
    spans = Spans()
    handler = agent(answering(0.4), startup_fn=lambda: answering(0.1)(None))
    async with open_call(handler, observers=[spans.tracing]) as call:
        await say(call, silence(0.5), voice(1.024), silence(2))
        session_id = call.session.log_id
    (session,) = spans.of("fastrtc.session")
    (turn,) = spans.of("fastrtc.turn")
    greeting, reply = spans.of("fastrtc.reply")
    assert attributes(session) == {
        "fastrtc.session.id": session_id,
        "fastrtc.session.connect_seconds": pytest.approx(0, abs=0.01),
        "fastrtc.session.close_reason": "hung_up",
    }
    assert [event.name for event in session.events] == ["fastrtc.connected"]
    assert session.parent is None
    assert session.status.status_code is trace.StatusCode.UNSET
    assert attributes(turn)["fastrtc.turn.number"] == 2
    assert attributes(turn)["fastrtc.turn.latency_seconds"] == pytest.approx(0.5, abs=HOP)
    utterance = attributes(turn)["fastrtc.turn.utterance_seconds"]
    # The turn begins with the audio of its utterance, and ends with its reply.
    assert seconds(turn) == pytest.approx(utterance + seconds(reply), abs=0.001)
    assert is_child(turn, session)
    assert is_child(reply, turn)
    assert is_child(greeting, session)
    assert attributes(greeting)["fastrtc.reply.number"] == 1
    assert attributes(reply) == {
        "fastrtc.reply.number": 2,
        "fastrtc.reply.latency_seconds": pytest.approx(0, abs=0.001),
        "fastrtc.reply.end": "finished",
        "fastrtc.reply.played_seconds": pytest.approx(0.4, abs=0.02),
    }
    assert [event.name for event in reply.events] == ["fastrtc.audible"]
    assert seconds(reply) == pytest.approx(0.4, abs=0.05)


async def test_span_of_an_interrupted_reply_ends_with_its_turn() -> None:
    spans = Spans()
    async with open_call(agent(answering(5)), observers=[spans.tracing]) as call:
        await say(call, voice(1), silence(1.5), voice(1), silence(1.5))
    first, second = spans.of("fastrtc.reply")
    assert attributes(first)["fastrtc.reply.end"] == "interrupted"
    assert attributes(second)["fastrtc.reply.end"] == "cut_off"
    turns = {attributes(turn)["fastrtc.turn.number"]: turn for turn in spans.of("fastrtc.turn")}
    assert turns[1].end_time == first.end_time
    assert turns[2].end_time == second.end_time


async def test_error_of_a_reply_marks_its_span_and_that_of_the_session() -> None:
    spans = Spans()

    async def fail(audio: Any) -> AsyncGenerator[Any, None]:
        yield words(0.1)
        raise LookupError("no answer")

    async with open_call(agent(fail), observers=[spans.tracing], raise_errors=False) as call:
        await say(call, voice(1), silence(1.5))
    (session,), (reply,) = spans.of("fastrtc.session"), spans.of("fastrtc.reply")
    assert attributes(reply)["fastrtc.reply.end"] == "failed"
    assert reply.status.status_code is trace.StatusCode.ERROR
    assert attributes(session)["fastrtc.session.close_reason"] == "handler_error"
    assert session.status.status_code is trace.StatusCode.ERROR
    (raised,) = [event for event in session.events if event.name == "exception"]
    assert (raised.attributes or {})["exception.type"] == "LookupError"


@AGENTS
async def test_spans_of_a_reply_function_are_children_of_the_reply(asynchronous: bool) -> None:
    spans = Spans()
    tracer = spans.provider.get_tracer("the application")

    async def reply_async(audio: Any) -> AsyncGenerator[Any, None]:
        with tracer.start_as_current_span("model"):
            await anyio.sleep(0.1)
        yield words(0.1)

    def reply(audio: Any) -> Generator[Any, None, None]:
        with tracer.start_as_current_span("model"):
            pass
        yield words(0.1)

    handler = agent(reply_async if asynchronous else reply)
    async with open_call(handler, observers=[spans.tracing]) as call:
        await say(call, voice(1), silence(1.5))
    (model,), (span,) = spans.of("model"), spans.of("fastrtc.reply")
    assert is_child(model, span)


async def test_spans_of_a_handler_are_children_of_the_session() -> None:
    spans = Spans()
    tracer = spans.provider.get_tracer("the application")

    async def serve(session: Any) -> None:
        with tracer.start_as_current_span("look up"):
            await anyio.sleep(0.1)

    async with open_call(serve, observers=[spans.tracing]) as call:
        await call.ended.wait()
    (found,), (session,) = spans.of("look up"), spans.of("fastrtc.session")
    assert is_child(found, session)


async def test_session_is_a_child_of_the_span_that_began_it() -> None:
    spans = Spans()
    with spans.provider.get_tracer("the server").start_as_current_span("POST /webrtc/offer"):
        async with open_call(agent(answering(0.2)), observers=[spans.tracing]):
            pass
    (session,), (request,) = spans.of("fastrtc.session"), spans.of("POST /webrtc/offer")
    assert is_child(session, request)
    assert not trace.get_current_span().get_span_context().is_valid


def test_global_provider_is_the_default() -> None:
    Tracing()


def test_arguments_are_checked() -> None:
    unsuitable: Any = 3
    with pytest.raises(TypeError, match="tracer_provider must be a TracerProvider or None; got 3"):
        Tracing(unsuitable)
    with pytest.raises(TypeError, match="clock must be a function; got 3"):
        Tracing(clock=unsuitable)


class Unprintable(Exception):
    def __str__(self) -> str:
        raise ZeroDivisionError


async def test_span_ends_though_the_error_of_its_handler_has_no_text() -> None:
    spans = Spans()

    async def serve(session: Any) -> None:
        raise Unprintable

    async with open_call(serve, observers=[spans.tracing], raise_errors=False) as call:
        await call.ended.wait()
    (session,) = spans.of("fastrtc.session")
    assert not session.status.is_ok
    assert attributes(session)["fastrtc.session.close_reason"] == "handler_error"
    assert spans.tracing._live == {}
