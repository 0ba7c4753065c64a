"""FastRTC's names: what exists here, and errors that name the replacement of what does not."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import httpx
import numpy as np
import pytest

import fastrtc_anyio
from fastrtc_anyio import ReplyOnPause, Stream, utils
from fastrtc_anyio.testing import open_call
from tests.kit.handlers import Quiet

EXPORTED = {
    "AdditionalOutputs",
    "AlgoOptions",
    "AsyncAudioVideoStreamHandler",
    "AsyncStreamHandler",
    "AudioEmitType",
    "AudioVideoStreamHandler",
    "CartesiaTTSOptions",
    "CloseStream",
    "KokoroTTSOptions",
    "ModelOptions",
    "MoonshineSTT",
    "PauseDetectionModel",
    "ReplyOnPause",
    "ReplyOnStopWords",
    "SileroVadOptions",
    "Stream",
    "StreamHandler",
    "UIArgs",
    "VideoEmitType",
    "VideoStreamHandler",
    "Warning",
    "WebRTCData",
    "WebRTCError",
    "aggregate_bytes_to_16bit",
    "async_aggregate_bytes_to_16bit",
    "audio_to_bytes",
    "audio_to_file",
    "audio_to_float32",
    "audio_to_int16",
    "get_cloudflare_turn_credentials",
    "get_cloudflare_turn_credentials_async",
    "get_current_context",
    "get_hf_turn_credentials",
    "get_hf_turn_credentials_async",
    "get_silero_model",
    "get_stt_model",
    "get_tts_model",
    "get_turn_credentials",
    "get_turn_credentials_async",
    "get_twilio_turn_credentials",
    "wait_for_item",
}
"""All of FastRTC's public names but ``WebRTC``."""


def make_stream(**options: Any) -> Stream:
    return Stream(Quiet, modality="audio", **options)


def test_fastrtc_names_are_exported() -> None:
    assert EXPORTED - set(fastrtc_anyio.__all__) == set()


def test_webrtc_component_import_error_names_the_replacement() -> None:
    with pytest.raises(ImportError, match=r"Stream\(handler, .*additional_inputs=.*launch\(\)"):
        from fastrtc_anyio import WebRTC  # type: ignore[attr-defined] # noqa: F401
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = fastrtc_anyio.nothing  # type: ignore[attr-defined]


def test_utils_has_the_same_objects_as_the_package() -> None:
    for name in set(utils.__all__) - {"AUDIO_PTIME", "AudioChunk", "create_message"}:
        assert getattr(utils, name) is getattr(fastrtc_anyio, name)
    message = utils.create_message("log", ["pause_detected"])
    assert json.loads(message) == {"type": "log", "data": ["pause_detected"]}


def test_utils_is_an_attribute_of_the_imported_package() -> None:
    program = "import fastrtc_anyio as fastrtc; fastrtc.utils.audio_to_bytes"
    subprocess.run([sys.executable, "-c", program], check=True, timeout=50)


def test_value_of_full_scale_is_that_of_fastrtc() -> None:
    floats = np.array([-1.0, 0.0, 1.0], np.float32)
    assert utils.audio_to_int16(floats).tolist() == [-32767, 0, 32767]


def test_fastphone_error_names_the_replacement() -> None:
    with pytest.raises(NotImplementedError, match="telephone/incoming"):
        make_stream().fastphone(token="", host="127.0.0.1", port=8000)


def test_gradio_component_of_a_stream_error_names_the_replacement() -> None:
    stream = make_stream()
    assert not hasattr(stream, "webrtc_component")
    with pytest.raises(AttributeError, match=r"stream\.trigger_response\(webrtc_id\)"):
        _ = stream.webrtc_component


def use_as_block(stream: Stream) -> None:
    with stream.ui:
        raise AssertionError


def replace(stream: Stream) -> None:
    stream.ui = object()


@pytest.mark.parametrize(
    ("use", "error", "message"),
    [
        (use_as_block, NotImplementedError, "additional_outputs of the Stream"),
        (replace, NotImplementedError, "stream.mount"),
        (lambda stream: stream.ui.render(), AttributeError, "no 'render'.*not a gradio.Blocks"),
        (lambda stream: setattr(stream.ui, "dev_mode", False), AttributeError, "page_route"),
        (lambda stream: stream.ui.launch(auth=("a", "b")), ValueError, "authenticate"),
        (lambda stream: stream.ui.launch(ssl_keyfile="k", ssl_certfile="c"), ValueError, "proxy"),
    ],
)
def test_page_is_not_a_gradio_blocks_and_its_errors_say_so(
    use: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        use(make_stream())


def test_launch_ignores_other_keywords_of_gradio_with_one_warning(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    launched: list[Any] = []
    monkeypatch.setattr(Stream, "launch", lambda _, *args: launched.append(args))
    with pytest.warns(UserWarning, match=r"launch\(\) ignores share, allowed_paths") as warned:
        make_stream().ui.launch(share=True, debug=False, allowed_paths=["/tmp"])
    assert len(warned) == 1
    make_stream().ui.launch(server_name="0.0.0.0", server_port=8000, quiet=False)
    assert launched == [("127.0.0.1", 7860, "asyncio"), ("0.0.0.0", 8000, "asyncio")]


def test_launch_reads_the_environment_variables_of_gradio(monkeypatch: pytest.MonkeyPatch) -> None:
    launched: list[Any] = []
    monkeypatch.setattr(Stream, "launch", lambda _, *args: launched.append(args))
    monkeypatch.setenv("GRADIO_SERVER_NAME", "0.0.0.0")
    monkeypatch.setenv("GRADIO_SERVER_PORT", "8001")
    make_stream().ui.launch()
    make_stream().ui.launch("127.0.0.1", 0)
    assert launched == [("0.0.0.0", 8001, "asyncio"), ("127.0.0.1", 0, "asyncio")]


@contextmanager
def launched(stream: Stream, **options: Any) -> Generator[str, None, None]:
    served = stream.ui.launch(server_port=0, prevent_thread_lock=True, **options)
    assert served is not None
    try:
        yield served[1]
    finally:
        stream.ui.close()


def _is_open(stream: Stream) -> bool:
    return stream.is_open


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_prevent_thread_lock_serves_on_a_thread_until_closed(backend: Any) -> None:
    stream = make_stream()
    with launched(stream, backend=backend) as url:
        assert "<html" in httpx.get(url).text
        assert httpx.get(f"{url}/webrtc/config").json()["modality"] == "audio"
        assert _is_open(stream)
        with pytest.raises(RuntimeError, match=rf"served at {url} already: close\(\) it"):
            stream.ui.launch(prevent_thread_lock=True)
    assert not _is_open(stream)
    with pytest.raises(httpx.ConnectError):
        httpx.get(url)
    stream.ui.close()
    with launched(stream) as url:
        assert httpx.get(url).is_success


def test_port_in_use_raises_from_a_server_on_a_thread() -> None:
    with launched(make_stream()) as url, pytest.raises(OSError, match="in use"):
        make_stream().ui.launch(server_port=int(url.rpartition(":")[2]), prevent_thread_lock=True)


async def test_connections_are_the_live_sessions_by_webrtc_id() -> None:
    stream = make_stream()
    assert len(stream.connections) == 0
    async with open_call(Quiet()) as call:
        stream._service.registry.add(call.session)
        assert dict(stream.connections) == {call.session.id: call.session}


def test_handler_with_start_up_is_accepted_positionally() -> None:
    stream = Stream(ReplyOnPause(lambda audio: iter(()), lambda: iter(())), modality="audio")
    assert stream.media.audio_in
