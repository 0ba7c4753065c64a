"""Cartesia's voice, against a local server that imitates the service."""

from __future__ import annotations

import gc
import traceback
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import Any, cast

import anyio
import anyio.lowlevel
import httpx
import numpy as np
import pytest
from anyio import to_thread
from numpy.typing import NDArray
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from fastrtc_anyio import CartesiaTTSOptions, get_tts_model
from fastrtc_anyio.server import open_server
from fastrtc_anyio.speech.cartesia import CartesiaTTSModel
from fastrtc_anyio.speech.notes import find_note
from tests.kit.backends import anyio_backend as anyio_backend

KEY = "sk_car_0123456789"
SECONDS = 10


def samples_of(sentence: str) -> NDArray[np.int16]:
    """The speech of a sentence: as many samples as it has characters, ten times."""
    return 100 * (np.arange(10 * len(sentence), dtype=np.int16) - 50)


class Service:
    """Answers every request with the speech of its transcript, in pieces of ``cuts`` bytes."""

    def __init__(self, cuts: Sequence[int] = (7, 1, 2, 1000)) -> None:
        self.bodies: list[Any] = []
        self.headers: list[Any] = []
        self.cuts = cuts
        self.refusal: Response | None = None
        self.go_on = anyio.Event()
        self.go_on.set()
        self.closed = anyio.Event()

    async def answer(self, request: Request) -> Response:
        self.bodies.append(await request.json())
        self.headers.append(request.headers)
        if self.refusal is not None:
            return self.refusal
        speech = self.speak(self.bodies[-1]["transcript"])
        return StreamingResponse(speech, media_type="audio/pcm")

    async def speak(self, sentence: str) -> AsyncGenerator[bytes, None]:
        data = samples_of(sentence).astype("<i2").tobytes()
        try:
            for cut in self.cuts:
                yield data[:cut]
                data = data[cut:]
                await self.go_on.wait()
        finally:
            self.closed.set()


@asynccontextmanager
async def serve(service: Service) -> AsyncGenerator[CartesiaTTSModel, None]:
    app = Starlette(routes=[Route("/v/tts/bytes", service.answer, methods=["POST"])])
    async with open_server(app) as url:
        yield CartesiaTTSModel(KEY, base_url=f"{url}/v/")


async def collect(speech: AsyncGenerator[Any, None]) -> tuple[int, NDArray[np.int16]]:
    with anyio.fail_after(SECONDS):
        async with aclosing(speech):
            pieces = [piece async for piece in speech]
    assert all(samples.dtype == np.int16 and samples.shape[0] == 1 for _, samples in pieces)
    assert len({rate for rate, _ in pieces}) == 1
    return pieces[0][0], np.concatenate([samples for _, samples in pieces], axis=1)


async def test_pieces_of_odd_size_are_joined_and_request_has_all_options() -> None:
    service = Service()
    options = CartesiaTTSOptions(voice="a-b", language="de", model="sonic-turbo", sample_rate=16000)
    async with serve(service) as model:
        rate, samples = await collect(model.stream_tts("Guten Tag.", options))
    assert rate == 16000
    np.testing.assert_array_equal(samples[0], samples_of("Guten Tag."))
    assert service.bodies == [
        {
            "model_id": "sonic-turbo",
            "transcript": "Guten Tag.",
            "voice": {"mode": "id", "id": "a-b"},
            "language": "de",
            "output_format": {"container": "raw", "encoding": "pcm_s16le", "sample_rate": 16000},
        }
    ]
    (headers,) = service.headers
    assert (headers["x-api-key"], headers["cartesia-version"]) == (KEY, "2024-06-10")


async def test_half_a_sample_at_the_end_is_dropped() -> None:
    async with serve(Service(cuts=(3,))) as model:
        _, samples = await collect(model.stream_tts("Yes."))
    np.testing.assert_array_equal(samples[0], samples_of("Yes.")[:1])


async def test_streamed_text_is_spoken_sentence_by_sentence_and_closed() -> None:
    service, closed = Service(), anyio.Event()

    async def write() -> AsyncIterator[str]:
        try:
            for piece in ("One. T", "wo? ... ", "\U0001f600 ", "Thr\ud83dee."):
                yield piece
        finally:
            closed.set()

    async with serve(service) as model:
        _, samples = await collect(model.stream_tts(write()))
    spoken = [body["transcript"] for body in service.bodies]
    assert spoken[0] == "One."
    # A lone surrogate is not spoken, nor is a sentence without a letter.
    assert "".join(spoken).endswith("Three.")
    assert all(any(letter.isalpha() for letter in sentence) for sentence in spoken)
    np.testing.assert_array_equal(samples[0], np.concatenate([samples_of(s) for s in spoken]))
    assert closed.is_set()


async def test_first_audio_arrives_before_response_is_complete() -> None:
    service = Service()
    service.go_on = anyio.Event()
    async with serve(service) as model, aclosing(model.stream_tts("Hello.")) as speech:
        with anyio.fail_after(SECONDS):
            _, first = await anext(speech)
            np.testing.assert_array_equal(first[0], samples_of("Hello.")[:3])
            assert not service.closed.is_set()
            service.go_on.set()
            async for _ in speech:
                pass
            await service.closed.wait()


@pytest.mark.parametrize("end", ["cancelled", "closed"])
@pytest.mark.parametrize("shared", [True, False])
async def test_abandoned_speech_closes_its_request(end: str, shared: bool) -> None:
    service = Service(cuts=(100, 100))
    service.go_on = anyio.Event()
    async with serve(service) as model, httpx.AsyncClient() as client:
        if shared:
            model = CartesiaTTSModel(KEY, model._url.removesuffix("/tts/bytes"), client)
        speech = model.stream_tts("Hello there, this is a long sentence.")
        with anyio.fail_after(SECONDS):
            with anyio.CancelScope() as scope:
                async with aclosing(speech):
                    await anext(speech)
                    if end == "cancelled":
                        scope.cancel()
                        await anext(speech)
            assert scope.cancelled_caught == (end == "cancelled")
            await service.closed.wait()
            service.go_on.set()
            assert client.is_closed is False


@pytest.mark.parametrize(
    ("status", "refusal", "quoted"),
    [
        (401, PlainTextResponse(f"unknown key {KEY}", 401), "401 Unauthorized: unknown key (the "),
        (402, JSONResponse({"error": "no credits\nleft"}, 402), "402 Payment Required: {"),
        (429, PlainTextResponse("too many", 429), "429 Too Many Requests: too many"),
        (503, PlainTextResponse("x" * 10_000, 503), "503 Service Unavailable: xxx"),
        (500, Response(status_code=500), "500 Internal Server Error: (no message)"),
        (200, JSONResponse({"error": "later"}), '200 OK: {"error":"later"}'),
        (200, PlainTextResponse("no sound"), "200 OK: no sound"),
        (200, Response(media_type="audio/pcm"), "answered a sentence without audio"),
        (204, Response(status_code=204), "answered a sentence without audio"),
        (307, Response(status_code=307, headers={"Location": "/elsewhere"}), "307 Temporary"),
    ],
)
async def test_refusal_quotes_the_service_without_the_key(
    status: int, refusal: Response, quoted: str
) -> None:
    service = Service()
    service.refusal = refusal
    async with serve(service) as model:
        with pytest.raises(RuntimeError) as caught:
            await collect(model.stream_tts("Hello."))
        with pytest.raises(RuntimeError) as blocking:
            await to_thread.run_sync(model.tts, "Hello.")
    assert quoted in str(caught.value)
    assert str(caught.value) == str(blocking.value)
    assert len(str(caught.value)) < 500
    assert KEY not in "".join(traceback.format_exception(caught.value))
    assert len(service.bodies) == 2, f"{status} was followed or repeated"


class Endless:
    """A body that never ends."""

    def __aiter__(self) -> Endless:
        return self

    async def __anext__(self) -> bytes:
        await anyio.lowlevel.checkpoint()
        return b"no " * 1000


async def test_refusal_is_not_read_to_its_end() -> None:
    service = Service()
    async with serve(service) as model:
        with anyio.fail_after(SECONDS):
            service.refusal = StreamingResponse(Endless(), 500)
            with pytest.raises(RuntimeError, match="no no no"):
                await collect(model.stream_tts("Hello."))
            service.refusal = StreamingResponse(Endless(), 500)
            with pytest.raises(RuntimeError, match="no no no"):
                await to_thread.run_sync(model.tts, "Hello.")


async def test_key_at_the_end_of_what_is_read_is_not_quoted() -> None:
    service = Service()
    async with serve(service) as model:
        for spaces in (4096 - len(KEY) + 1, 4095 - len(KEY) // 2, 4095):
            service.refusal = PlainTextResponse(" " * spaces + KEY, 401)
            with pytest.raises(RuntimeError) as caught:
                await collect(model.stream_tts("Hello."))
            assert KEY[:4] not in str(caught.value)
            service.refusal = PlainTextResponse(" " * spaces + KEY, 401)
            with pytest.raises(RuntimeError) as caught:
                await to_thread.run_sync(model.tts, "Hello.")
            assert KEY[:4] not in str(caught.value)


def test_wrong_arguments_are_errors() -> None:
    for url in ("example.com", "http://a b", "http://a?b", "http://a:99999", 3):
        with pytest.raises(ValueError, match="base_url must be an http or https URL; got"):
            CartesiaTTSModel(KEY, cast("Any", url))
    with pytest.raises(TypeError, match="client must be an AsyncClient or None; got"):
        CartesiaTTSModel(KEY, client=cast("Any", httpx.Client))
    with pytest.raises(TypeError, match="options must be a CartesiaTTSOptions or None; got"):
        CartesiaTTSModel(KEY).tts("Hello.", cast("Any", {"voice": "a"}))


async def test_unreachable_and_broken_service_is_an_error_that_names_it() -> None:
    model = CartesiaTTSModel(KEY, "http://127.0.0.1:1")
    with pytest.raises(RuntimeError, match=r"Cartesia at http://127\.0\.0\.1:1/tts/bytes failed"):
        await collect(model.stream_tts("Hello."))

    async def break_off(_request: Request) -> Response:
        return Response(b"1234", headers={"Content-Length": "4000"}, media_type="audio/pcm")

    app = Starlette(routes=[Route("/tts/bytes", break_off, methods=["POST"])])
    async with open_server(app) as url:
        with pytest.raises(RuntimeError, match="Cartesia"):
            await collect(CartesiaTTSModel(KEY, url).stream_tts("Hello."))


async def test_parts_of_a_sentence_are_noted_with_its_text() -> None:
    notes = []
    async with (
        serve(Service(cuts=(1000,))) as model,
        aclosing(model.stream_tts("Once upon a time. There was a task.")) as speech,
    ):
        async for _, samples in speech:
            note = find_note(samples)
            assert note is not None
            ((sentence, seconds),) = note.parts
            assert seconds == samples.shape[1] / 22_050
            notes.append(sentence)
    first, last = dict.fromkeys(notes)
    assert first is not None
    assert last is not None
    assert (first.text, last.text) == ("Once upon a time.", "There was a task.")
    assert first.complete
    assert first.seconds == pytest.approx(samples_of(first.text).size / 22_050)


async def test_blocking_methods_speak_all_sentences() -> None:
    service = Service()
    async with serve(service) as model:
        rate, samples = await to_thread.run_sync(model.tts, "One. Two.")
        parts = await to_thread.run_sync(lambda: list(model.stream_tts_sync("Three. Four. Five.")))
    assert [body["transcript"] for body in service.bodies] == [
        "One.",
        "Two.",
        "Three.",
        "Four.",
        "Five.",
    ]
    assert (rate, samples.dtype.name, len(parts)) == (22050, "int16", 3)


@pytest.mark.parametrize(
    ("given", "error", "words"),
    [
        ({"voice": ""}, ValueError, "voice must be the id"),
        ({"voice": "a b"}, ValueError, "voice must be the id"),
        ({"language": "english"}, ValueError, "language must be"),
        ({"language": None}, ValueError, "language must be"),
        ({"cartesia_version": "2024\r\nX: y"}, ValueError, "cartesia_version must be a date"),
        ({"model": ""}, ValueError, "model must be"),
        ({"sample_rate": 12345}, ValueError, "sample_rate must be one of 8000"),
        ({"emotion": "calm"}, TypeError, "emotion must be a list"),
        ({"emotion": [""]}, TypeError, "emotion must be a list"),
        ({"emotion": ["calm", "sad"], "model": "sonic-3"}, ValueError, "one emotion"),
        ({"speed": 1.5}, ValueError, "speed of sonic-2"),
        ({"speed": -0.5, "model": "sonic-3"}, ValueError, "speed of sonic-3"),
        ({"speed": "fast"}, TypeError, "speed of sonic-2"),
    ],
)
def test_invalid_option_is_rejected(given: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        CartesiaTTSOptions(**given)


def test_controls_have_the_form_of_the_model() -> None:
    earlier = CartesiaTTSOptions(emotion=["positivity:high", "curiosity"], speed=-0.5)
    voice = earlier.request_body("Hello.")["voice"]
    controls = {"speed": -0.5, "emotion": ["positivity:high", "curiosity"]}
    assert voice == {"mode": "id", "id": earlier.voice, "__experimental_controls": controls}
    later = CartesiaTTSOptions(emotion=["calm"], speed=1.2, model="sonic-3.5")
    body = later.request_body("Hello.")
    assert body["generation_config"] == {"speed": 1.2, "emotion": "calm"}
    assert body["voice"] == {"mode": "id", "id": later.voice}


class TestKey:
    def test_missing_key_is_an_error_at_construction(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("CARTESIA_API_KEY", raising=False)
        for make in (CartesiaTTSModel, lambda: get_tts_model("cartesia")):
            with pytest.raises(ValueError, match="CARTESIA_API_KEY"):
                make()

    @pytest.mark.parametrize("key", ["sécret", "two words", "line\n", 5])
    def test_malformed_key_is_rejected_without_quoting_it(self, key: Any) -> None:
        with pytest.raises(ValueError, match="visible ASCII") as caught:
            CartesiaTTSModel(key)
        assert str(key) not in str(caught.value)

    def test_variable_is_read_again_by_the_loader(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("CARTESIA_API_KEY", KEY)
        first = get_tts_model("cartesia")
        assert get_tts_model("cartesia") is first
        assert get_tts_model("cartesia", cartesia_api_key=KEY) is first
        assert get_tts_model("cartesia", api_key=KEY) is first
        monkeypatch.setenv("CARTESIA_API_KEY", "another")
        assert get_tts_model("cartesia") is not first
        assert KEY not in repr(first)

    def test_unknown_model_error_lists_names(self) -> None:
        with pytest.raises(ValueError, match=r"'kokoro', 'espeak-ng', 'cartesia'; got 'eleven'"):
            get_tts_model("eleven")  # type: ignore[arg-type]

    @pytest.mark.parametrize("url", ["api.cartesia.ai", "ftp://example.com", ""])
    def test_malformed_address_is_rejected(self, url: str) -> None:
        with pytest.raises(ValueError, match="base_url must be"):
            CartesiaTTSModel(KEY, url)


async def test_text_of_another_type_is_a_type_error() -> None:
    model: Any = CartesiaTTSModel(KEY)
    with pytest.raises(TypeError, match="text must be a str or yield strings; got int"):
        await collect(model.stream_tts(5))
    gc.collect()
