"""Operations on a page that are the same in every browser."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from typing import Any

import anyio

from tests.kit.waiting import SECONDS

READY = "document.readyState === 'complete' && !document.querySelector('[data-loading]')"
"""The page has loaded and knows its stream's settings."""
COUNT_QUESTIONS = """{
  window.questions = [];
  const ask = MediaDevices.prototype.getUserMedia;
  MediaDevices.prototype.getUserMedia = function (constraints) {
    questions.push(constraints);
    return ask.call(this, constraints);
  };
}"""
"""A script that records the constraints of every request for a camera or a microphone."""


class OpenPage(ABC):
    """A page in a browser."""

    complaints: list[str]
    """Uncaught exceptions and errors on the console."""

    @abstractmethod
    async def evaluate(self, expression: str) -> Any:
        """Evaluate a JavaScript expression, await its promise, and return the value."""

    @abstractmethod
    async def click(self, element: str) -> None:
        """Click the element with an id at its position."""

    async def wait_for(self, expression: str, what: str) -> None:
        """Poll a JavaScript expression, or its promise, until it is true."""
        cause = None
        with anyio.move_on_after(SECONDS):
            while True:
                try:
                    if await self.evaluate(f"Promise.resolve({expression}).then(Boolean)"):
                        return
                    cause = None
                except AssertionError as exc:  # for instance no document, during a navigation
                    cause = exc
                await anyio.sleep(0.02)
        seen = await self.evaluate("document.body.innerText")
        message = f"{what}: not within {SECONDS:g} s. The page says: {seen!r}"
        raise AssertionError(message) from cause

    async def wait_for_text(self, element: str, text: str) -> None:
        """Wait until the element with an id displays a text."""
        await self.wait_for(
            f"document.getElementById({json.dumps(element)}).checkVisibility() && "
            f"document.getElementById({json.dumps(element)})"
            f".innerText.includes({json.dumps(text)})",
            f"{text!r} in #{element}",
        )

    async def text(self, element: str) -> str:
        """Return the text that the element with an id displays."""
        shown = await self.evaluate(f"document.getElementById({json.dumps(element)}).innerText")
        return str(shown)

    async def find(self, element: str) -> tuple[float, float]:
        """Scroll to the element with an id, and return the position of its centre in the window."""
        x, y = await self.evaluate(
            f"""(() => {{
                const element = document.getElementById({json.dumps(element)});
                element.scrollIntoView({{ block: "nearest" }});
                const box = element.getBoundingClientRect();
                return [box.x + box.width / 2, box.y + box.height / 2];
            }})()"""
        )
        return x, y

    async def focus(self, element: str) -> None:
        """Move the focus to the element with an id."""
        await self.evaluate(f"document.getElementById({json.dumps(element)}).focus()")


async def unfold(page: OpenPage, *elements: str) -> None:
    """Open the parts of the page that are folded: ``devices`` or ``details``."""
    for element in elements:
        await page.evaluate(f"document.getElementById({json.dumps(element)}).open = true")


async def connect(page: OpenPage) -> None:
    """Press Connect, and wait until the call is connected."""
    began = anyio.current_time()
    await page.click("connect")
    await page.wait_for_text("connection", "Connected")
    print(f"connected after {anyio.current_time() - began:.2f} s")
