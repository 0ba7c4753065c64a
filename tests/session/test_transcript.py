"""The transcript of a session, and its messages to the client."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Callable
from typing import Any, cast

import numpy as np
import pytest
from anyio import create_task_group

from fastrtc_anyio import (
    ReplyOnPause,
    Session,
    Transcript,
    TranscriptEntry,
    note_speech,
)
from fastrtc_anyio._driver import HandlerDriver
from fastrtc_anyio._wire.events import Framing, Text
from fastrtc_anyio._wire.fastrtc import FastRTCFraming
from fastrtc_anyio._wire.payload import AudioEncoding
from fastrtc_anyio._wire.twilio import TwilioFraming
from tests.kit.conversations import agent, silence, voice, words
from tests.kit.websocket_clients import Client, open_pair

PCM = AudioEncoding("pcm16", 24_000)


async def answer(audio: Any) -> AsyncGenerator[Any, None]:
    for text in ("One two.", "Three four."):
        note_speech(text, 1.0)
        yield words(1.0)


def received(client: Client) -> list[dict[str, Any]]:
    texts = [event.text for event in client.events if isinstance(event, Text)]
    messages = [json.loads(text) for text in texts]
    return [message["data"] for message in messages if message["type"] == "transcript"]


async def converse(
    make_framing: Callable[[], Framing], handler: ReplyOnPause, **settings: Any
) -> tuple[Session, list[dict[str, Any]]]:
    """Speak to a handler over a WebSocket, and interrupt its reply after 1.5 s."""
    async with open_pair(make_framing, **settings) as (peer, client), create_task_group() as tasks:
        session = Session(peer, HandlerDriver(handler))
        tasks.start_soon(session.run)
        tasks.start_soon(client.listen)
        said = np.concatenate([voice(1), silence(2), voice(0.3), silence(0.1)], axis=1)
        await client.speak(said, 16_000)
        messages = received(client)
        tasks.cancel_scope.cancel()
    return session, messages


async def test_websocket_client_receives_captions() -> None:
    session, messages = await converse(FastRTCFraming, agent(answer), encoding=PCM)
    same = {"id": "reply-1", "role": "assistant"}
    first = {"text": "One two.", "final": False, "sentence": "One two.", "seconds": 1.0}
    second = first | {"text": "One two. Three four.", "sentence": "Three four."}
    assert messages == [
        same | first,
        same | second,
        same | {"text": "One two. Three", "final": True, "interrupted": True},
    ]
    assert session.transcript.messages() == [{"role": "assistant", "content": "One two. Three"}]


async def test_telephone_receives_no_messages_and_session_has_the_text() -> None:
    handler = agent(answer)
    handler.phone_mode = True
    session, messages = await converse(TwilioFraming, handler)
    assert messages == []
    # A carrier's marks confirm the audio every 0.1 s.
    assert session.transcript.messages() == [{"role": "assistant", "content": "One two. Three"}]


def test_entries_of_one_role_become_one_message() -> None:
    transcript = Transcript()
    transcript.add("assistant", "Hello! ")
    transcript.add("user", "Wait,")
    transcript.add("assistant", " \n")
    transcript.add("user", "what is that?")
    assert [*transcript] == [
        TranscriptEntry("assistant", "Hello!"),
        TranscriptEntry("user", "Wait,"),
        TranscriptEntry("user", "what is that?"),
    ]
    assert len(transcript) == 3
    assert transcript.messages() == [
        {"role": "assistant", "content": "Hello!"},
        {"role": "user", "content": "Wait, what is that?"},
    ]


def test_system_message_stays_first_and_apart() -> None:
    transcript = Transcript()
    assert transcript.messages() == []
    transcript.add("system", "The user is in a hurry.")
    assert transcript.messages("Be brief.") == [
        {"role": "system", "content": "Be brief."},
        {"role": "system", "content": "The user is in a hurry."},
    ]


def test_system_message_must_be_text() -> None:
    with pytest.raises(TypeError, match="system must be a str or None; got 5"):
        Transcript().messages(cast(Any, 5))


def test_messages_are_copies() -> None:
    transcript = Transcript()
    transcript.add("user", "Hello.")
    transcript.messages()[0]["content"] = "changed"
    assert transcript.messages() == [{"role": "user", "content": "Hello."}]


@pytest.mark.parametrize(
    ("role", "text", "error"), [("", "a", ValueError), (1, "a", TypeError), ("user", 1, TypeError)]
)
def test_arguments_are_checked(role: Any, text: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="must be a str"):
        Transcript().add(role, text)
