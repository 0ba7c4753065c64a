"""Firefox as a caller, controlled by WebDriver BiDi.

Firefox serves the protocol itself on a WebSocket at a port that it chooses. The socket is blocking
and used by one thread at a time, on both backends. Events are read together with the answer to the
next command.
"""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest
from anyio.abc import Process
from anyio.to_thread import run_sync
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from tests.kit.waiting import SECONDS

from .pages import READY, OpenPage

FAKE_TONE = 500
"""Pitch of its fake microphone, Hz."""
PREFERENCES: dict[str, bool | int | str] = {
    "media.navigator.streams.fake": True,
    "media.navigator.audio.fake_frequency": FAKE_TONE,
    "media.navigator.permission.disabled": True,
    "media.autoplay.default": 0,
    # The machine has no sound card.
    "media.cubeb.force_mock_context": True,
    # Without these, ICE finds no address on a machine that only has the loopback interface, and
    # hides other addresses behind names of multicast DNS.
    "media.peerconnection.ice.loopback": True,
    "media.peerconnection.ice.obfuscate_host_addresses": False,
    "browser.shell.checkDefaultBrowser": False,
    "datareporting.policy.dataSubmissionEnabled": False,
    "app.normandy.enabled": False,
    "network.captive-portal-service.enabled": False,
    "network.connectivity-service.enabled": False,
    "services.settings.server": "data:,#remote-settings-dummy/v1",
    "remote.log.truncate": False,
}
_KEYS = {"Tab": "\ue004", "Enter": "\ue007", "ArrowRight": "\ue014"}
"""WebDriver's codes of keys that enter no text."""


def check_firefox() -> str:
    """Return the path of the browser, or fail."""
    browser = shutil.which("firefox-esr") or shutil.which("firefox")
    if browser is None:
        pytest.fail("Firefox is missing: apt-get install firefox-esr", pytrace=False)
    return browser


class FirefoxPage(OpenPage):
    """The only tab."""

    def __init__(self, socket: ClientConnection, log: Path) -> None:
        self._socket = socket
        self._log = log
        self._number = 0
        self._context: str | None = None
        self.complaints = []

    async def command(self, method: str, **params: Any) -> dict[str, Any]:
        """Send a command, and return its result."""
        return await run_sync(partial(self._ask, method, params))

    async def open(self, url: str) -> None:
        if self._context is None:
            await self.command("session.new", capabilities={})
            await self.command("session.subscribe", events=["log.entryAdded"])
            tree = await self.command("browsingContext.getTree")
            self._context = tree["contexts"][0]["context"]
        await self.command(
            "browsingContext.navigate", context=self._context, url=url, wait="complete"
        )
        await self.wait_for(READY, "the page")

    async def evaluate(self, expression: str) -> Any:
        reply = await self.command(
            "script.evaluate",
            expression=f"Promise.resolve({expression}).then((x) => JSON.stringify(x ?? null))",
            target={"context": self._context},
            awaitPromise=True,
        )
        assert reply["type"] == "success", reply.get("exceptionDetails")
        return json.loads(reply["result"]["value"])

    async def click(self, element: str) -> None:
        """Click the element with an id at its position."""
        x, y = await self.find(element)
        await self._act(
            {
                "type": "pointer",
                "id": "mouse",
                "actions": [
                    {"type": "pointerMove", "x": round(x), "y": round(y)},
                    {"type": "pointerDown", "button": 0},
                    {"type": "pointerUp", "button": 0},
                ],
            }
        )

    async def press(self, *keys: str) -> None:
        """Press keys, given by their names or their text."""
        values = [_KEYS.get(key, key) for key in keys]
        strokes = [{"type": f"key{way}", "value": v} for v in values for way in ("Down", "Up")]
        await self._act({"type": "key", "id": "keyboard", "actions": strokes})

    async def look(self, path: Path, *, width: int = 1000, height: int = 860) -> None:
        """Resize the window, and take a screenshot."""
        await self.command(
            "browsingContext.setViewport",
            context=self._context,
            viewport={"width": width, "height": height},
        )
        await self.evaluate("new Promise((done) => setTimeout(done, 300))")
        picture = await self.command("browsingContext.captureScreenshot", context=self._context)
        await anyio.Path(path).write_bytes(base64.b64decode(picture["data"]))

    async def _act(self, source: dict[str, Any]) -> None:
        await self.command("input.performActions", context=self._context, actions=[source])

    def _ask(self, method: str, params: dict[str, Any]) -> dict[str, Any]:
        self._number += 1
        try:
            self._socket.send(json.dumps({"id": self._number, "method": method, "params": params}))
            while True:
                message = json.loads(self._socket.recv(SECONDS))
                if message.get("id") == self._number:
                    break
                self._note(message)
        except TimeoutError:
            raise AssertionError(f"{method}: Firefox was silent for {SECONDS:g} s") from None
        except ConnectionClosed:
            text = self._log.read_text(errors="replace")[-2000:]
            raise AssertionError(f"Firefox has ended: {text}") from None
        assert message["type"] == "success", f"{method}: {message}"
        result: dict[str, Any] = message["result"]
        return result

    def _note(self, message: dict[str, Any]) -> None:
        entry = message.get("params", {})
        if message.get("method") == "log.entryAdded" and entry["level"] == "error":
            self.complaints.append(entry["text"])


@asynccontextmanager
async def open_firefox(program: str) -> AsyncGenerator[FirefoxPage, None]:
    """Start Firefox with a fresh profile, a fake microphone and a fake camera."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch:
        log, profile = Path(scratch) / "log", Path(scratch) / "profile"
        profile.mkdir()
        lines = [f"user_pref({json.dumps(k)}, {json.dumps(v)});" for k, v in PREFERENCES.items()]
        (profile / "user.js").write_text("\n".join(lines))
        async with await _start(program, profile, log) as process:
            try:
                url = await _wait_url(process, log)
                with await run_sync(partial(connect, url, max_size=None)) as socket:
                    page = FirefoxPage(socket, log)
                    try:
                        yield page
                    finally:
                        with anyio.CancelScope(shield=True), suppress(AssertionError):
                            await page.command("browser.close")
            finally:
                with anyio.CancelScope(shield=True):
                    await _stop(process)


async def _start(program: str, profile: Path, log: Path) -> Process:
    home = str(log.parent)
    command = [program, "--headless", "--no-remote", "--profile", str(profile)]
    with log.open("wb") as output:
        return await anyio.open_process(
            [*command, "--remote-debugging-port", "0"],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,  # one process group, so that all its processes can be killed
            env={
                **os.environ,
                "HOME": home,
                "XDG_RUNTIME_DIR": home,
                "MOZ_CRASHREPORTER_DISABLE": "1",
            },
        )


async def _wait_url(process: Process, log: Path) -> str:
    text = ""
    with anyio.move_on_after(SECONDS):
        while process.returncode is None:
            text = await anyio.Path(log).read_text(errors="replace")
            if found := re.search(r"BiDi listening on (ws://\S+)\n", text):
                return f"{found[1]}/session"
            await anyio.sleep(0.02)
    raise AssertionError(f"Firefox does not start: {text[-2000:]}")


async def _stop(process: Process) -> None:
    with anyio.move_on_after(5):
        await process.wait()
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    await process.wait()
