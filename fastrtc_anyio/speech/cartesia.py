"""Text to speech with Cartesia, a service that streams each sentence while it synthesises it.

The requests need httpx, which the ``cartesia`` extra installs. The key is sent in a header, and
appears in no error.
"""

from __future__ import annotations

import os
import re
from collections.abc import AsyncGenerator, AsyncIterable, Generator, Sequence
from contextlib import AsyncExitStack, aclosing, contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from anyio import move_on_after

from fastrtc_anyio._core.options import (
    check_choice,
    check_number,
    check_type,
    is_http_url,
    short_repr,
)
from fastrtc_anyio._media.frames import Int16Array

from .notes import Part, Sentence, note_audio
from .sentences import speakable
from .tts import SentenceTTS, TTSOptions, read_sentences

if TYPE_CHECKING:
    import httpx

__all__ = ["CartesiaTTSModel", "CartesiaTTSOptions", "find_api_key"]

_RATES = (8000, 16000, 22050, 24000, 44100, 48000)
_SECONDS = 10.0
"""Deadline of each step of a request; a listener is waiting."""
_CLOSE_SECONDS = 1.0
_MAX_SHOWN = 300
"""Characters of the service's error message that an error quotes."""
_MAX_READ = 4096
"""Bytes of a refusal that are read."""
_FORMS = {
    "voice": (re.compile(r"[\w-]+", re.ASCII), "the id of a voice"),
    "language": (re.compile(r"[a-z]{2,3}(-[A-Za-z0-9]+)*"), 'a language code such as "en"'),
    "cartesia_version": (re.compile(r"\d{4}-\d\d-\d\d", re.ASCII), 'a date such as "2024-06-10"'),
    "model": (re.compile(r"[\w.-]+", re.ASCII), 'the name of a model such as "sonic-2"'),
}
# Models with the controls of before sonic-3, which later models ignore.
_EARLIER_MODELS = re.compile(r"sonic(-2.*|-turbo.*|-english.*|-multilingual.*|-preview.*)?")


@dataclass(frozen=True)
class CartesiaTTSOptions(TTSOptions):
    """Options of Cartesia.

    Attributes:
        voice: id of a voice.
        language: language code of the text.
        emotion: emotions. Models before sonic-3 accept several, with a level after a colon:
            ``["positivity:high", "curiosity"]``. Later models accept one, such as ``["calm"]``.
        cartesia_version: version of the service's interface.
        model: name of a model.
        sample_rate: 8000, 16000, 22050, 24000, 44100 or 48000 Hz.
        speed: speed of the speech; None for the natural speed of the voice. A factor from 0.6 to
            1.5; for models before sonic-3 a number from -1 (slowest) to 1 (fastest).

    Raises:
        TypeError: ``speed`` is not a number, or ``emotion`` is not a list of strings.
        ValueError: an option is out of range or malformed.
    """

    voice: str = "71a7ad14-091c-4e8e-a314-022ece01c121"
    language: str = "en"
    emotion: Sequence[str] = ()
    cartesia_version: str = "2024-06-10"
    model: str = "sonic-2"
    sample_rate: int = 22050
    speed: float | None = None

    def __post_init__(self) -> None:
        for name, (form, meaning) in _FORMS.items():
            value: object = getattr(self, name)
            if not isinstance(value, str) or not form.fullmatch(value):
                raise ValueError(f"{name} must be {meaning}; got {short_repr(value)}")
        check_choice("sample_rate", self.sample_rate, _RATES)
        emotion: object = self.emotion
        if not isinstance(emotion, list | tuple) or not all(
            isinstance(one, str) and one for one in emotion
        ):
            raise TypeError(f"emotion must be a list of strings; got {short_repr(emotion)}")
        earlier = self._is_earlier_model
        if len(emotion) > 1 and not earlier:
            got = short_repr(emotion)
            raise ValueError(f"emotion must be one emotion for the model {self.model}; got {got}")
        if self.speed is not None:
            low, high = (-1.0, 1.0) if earlier else (0.6, 1.5)
            check_number(f"speed of {self.model}", self.speed, at_least=low, at_most=high)

    @property
    def _is_earlier_model(self) -> bool:
        return _EARLIER_MODELS.fullmatch(self.model) is not None

    def request_body(self, sentence: str) -> dict[str, object]:
        """Return the body of a request for the speech of a sentence."""
        voice: dict[str, object] = {"mode": "id", "id": self.voice}
        body: dict[str, object] = {
            "model_id": self.model,
            "transcript": speakable(sentence),
            "voice": voice,
            "language": self.language,
            "output_format": {
                "container": "raw",
                "encoding": "pcm_s16le",
                "sample_rate": self.sample_rate,
            },
        }
        controls: dict[str, object] = {} if self.speed is None else {"speed": self.speed}
        if self.emotion:
            controls["emotion"] = list(self.emotion) if self._is_earlier_model else self.emotion[0]
        if controls and self._is_earlier_model:
            voice["__experimental_controls"] = controls
        elif controls:
            body["generation_config"] = controls
        return body


class CartesiaTTSModel(SentenceTTS[CartesiaTTSOptions]):
    """Speak with Cartesia, a paid service.

    Args:
        api_key: key of an account; by default the variable ``CARTESIA_API_KEY``.
        base_url: address of the service, or of one with the same interface.
        client: httpx client for :meth:`stream_tts`, which stays open and keeps its connections. It
            must belong to the running event loop. By default each call opens a client.

    Raises:
        ImportError: httpx is missing.
        TypeError: ``client`` is not an ``httpx.AsyncClient``.
        ValueError: the key is missing, or the key or the address is malformed.
    """

    def __init__(
        self,
        api_key: str | None = None,
        base_url: str = "https://api.cartesia.ai",
        client: httpx.AsyncClient | None = None,
    ) -> None:
        try:
            import httpx
        except ImportError as exc:
            raise ImportError(
                "Cartesia needs httpx: pip install 'fastrtc-anyio[cartesia]'"
            ) from exc
        self._api_key = find_api_key(api_key)
        if not is_http_url(base_url):
            raise ValueError(f"base_url must be an http or https URL; got {short_repr(base_url)}")
        check_type("client", client, httpx.AsyncClient, optional=True)
        self._url = f"{base_url.rstrip('/')}/tts/bytes"
        self._client = client
        # Shared, because loading the certificates takes some 20 ms.
        self._certificates = httpx.create_ssl_context()

    def speak(self, sentence: str, options: CartesiaTTSOptions | None) -> tuple[int, Int16Array]:
        """Synthesise one sentence.

        Raises:
            RuntimeError: the service refused the request or failed; quotes its message.
        """
        import httpx

        options = _check_options(options)
        data = b""
        if _is_speakable(sentence):
            body, headers = options.request_body(sentence), self._headers(options)
            with (
                self._convert_errors(),
                httpx.Client(verify=self._certificates, timeout=_SECONDS) as http,
                http.stream("POST", self._url, json=body, headers=headers) as response,
            ):
                if not _is_audio(response):
                    raise self._refusal(response, next(response.iter_bytes(_MAX_READ), b""))
                data = response.read()
            _check_speech(len(data))
        return options.sample_rate, _to_samples(data)

    async def stream_tts(
        self, text: str | AsyncIterable[str], options: CartesiaTTSOptions | None = None
    ) -> AsyncGenerator[tuple[int, Int16Array], None]:
        """Synthesise a text while it arrives; see :meth:`.tts.TTSModel.stream_tts`.

        Leaving the iteration closes the request, and ``text`` if it has ``aclose()``.

        Yields:
            ``(sample_rate, samples)``, int16 of shape ``(1, n)``: parts of a sentence, as they come
            from the service.

        Raises:
            RuntimeError: the service refused the request or failed; quotes its message.

        Cancellation:
            Closes the request.
        """
        import httpx

        options = _check_options(options)
        async with AsyncExitStack() as stack:
            http = self._client
            if http is None:
                http = httpx.AsyncClient(verify=self._certificates, timeout=_SECONDS)
                await stack.enter_async_context(http)
            sentences = await stack.enter_async_context(aclosing(read_sentences(text)))
            async for sentence in sentences:
                if _is_speakable(sentence):
                    said = Sentence(sentence, 0.0, complete=False)
                    async with aclosing(self._stream(http, sentence, options)) as speech:
                        async for samples in speech:
                            seconds = samples.shape[1] / options.sample_rate
                            said.seconds += seconds
                            note_audio(samples, [Part(said, seconds)])
                            yield options.sample_rate, samples
                    said.complete = True

    async def _stream(
        self, http: httpx.AsyncClient, sentence: str, options: CartesiaTTSOptions
    ) -> AsyncGenerator[Int16Array, None]:
        import httpx

        body, headers = options.request_body(sentence), self._headers(options)
        with self._convert_errors():
            async with http.stream("POST", self._url, json=body, headers=headers) as response:
                is_audio, rest, received = _is_audio(response), b"", 0
                chunks = response.aiter_bytes(None if is_audio else _MAX_READ)
                try:
                    if not is_audio:
                        raise self._refusal(response, await anext(chunks, b""))
                    async for chunk in chunks:
                        received += len(chunk)
                        data = rest + chunk
                        rest = data[len(data) // 2 * 2 :]
                        if len(data) > 1:
                            yield _to_samples(data)
                    _check_speech(received)
                finally:
                    # httpx (0.28) nests generators, and closing the outermost would leave the rest
                    # to the garbage collector. They end with the connection.
                    with move_on_after(_CLOSE_SECONDS, shield=True), suppress(httpx.HTTPError):
                        await response.aclose()
                        async for _ in chunks:
                            pass

    def _headers(self, options: CartesiaTTSOptions) -> dict[str, str]:
        return {"X-API-Key": self._api_key, "Cartesia-Version": options.cartesia_version}

    @contextmanager
    def _convert_errors(self) -> Generator[None, None, None]:
        import httpx

        try:
            yield
        except httpx.HTTPError as exc:
            reason = str(exc) or type(exc).__name__
            raise RuntimeError(f"the request to Cartesia at {self._url} failed: {reason}") from exc

    def _refusal(self, response: httpx.Response, body: bytes) -> RuntimeError:
        import httpx

        # A service may quote the key that it does not know.
        text = body.decode(errors="replace").replace(self._api_key, "(the key)")
        if len(body) >= _MAX_READ:  # The end of what was read may be the beginning of the key.
            text = text[: -len(self._api_key)]
        said = " ".join(text.split())[:_MAX_SHOWN]
        code = response.status_code
        status = f"{code} {httpx.codes.get_reason_phrase(code)}".strip()
        return RuntimeError(f"Cartesia refused the request with {status}: {said or '(no message)'}")


def find_api_key(api_key: str | None) -> str:
    """Return the key that is passed, or else that of the environment.

    Raises:
        ValueError: the key is missing or malformed.
    """
    given: object = api_key or os.environ.get("CARTESIA_API_KEY", "").strip()
    if not given:
        raise ValueError("a key of Cartesia is required: pass api_key, or set CARTESIA_API_KEY")
    if not isinstance(given, str) or not re.fullmatch(r"[!-~]+", given):
        raise ValueError("api_key must be a string of visible ASCII characters")
    return given


def _is_audio(response: httpx.Response) -> bool:
    # A gateway may answer in the place of the service, with a page.
    kind = response.headers.get("content-type", "audio/")
    return response.is_success and bool(re.match(r"audio/|application/octet-stream", kind, re.I))


def _check_speech(received: int) -> None:
    if received < 2:
        raise RuntimeError("Cartesia answered a sentence without audio")


def _check_options(options: CartesiaTTSOptions | None) -> CartesiaTTSOptions:
    check_type("options", options, CartesiaTTSOptions, optional=True)
    return options or CartesiaTTSOptions()


def _to_samples(data: bytes) -> Int16Array:
    """Convert little-endian 16-bit PCM; half a sample at the end is dropped."""
    return np.frombuffer(data, "<i2", len(data) // 2).astype(np.int16).reshape(1, -1)


def _is_speakable(sentence: str) -> bool:
    """Whether a sentence contains more than punctuation, which the service refuses."""
    return any(character.isalnum() for character in sentence)
