"""Chromium as a caller, controlled by the DevTools protocol.

The protocol runs over a socket that Chromium inherits as its file descriptors 3 and 4
(``--remote-debugging-pipe``), which needs no port and works on both backends.
"""

from __future__ import annotations

import base64
import itertools
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import anyio
import pytest
from anyio.abc import ByteStream, Process
from anyio.streams.buffered import BufferedByteReceiveStream

from tests.kit.waiting import SECONDS

from .pages import READY, OpenPage

MESSAGE_LIMIT = 50_000_000
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--no-first-run",
    "--no-default-browser-check",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-extensions",
    "--disable-sync",
    "--disable-features=Translate,OptimizationHints,MediaRouter",
    "--mute-audio",
    "--hide-scrollbars",
    "--use-fake-device-for-media-stream",
    "--use-fake-ui-for-media-stream",
    "--autoplay-policy=no-user-gesture-required",
    # Without it, ICE finds no address on a machine that only has the loopback interface.
    "--allow-loopback-in-peer-connection",
    "--remote-debugging-pipe",
)
_KEYS = {
    "Tab": (9, ""),
    "Enter": (13, "\r"),
    "Escape": (27, ""),
    " ": (32, " "),
    "ArrowRight": (39, ""),
    "ArrowDown": (40, ""),
}
"""Key codes, and the text that each key enters."""


def check_chromium() -> str:
    """Return the path of the browser, or fail."""
    browser = shutil.which("chromium")
    if browser is None:
        pytest.fail("Chromium is missing: apt-get install chromium", pytrace=False)
    return browser


class Browser:
    """The browser and its connection."""

    def __init__(self, stream: ByteStream, log: Path) -> None:
        self._stream = stream
        self._log = log
        self._ids = itertools.count(1)
        self._replies: dict[int, dict[str, Any]] = {}
        self._waiting: dict[int, anyio.Event] = {}
        self._pages: dict[str, Page] = {}
        self._gone = False

    async def open_page(self, url: str, script: str = "") -> Page:
        """Open a tab. ``script`` runs before the scripts of the page."""
        target = await self.command("Target.createTarget", url="about:blank")
        attached = await self.command(
            "Target.attachToTarget", targetId=target["targetId"], flatten=True
        )
        page = Page(self, target["targetId"], attached["sessionId"])
        self._pages[attached["sessionId"]] = page
        for domain in ("Page", "Runtime", "Log"):
            await page.command(f"{domain}.enable")
        await page.command("Page.addScriptToEvaluateOnNewDocument", source=script)
        await page.go(url)
        return page

    async def command(
        self, method: str, session_id: str | None = None, /, **params: Any
    ) -> dict[str, Any]:
        """Send a command, and return its result."""
        number = next(self._ids)
        message = {"id": number, "method": method, "params": params}
        if session_id is not None:
            message["sessionId"] = session_id
        event = self._waiting[number] = anyio.Event()
        with suppress(anyio.BrokenResourceError):
            await self._stream.send(json.dumps(message).encode() + b"\0")
        with anyio.move_on_after(SECONDS):
            await event.wait()
        assert not self._gone, f"Chromium has ended: {self._log.read_text()[-2000:]}"
        reply = self._replies.pop(number, None)
        assert reply is not None, f"{method}: no answer from Chromium within {SECONDS:g} s"
        assert "error" not in reply, f"{method}: {reply['error']}"
        result: dict[str, Any] = reply["result"]
        return result

    async def _read(self) -> None:
        stream = BufferedByteReceiveStream(self._stream)
        with suppress(anyio.IncompleteRead, anyio.EndOfStream, anyio.BrokenResourceError):
            while True:
                message = json.loads(await stream.receive_until(b"\0", MESSAGE_LIMIT))
                if (number := message.get("id")) is not None:
                    self._replies[number] = message
                    self._waiting.pop(number).set()
                elif (page := self._pages.get(message.get("sessionId", ""))) is not None:
                    page._note(message["method"], message["params"])
        self._gone = True
        for event in self._waiting.values():
            event.set()


class Page(OpenPage):
    """A tab."""

    def __init__(self, browser: Browser, target: str, session_id: str) -> None:
        self._browser = browser
        self._target = target
        self._session_id = session_id
        self.complaints = []

    async def command(self, method: str, /, **params: Any) -> dict[str, Any]:
        return await self._browser.command(method, self._session_id, **params)

    async def go(self, url: str) -> None:
        await self.command("Page.navigate", url=url)
        there = json.dumps(url.partition("#")[0])
        await self.wait_for(f"location.href.startsWith({there}) && {READY}", "the page")

    async def reload(self) -> None:
        await self.evaluate("window.isOld = true")
        await self.command("Page.reload")
        await self.wait_for(f"!window.isOld && {READY}", "the page")

    async def close(self) -> None:
        """Close the tab; the page gets its unload events."""
        await self.command("Page.close")

    async def evaluate(self, expression: str) -> Any:
        reply = await self.command(
            "Runtime.evaluate",
            expression=expression,
            awaitPromise=True,
            returnByValue=True,
            userGesture=False,
        )
        assert "exceptionDetails" not in reply, reply["exceptionDetails"]
        return reply["result"].get("value")

    async def click(self, element: str) -> None:
        """Click the element with an id at its position."""
        x, y = await self.find(element)
        for kind in ("mousePressed", "mouseReleased"):
            await self.command(
                "Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1
            )

    async def press(self, key: str) -> None:
        """Press a key of ``_KEYS``."""
        code, text = _KEYS[key]
        about = {"key": key, "code": key if key != " " else "Space", "windowsVirtualKeyCode": code}
        down = {"text": text} if text else {}
        await self.command("Input.dispatchKeyEvent", type="keyDown", **about, **down)
        await self.command("Input.dispatchKeyEvent", type="keyUp", **about)

    async def type(self, text: str) -> None:
        """Enter text into the focused element."""
        await self.command("Input.insertText", text=text)

    async def look(
        self, path: Path, *, width: int = 1000, height: int = 860, dark: bool = False
    ) -> None:
        """Resize the window, set its colour scheme, and take a screenshot."""
        await self.resize(width, height, dark=dark)
        await self.evaluate("new Promise((done) => setTimeout(done, 300))")
        picture = await self.command("Page.captureScreenshot", format="png")
        await anyio.Path(path).write_bytes(base64.b64decode(picture["data"]))

    async def resize(self, width: int, height: int, *, dark: bool = False) -> None:
        """Resize the window and set its colour scheme; a narrow window emulates a telephone."""
        await self.command(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1 if width > 500 else 2,
            mobile=width <= 500,
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        await self.command("Emulation.setEmulatedMedia", features=[scheme])

    def _note(self, method: str, params: dict[str, Any]) -> None:
        if method == "Runtime.exceptionThrown":
            details = params["exceptionDetails"]
            self.complaints.append(details.get("exception", details).get("description", "?"))
        elif method == "Runtime.consoleAPICalled" and params["type"] in ("error", "assert"):
            self.complaints.append(str([a.get("value", a) for a in params["args"]]))
        elif method == "Log.entryAdded" and params["entry"]["source"] == "security":
            self.complaints.append(params["entry"]["text"])


@asynccontextmanager
async def open_browser(
    program: str, microphone: Path, camera: Path | None, *flags: str
) -> AsyncGenerator[Browser, None]:
    """Start Chromium with a fresh profile.

    Args:
        program: Path of the browser.
        microphone: A WAV file that the fake microphone repeats.
        camera: A Y4M file that the fake camera repeats; with None the flags decide.
        flags: Additional flags; the last of two contradictory flags counts.
    """
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch:
        command = [
            program,
            *FLAGS,
            f"--user-data-dir={scratch}/profile",
            f"--use-file-for-fake-audio-capture={microphone}",
            *([f"--use-file-for-fake-video-capture={camera}"] if camera else []),
            *flags,
        ]
        log = Path(scratch) / "log"
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(f"{scratch}/socket")
            listener.listen()
            stream = await anyio.connect_unix(f"{scratch}/socket")
            theirs, _ = listener.accept()
        async with stream:
            with theirs:
                process = await _start(command, theirs, log)
            async with process, anyio.create_task_group() as tg:
                browser = Browser(stream, log)
                tg.start_soon(browser._read)
                try:
                    yield browser
                finally:
                    with anyio.CancelScope(shield=True):
                        await _stop(browser, process)
                    tg.cancel_scope.cancel()


_AS_3_AND_4 = """
import os, sys
number = int(sys.argv[1])
os.dup2(number, 3)
os.dup2(number, 4)
os.execv(sys.argv[2], sys.argv[2:])
"""


async def _start(command: list[str], theirs: socket.socket, log: Path) -> Process:
    number = theirs.fileno()
    home = str(log.parent)
    with log.open("wb") as output:
        return await anyio.open_process(
            [sys.executable, "-ISc", _AS_3_AND_4, str(number), *command],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            pass_fds=[number],
            start_new_session=True,  # one process group, so that all its processes can be killed
            env={**os.environ, "HOME": home, "XDG_RUNTIME_DIR": home},
        )


async def _stop(browser: Browser, process: Process) -> None:
    with anyio.move_on_after(5):
        with suppress(AssertionError, anyio.BrokenResourceError):
            await browser.command("Browser.close")
        await process.wait()
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    await process.wait()
