"""The configuration endpoint for clients, and the page that reads it."""

from __future__ import annotations

import json
import re
from base64 import b64encode
from hashlib import sha256
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from starlette.applications import Starlette

from fastrtc_anyio import RtcConfiguration, Stream, UIArgs
from fastrtc_anyio.server.launch import open_server
from fastrtc_anyio.server.page.document import page_document
from fastrtc_anyio.server.routes import client_config, page_route
from tests.kit.calls import echo, make_stream
from tests.kit.handlers import Quiet

PAGE = page_document()


async def fetch_config(url: str) -> Any:
    async with httpx.AsyncClient() as http:
        reply = await http.get(f"{url}/webrtc/config")
    assert reply.status_code == 200, reply.text
    assert reply.headers["content-type"] == "application/json"
    assert reply.headers["cache-control"] == "no-store"
    return reply.json()


@pytest.mark.parametrize("framework", [Starlette, FastAPI])
async def test_config_of_stream_without_settings_has_defaults(framework: Any) -> None:
    app = framework()
    make_stream().mount(app)
    async with open_server(app) as url:
        config = await fetch_config(url)
    assert config == {
        "modality": "audio",
        "mode": "send-receive",
        "rtc_configuration": {},
        "track_constraints": {},
        "rtp_params": {},
        "stereo": False,
        "title": "fastrtc_anyio",
        "subtitle": "",
        "send_input_on": "change",
        "inputs": [],
        "outputs": [],
    }


@pytest.mark.parametrize("framework", [Starlette, FastAPI])
async def test_config_returns_client_settings_and_no_server_settings(framework: Any) -> None:
    servers = [{"urls": "turn:turn.example:3478", "username": "you", "credential": "for you"}]
    given: dict[str, Any] = {
        "rtc_configuration": {"iceServers": servers},
        "track_constraints": {"audio": {"echoCancellation": False}, "video": {"width": 320}},
        "rtp_params": {"degradationPreference": "maintain-framerate"},
    }
    ours = {"iceServers": [{**servers[0], "credential": "for the server"}]}
    stream = Stream(
        lambda: pytest.fail("handler was created"),
        modality="audio-video",
        mode="receive",
        server_rtc_configuration=RtcConfiguration.parse(ours),
        ui_args={"title": "Größe", "subtitle": "Sieh!", "icon": "icon.svg"},
        **given,
    )
    app = framework()
    stream.mount(app, "/talk", tags=["calls"])
    async with open_server(app) as url:
        config = await fetch_config(f"{url}/talk")
        if framework is FastAPI:
            async with httpx.AsyncClient() as http:
                schema = (await http.get(f"{url}/openapi.json")).json()
            assert schema["paths"]["/talk/webrtc/config"]["get"]["tags"] == ["calls"]
    words = {"modality": "audio-video", "mode": "receive", "title": "Größe", "subtitle": "Sieh!"}
    absent = {"stereo": False, "send_input_on": "change", "inputs": [], "outputs": []}
    assert config == {**given, **words, **absent}
    assert "for the server" not in json.dumps(config)


async def test_config_reads_changed_rtc_configuration() -> None:
    """TURN credentials expire, so each request reads the stream's current configuration."""
    stream, app = make_stream(), Starlette()
    stream.mount(app)
    async with open_server(app) as url:
        assert (await fetch_config(url))["rtc_configuration"] == {}
        stream.rtc_configuration = {"iceServers": []}
        assert (await fetch_config(url))["rtc_configuration"] == {"iceServers": []}


class Sides(Quiet):
    expected_layout = "stereo"

    def __init__(self) -> None:
        super().__init__(expected_layout="stereo")


@pytest.mark.parametrize(
    ("handler", "constraints", "stereo"),
    [
        (Quiet(expected_layout="stereo"), {}, True),
        (Sides, {}, True),
        (Quiet, {"channelCount": 2}, True),
        (Quiet, {"audio": {"channelCount": {"ideal": 2}}}, True),
        (Quiet, {"audio": True}, False),
        (Quiet(), {"channelCount": 1}, False),
        (lambda: pytest.fail("handler was created"), {}, False),
    ],
)
async def test_stereo_handler_or_constraints_set_stereo(
    handler: Any, constraints: Any, stereo: bool
) -> None:
    stream = Stream(handler, modality="audio", track_constraints=constraints)
    config = await client_config(stream._service, stream._web)
    assert config["stereo"] is stereo


async def test_hidden_title_is_empty_in_config() -> None:
    stream = Stream(echo, modality="audio", ui_args={"title": "Talk", "hide_title": True})
    app = Starlette()
    stream.mount(app)
    async with open_server(app) as url:
        config = await fetch_config(url)
    assert (config["title"], config["subtitle"]) == ("", "")


async def test_post_to_config_and_get_of_offer_are_405() -> None:
    app = Starlette()
    make_stream().mount(app)
    async with open_server(app) as url, httpx.AsyncClient() as http:
        assert (await http.post(f"{url}/webrtc/config")).status_code == 405
        assert (await http.get(f"{url}/webrtc/offer")).status_code == 405


def test_page_loads_no_external_resource() -> None:
    assert not re.search(r"https?://|//[a-z]+\.", PAGE)
    assert not re.search(r"<script[^>]+src|<link[^>]+stylesheet|@import|url\(", PAGE)
    assert sorted(re.findall(r'"(webrtc/\w+)"', PAGE)) == ["webrtc/config", "webrtc/offer"]


async def fetch_page(route: Any) -> httpx.Response:
    transport = httpx.ASGITransport(Starlette(routes=[route]))
    async with httpx.AsyncClient(transport=transport, base_url="http://here") as http:
        return await http.get("/")


@pytest.mark.parametrize(
    ("path", "message"), [(5, "path must be a str; got 5"), ("x", "path must")]
)
def test_path_of_the_page_is_checked(path: Any, message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        page_route(path)


async def test_content_security_policy_allows_only_inline_hashes() -> None:
    reply = await fetch_page(page_route())
    parts = reply.headers["content-security-policy"].split("; ")
    policy = {name: sources for name, _, sources in (part.partition(" ") for part in parts)}
    for tag in ("script", "style"):
        inline = re.findall(rf"<{tag}>(.*?)</{tag}>", reply.text, re.DOTALL)
        hashes = [b64encode(sha256(text.encode()).digest()).decode() for text in inline]
        assert len(hashes) == reply.text.count(f"<{tag}") > 0
        assert policy[f"{tag}-src"].split() == [f"'sha256-{digest}'" for digest in hashes]
    assert policy["default-src"] == policy["base-uri"] == "'none'"
    assert policy["connect-src"] == "'self'"
    assert not re.search(r"unsafe|\*|https?:", reply.headers["content-security-policy"])
    assert not re.search(r"\sstyle=|\son\w+=", reply.text.partition("<style>")[0])
    assert not re.search(
        r"\sstyle=|\son\w+=", reply.text.partition("</style>")[2].partition("<script>")[0]
    )
    assert reply.headers["x-content-type-options"] == "nosniff"
    assert reply.headers["referrer-policy"] == "no-referrer"
    assert "microphone=(self)" in reply.headers["permissions-policy"]


@pytest.mark.parametrize(
    ("framed_by", "ancestors"),
    [
        ([], "'self'"),
        (["*"], "'self' *"),
        (
            ["https://a.example", "https://b.example:8443"],
            "'self' https://a.example https://b.example:8443",
        ),
    ],
)
async def test_framed_by_sets_frame_ancestors(framed_by: Any, ancestors: str) -> None:
    reply = await fetch_page(page_route(framed_by=framed_by))
    policy = reply.headers["content-security-policy"]
    assert "x-frame-options" not in reply.headers
    assert policy.partition("; frame-ancestors ")[2] == ancestors


@pytest.mark.parametrize(
    "wrong", ["https://a.example", ["a.example; script-src *"], ["https://a/b"]]
)
def test_invalid_framed_by_raises(wrong: Any) -> None:
    with pytest.raises((TypeError, ValueError), match="origins"):
        page_route(framed_by=wrong)


def test_page_script_uses_only_existing_unique_ids() -> None:
    there = re.findall(r'\bid="([\w-]+)"', PAGE)
    assert len(there) == len(set(there))
    assert set(re.findall(r'\$\("([\w-]+)"\)', PAGE)) <= set(there)


@pytest.mark.parametrize("element", ["local", "remote"])
def test_video_elements_autoplay_inline_and_muted(element: str) -> None:
    """Without these attributes, phones play video in full screen or only after a touch."""
    (tag,) = re.findall(rf'<video id="{element}"[^>]*>', PAGE)
    assert {"autoplay", "playsinline", "muted"} <= set(tag.split())


@pytest.mark.parametrize(
    ("given", "error", "words"),
    [
        ({"tittle": "Talk"}, ValueError, "a field of ui_args must be one of 'title', 'subtitle'"),
        ({"title": 5}, TypeError, r"ui_args\['title'\] must be a str or None; got 5"),
        ({"hide_title": "no"}, TypeError, r"ui_args\['hide_title'\] must be a bool"),
        ({"send_input_on": "blur"}, ValueError, r"\['send_input_on'\] must be one of 'submit'"),
        ([("title", "Talk")], TypeError, "ui_args must be a Mapping"),
    ],
)
def test_invalid_ui_args_are_rejected(given: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        make_stream(ui_args=given)


def test_all_fields_of_ui_args_are_accepted() -> None:
    given: UIArgs = {
        "title": "Talk",
        "subtitle": "to me",
        "icon": "icon.svg",
        "icon_button_color": "red",
        "pulse_color": "blue",
        "icon_radius": 50,
        "send_input_on": "submit",
        "hide_title": False,
        "full_screen": False,
        "variant": "textbox",
    }
    assert make_stream(ui_args=given).ui_args == given
    assert set(given) == set(UIArgs.__annotations__)
