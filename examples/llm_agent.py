"""A voice agent on a language model: any endpoint that speaks OpenAI's chat completions.

It needs a program and some packages:

    apt install espeak-ng
    pip install 'fastrtc-anyio[voice]' httpx
    python examples/llm_agent.py --demo             # talk to a model that only pretends
    python examples/llm_agent.py --model llama3.2 --base-url http://127.0.0.1:11434/v1
    python examples/llm_agent.py --demo --headless  # call it with recorded speech

The address and the key are by default OPENAI_BASE_URL and OPENAI_API_KEY of the environment. The
model's first sentence is spoken while it writes the second. Speaking over the answer closes the
request, and the history holds only the words heard. It survives a lost connection.
"""

import argparse
import json
import logging
import os
import wave
from contextlib import ExitStack, aclosing, suppress
from pathlib import Path

import anyio
import httpx
import numpy as np
import trio
from anyio.from_thread import start_blocking_portal

from fastrtc_anyio import (
    ReplyFinished,
    ReplyInterrupted,
    ReplyOnPause,
    Stream,
    Warning,
    get_current_context,
    get_stt_model,
    get_tts_model,
    run_sync,
    testing,
)
from fastrtc_anyio.server.launch import open_server

SYSTEM = "You talk on the telephone. Answer in a few short sentences, without lists or markup."
SORRY = "Sorry, I cannot reach my language model. Please try again."

environment = os.environ.get
parser = argparse.ArgumentParser(description="A voice agent on a language model.")
parser.add_argument(
    "--base-url", default=environment("OPENAI_BASE_URL", "https://api.openai.com/v1")
)
parser.add_argument("--api-key", default=environment("OPENAI_API_KEY", "none"))
parser.add_argument("--model", default=environment("OPENAI_MODEL", "gpt-4o-mini"))
parser.add_argument("--stt", default="pocketsphinx", help="speech to text: see get_stt_model")
parser.add_argument("--tts", default="espeak-ng", help="text to speech: see get_tts_model")
parser.add_argument("--demo", action="store_true", help="use fake_chat_completions.py")
parser.add_argument("--headless", action="store_true", help="call it with recorded speech")
options = parser.parse_args(None if __name__ == "__main__" else [])

# One client for all calls, so that connections stay open between answers.
http = httpx.AsyncClient(
    base_url=options.base_url,
    headers={"Authorization": f"Bearer {options.api_key}"},
    timeout=httpx.Timeout(30, connect=5),
)


async def answer(audio):
    """Answer an utterance; called at each pause, cancelled when the user interrupts."""
    session = get_current_context().session
    recall(session)
    text = await run_sync(get_stt_model(options.stt).stt, audio)
    if text:
        session.send_transcript("user", text)
        words = complete(session.transcript.messages(system=SYSTEM))
        async with aclosing(get_tts_model(options.tts).stream_tts(words)) as speech:
            async for chunk in speech:
                yield chunk


def keep(event):
    """Save the end of the conversation, for the next call if the connection of this one is lost."""
    if isinstance(event, ReplyFinished | ReplyInterrupted):
        session = get_current_context().session
        session.save_nowait(session.transcript.messages()[-40:])


def recall(session):
    """Take over the conversation of a lost call."""
    if session.resumed_from and not session.transcript:
        for message in session.resumed_from.value:
            session.transcript.add(message["role"], message["content"])


async def complete(messages):
    """Yield the model's answer in pieces, as the model writes it, or else an apology."""
    request = {"model": options.model, "messages": messages, "stream": True}
    try:
        async with http.stream("POST", "chat/completions", json=request) as response:
            if not response.is_success:
                raise ModelError(f"{response.status_code} {(await response.aread())[:500]!r}")
            chunks, rest = response.aiter_text(), ""
            try:
                async for chunk in chunks:
                    # aiter_lines() also ends lines at U+2028, which a text in JSON may contain.
                    *lines, rest = (rest + chunk).split("\n")
                    for line in lines:
                        yield read_piece(line)
                yield read_piece(rest)
            finally:
                # Only their end closes the generators inside httpx's: read on after closing.
                await response.aclose()
                with suppress(httpx.HTTPError):
                    async for _ in chunks:
                        pass
    except (httpx.HTTPError, ModelError) as exc:
        logging.error("no answer from %s: %s", http.base_url, str(exc) or repr(exc))
        Warning("The language model does not answer.")  # on the page
        yield f"\n\n{SORRY}"


class ModelError(Exception):
    """The endpoint refused the request, or did not send a stream of completions."""


def read_piece(line):
    """Return the text in one line of a stream of server-sent events."""
    field, _, value = line.strip().partition(":")
    if field in ("", "event", "id", "retry") or value.strip() == "[DONE]":
        return ""
    try:
        choices = json.loads(value)["choices"]  # none in the last event, which counts tokens
        text = choices[0]["delta"].get("content") if choices else None
        if not isinstance(text, str | None):
            raise TypeError
        return text or ""
    except (AttributeError, LookupError, TypeError, ValueError):
        raise ModelError(f"expected an event of a completion; got {line[:500]!r}") from None


stream = Stream(
    ReplyOnPause(answer, on_event=keep),
    modality="audio",
    mode="send-receive",
    ui_args={"title": "Language model"},
)


async def call_agent():
    """Ask a question, interrupt the answer with another question, and print the conversation."""
    async with testing.open_call(stream.handler) as call:
        with anyio.move_on_after(60):
            await call.speak(*read("stop_words_caller.wav", 0.5, 3.5))
            while not call.heard.any():
                await anyio.sleep(0.1)
            await anyio.sleep(2)
            await call.speak(*read("caller.wav", 8.0, 10.0))
            while len(call.session.transcript) < 4:
                await anyio.sleep(0.1)
    for role, text in call.session.transcript:
        print(f"{role}: {text}")


def read(name, start, end):
    """Return a part of a recording, and its rate."""
    with wave.open(str(Path(__file__).with_name(name))) as file:
        rate = file.getframerate()
        samples = np.frombuffer(file.readframes(file.getnframes()), np.int16)
    return samples[np.newaxis, round(start * rate) : round(end * rate)], rate


def main():
    get_stt_model(options.stt)  # load them before the first call
    get_tts_model(options.tts)
    with ExitStack() as stack:
        if options.demo:
            import fake_chat_completions

            portal = stack.enter_context(start_blocking_portal("trio"))
            server = portal.wrap_async_context_manager(open_server(fake_chat_completions.app))
            http.base_url = f"{stack.enter_context(server)}/v1"
        if options.headless:
            trio.run(call_agent)
        else:
            stream.launch()


if __name__ == "__main__":
    main()
