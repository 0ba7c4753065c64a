"""What tests do in a page whatever browser has it open."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from contextlib import suppress
from typing import Any

import anyio

from tests.kit.waiting import SECONDS

READY = "document.readyState === 'complete' && !document.querySelector('[data-loading]')"
"""The page is there, and knows what its stream is."""


class OpenPage(ABC):
    """A page that can be asked for anything."""

    complaints: list[str]
    """Exceptions nobody caught, and what the page wrote to the console as an error."""

    @abstractmethod
    async def evaluate(self, expression: str) -> Any:
        """What an expression of JavaScript, or its promise, comes to."""

    @abstractmethod
    async def click(self, element: str) -> None:
        """Press the element with an id, as a person would."""

    async def wait_for(self, expression: str, what: str) -> None:
        """Wait until an expression of JavaScript, or its promise, is true."""
        with anyio.move_on_after(SECONDS):
            while True:
                with suppress(AssertionError):  # between two documents there is none to ask
                    if await self.evaluate(f"Promise.resolve({expression}).then(Boolean)"):
                        return
                await anyio.sleep(0.02)
        seen = await self.evaluate("document.body.innerText")
        raise AssertionError(f"{what}: not within {SECONDS:g} s. The page says: {seen!r}")

    async def wait_for_text(self, element: str, text: str) -> None:
        """Wait until the element with an id shows a text."""
        await self.wait_for(
            f"document.getElementById({json.dumps(element)}).checkVisibility() && "
            f"document.getElementById({json.dumps(element)})"
            f".innerText.includes({json.dumps(text)})",
            f"{text!r} in #{element}",
        )

    async def text(self, element: str) -> str:
        """What the element with an id shows."""
        shown = await self.evaluate(f"document.getElementById({json.dumps(element)}).innerText")
        return str(shown)

    async def find(self, element: str) -> tuple[float, float]:
        """Where in the window the middle of the element with an id is, once it is in sight."""
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
        """Go to the element with an id, as by the Tab key."""
        await self.evaluate(f"document.getElementById({json.dumps(element)}).focus()")


async def connect(page: OpenPage) -> None:
    """Press Connect, and wait for the call."""
    began = anyio.current_time()
    await page.click("connect")
    await page.wait_for_text("connection", "Connected")
    print(f"connected after {anyio.current_time() - began:.2f} s")
