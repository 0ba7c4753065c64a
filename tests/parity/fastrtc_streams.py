"""Programs with the shapes of FastRTC's demos: Gradio's components, services, and their streams.

Services are stand-ins. Each function returns a new stream, as the module of a program would.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Generator
from typing import Any

import numpy as np

from fastrtc_anyio import (
    AdditionalOutputs,
    AlgoOptions,
    CloseStream,
    ReplyOnPause,
    ReplyOnStopWords,
    SileroVadOptions,
    Stream,
    WebRTCError,
    get_current_context,
)
from fastrtc_anyio.utils import aggregate_bytes_to_16bit, audio_to_bytes, audio_to_float32
from tests.kit import gradio_shapes as gr

from .fastrtc_handlers import (
    RATE,
    VOICE,
    ArgumentsHandler,
    PictureHandler,
    ServiceHandler,
    StreamingHandler,
    TaskHandler,
)

TURN = {"iceServers": {"urls": ["turn:turn.example"], "username": "u", "credential": "c"}}


def recognise(audio: tuple[int, Any]) -> str:
    """A speech-to-text service that takes a file."""
    assert audio[1].shape[0] == 1
    assert len(audio_to_bytes(audio)) > 1000
    return "what is new"


async def load_turn() -> dict[str, Any]:
    return TURN


def echo() -> Stream:
    def detection(audio: tuple[int, Any]) -> Generator[Any]:
        yield audio

    return Stream(
        handler=ReplyOnPause(detection),
        modality="audio",
        mode="send-receive",
        rtc_configuration=None,
        concurrency_limit=5,
        time_limit=90,
    )


def tuned_agent() -> Stream:
    """Options of turn taking; float samples made from the bytes of a service."""

    def reply(audio: tuple[int, Any]) -> Generator[Any]:
        assert recognise(audio)
        for chunk in (VOICE.tobytes()[:8000], VOICE.tobytes()[8000:]):
            yield RATE, audio_to_float32(np.frombuffer(chunk, np.int16))

    algo = AlgoOptions(
        audio_chunk_duration=0.5, started_talking_threshold=0.1, speech_threshold=0.03
    )
    silero = SileroVadOptions(threshold=0.6, min_speech_duration_ms=250, speech_pad_ms=400)
    handler = ReplyOnPause(reply, algo_options=algo, model_options=silero)
    return Stream(handler, modality="audio", mode="send-receive")


def voice_chat() -> Stream:
    """The conversation is an input and an output; the service streams odd pieces of bytes."""

    def response(
        audio: tuple[int, Any], chatbot: list[dict[str, Any]] | None = None
    ) -> Generator[Any]:
        chatbot = chatbot or []
        chatbot.append({"role": "user", "content": recognise(audio)})
        yield AdditionalOutputs(chatbot)
        chatbot.append({"role": "assistant", "content": f"reply {len(chatbot)}"})
        data = VOICE.tobytes()
        for chunk in aggregate_bytes_to_16bit(iter([data[:777], data[777:]])):
            yield RATE, np.frombuffer(chunk, dtype=np.int16).reshape(1, -1)
        yield AdditionalOutputs(chatbot)

    chatbot = gr.Chatbot(type="messages")
    return Stream(
        modality="audio",
        mode="send-receive",
        handler=ReplyOnPause(response, input_sample_rate=16_000),
        additional_outputs_handler=lambda _old, new: new,
        additional_inputs=[chatbot],
        additional_outputs=[chatbot],
        rtc_configuration=load_turn,
        server_rtc_configuration=TURN,
        ui_args={"title": "Voice chat", "pulse_color": "#fff", "icon_radius": 0},
    )


def chat_with_token() -> Stream:
    """One conversation for each session; an input without which the reply fails."""
    conversations: dict[str, list[dict[str, str]]] = {}

    def response(audio: tuple[int, Any], token: str | None) -> Generator[Any]:
        if not token:
            raise WebRTCError("a token is required")
        messages = conversations.setdefault(get_current_context().webrtc_id, [])
        messages.append({"role": "user", "content": recognise(audio)})
        messages.append({"role": "assistant", "content": "fine"})
        yield RATE, VOICE
        yield AdditionalOutputs(messages)

    return Stream(
        modality="audio",
        mode="send-receive",
        handler=ReplyOnPause(response),
        rtc_configuration=lambda: TURN,
        additional_inputs=[gr.Textbox("secret", label="HF Token", type="password")],
        additional_outputs=[gr.Chatbot(label="Chatbot", type="messages")],
        additional_outputs_handler=lambda _old, new: new,
        time_limit=90,
        concurrency_limit=5,
    )


def chat_with_state(handler: Callable[..., Any] = ReplyOnPause, **options: Any) -> Stream:
    """A conversation with components in its messages, and a state that the page does not show."""

    def response(
        audio: tuple[int, Any],
        chatbot: list[dict[str, Any]] | None = None,
        state: list[dict[str, str]] | None = None,
    ) -> Generator[Any]:
        chatbot, state = chatbot or [], state or []
        rate, samples = audio
        chatbot.append({"role": "user", "content": gr.Audio((rate, samples.squeeze()))})
        yield AdditionalOutputs(chatbot, state)
        state.append({"role": "user", "content": recognise(audio)})
        state.append({"role": "assistant", "content": f"reply {len(state)}"})
        chatbot.append(state[-1])
        yield AdditionalOutputs(chatbot, state)

    chatbot, state = gr.Chatbot([], type="messages"), gr.State([])
    return Stream(
        handler(response, input_sample_rate=16_000, **options),
        mode="send",
        modality="audio",
        additional_inputs=[chatbot, state],
        additional_outputs=[chatbot, state],
        additional_outputs_handler=lambda *a: (a[2], a[3]),
        concurrency_limit=None,
    )


class Spotter:
    """Finds a stop word in any recording."""

    def stt(self, audio: tuple[int, Any]) -> str:
        return "hello computer"


def stop_word() -> Stream:
    return chat_with_state(ReplyOnStopWords, stop_words=["computer"], stt_model=Spotter())


def captions() -> Stream:
    """A choice of models, and a text that each reply extends."""

    def stt(audio: tuple[int, Any], model: str, captions: str) -> Generator[Any]:
        samples = audio_to_float32(audio)
        assert samples.dtype == np.float32
        yield AdditionalOutputs(f"{captions}\n{model} heard something".strip())

    text = gr.Textbox(label="Captions")
    models = gr.Radio(choices=["large", "tiny"], value="tiny", label="Model")
    return Stream(
        ReplyOnPause(stt, input_sample_rate=16_000),
        modality="audio",
        mode="send",
        rtc_configuration=TURN,
        additional_inputs=[models, text],
        additional_outputs=[text],
        additional_outputs_handler=lambda before, now: f"{before}\n{now}".strip(),
    )


def text_editor() -> Stream:
    """An async reply about a text that the user can edit."""

    async def edit(audio: tuple[int, Any], document: str) -> AsyncGenerator[Any]:
        yield AdditionalOutputs(document + recognise(audio) + "; ")

    document = gr.Textbox(value="", label="Current Document")
    return Stream(
        ReplyOnPause(edit),
        modality="audio",
        mode="send",
        additional_inputs=[document],
        additional_outputs=[document],
        additional_outputs_handler=lambda _before, now: now,
    )


def interview() -> Stream:
    """A greeting before the first turn, a second output as JSON, and an end by the agent."""

    def start_up() -> Generator[Any]:
        assert get_current_context().webrtc_id
        yield RATE, VOICE
        yield AdditionalOutputs({"role": "assistant", "content": "hello"}, ["greeted"])

    def response(audio: tuple[int, Any]) -> Generator[Any]:
        yield AdditionalOutputs({"role": "user", "content": recognise(audio)})
        yield RATE, VOICE
        yield CloseStream()

    def update(
        chatbot: list[Any], _old: Any, new: Any, conversation: Any = None
    ) -> tuple[Any, Any]:
        chatbot.append(new)
        return chatbot, conversation

    chatbot = gr.Chatbot(type="messages")
    return Stream(
        ReplyOnPause(response, start_up),
        mode="send-receive",
        modality="audio",
        additional_inputs=[chatbot],
        additional_outputs=[chatbot, gr.JSON(label="Conversation")],
        additional_outputs_handler=update,
    )


def append(chatbot: list[Any], message: Any) -> list[Any]:
    chatbot.append(message)
    return chatbot


def realtime(handler: type[ServiceHandler] = ServiceHandler) -> Stream:
    chatbot = gr.Chatbot(type="messages")
    return Stream(
        handler(),
        mode="send-receive",
        modality="audio",
        additional_inputs=[chatbot],
        additional_outputs=[chatbot],
        additional_outputs_handler=append,
    )


def realtime_in_task() -> Stream:
    return realtime(TaskHandler)


def realtime_with_arguments() -> Stream:
    return Stream(
        handler=ArgumentsHandler(),
        mode="send-receive",
        modality="audio",
        additional_inputs=[
            gr.Textbox(label="API Key", type="password", value="secret"),
            gr.Dropdown(choices=["Bo"], value="Ada", label="Voice", info="of the agent"),
        ],
        additional_outputs=[gr.Chatbot([], type="messages")],
        additional_outputs_handler=append,
        concurrency_limit=20,
    )


def realtime_stream() -> Stream:
    return Stream(StreamingHandler(), modality="audio", mode="send-receive")


def pictures() -> Stream:
    return Stream(
        handler=PictureHandler(),
        modality="audio-video",
        mode="send-receive",
        additional_inputs=[gr.Image(label="Image", type="numpy", sources=["upload"])],
        ui_args={"icon": "https://example.com/icon.png", "title": "Pictures"},
    )


def detection() -> Stream:
    """A function of a picture and a number; the outputs are decoration."""

    def detect(image: Any, threshold: float = 0.3) -> Any:
        assert threshold == 0.4
        return np.where(image > 255 * threshold, 255, 0).astype(np.uint8)

    return Stream(
        handler=detect,
        modality="video",
        mode="send-receive",
        additional_inputs=[gr.Slider(minimum=0, maximum=1, step=0.01, value=0.4)],
        additional_outputs=[gr.Markdown("# Detection", elem_classes=["title"]), gr.HTML("<b>")],
        additional_outputs_handler=lambda shown: shown,
        concurrency_limit=2,
    )
