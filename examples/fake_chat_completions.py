"""A server that pretends to be a language model: it streams prepared answers word by word.

It speaks the stream of OpenAI's chat completions, needs no key and runs offline. Run it alone, or
let ``llm_agent.py --demo`` start it.
"""

import json
from dataclasses import dataclass

import anyio
from starlette.applications import Starlette
from starlette.responses import StreamingResponse
from starlette.routing import Route

from fastrtc_anyio.server.launch import open_server, wait_for_interrupt

THINKING = 0.3  # seconds before the first word
SECONDS_PER_WORD = 0.04
ANSWERS = {
    "train station": "Go down this street as far as the river. Cross the old bridge, and keep to "
    "the left. After the church you will see a tall clock. The station is right behind it.",
    "count to ten": "One, two, three, four, five, six, seven, eight, nine, ten.",
}


@dataclass
class Completion:
    """A request, and how far its answer has come."""

    messages: list[dict[str, str]]
    words_sent: int = 0
    finished: bool = False
    closed: bool = False  # by the client, or after the last word


completions: list[Completion] = []


async def complete(request):
    body = await request.json()
    completion = Completion(body["messages"])
    completions.append(completion)
    return StreamingResponse(write(completion), media_type="text/event-stream")


async def write(completion):
    questions = [one["content"] for one in completion.messages if one["role"] == "user"]
    try:
        await anyio.sleep(THINKING)
        yield event({"role": "assistant", "content": ""})
        for word in choose_answer(questions).split():
            yield event({"content": f"{word} "})
            completion.words_sent += 1
            await anyio.sleep(SECONDS_PER_WORD)
        completion.finished = True
        yield event({}) + "data: [DONE]\n\n"
    finally:
        completion.closed = True


def choose_answer(questions):
    for phrase, text in ANSWERS.items():
        if phrase in questions[-1]:
            return text
    return f"You said: {questions[-1]}. I only pretend to think. You spoke {len(questions)} times."


def event(delta):
    choice = {"index": 0, "delta": delta, "finish_reason": None if delta else "stop"}
    return f"data: {json.dumps({'object': 'chat.completion.chunk', 'choices': [choice]})}\n\n"


app = Starlette(routes=[Route("/v1/chat/completions", complete, methods=["POST"])])


async def main():
    async with open_server(app, port=8001) as url:
        await wait_for_interrupt(f"OPENAI_BASE_URL={url}/v1. Ctrl-C ends it.")


if __name__ == "__main__":
    anyio.run(main, backend="trio")
