"""The page in Chromium, with several processes behind it."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import anyio
import pytest

from tests.kit.backends import on_trio
from tests.workers.processes import run

from .chromium import Browser
from .test_chromium import check_sound, connect

pytestmark = pytest.mark.interop


@on_trio
async def test_page_calls_another_worker_when_its_own_has_died(
    browser: Browser, tmp_path: Path
) -> None:
    file, resumed = tmp_path / "pid", tmp_path / "resumed"
    async with run(IS_PUBLIC="1", PID_FILE=str(file), RESUMED_FILE=str(resumed)) as cluster:
        page = await browser.open_page(cluster.url)
        await connect(page)
        await check_sound(page)
        first, former = int(file.read_text()), json.loads(resumed.read_text())
        assert former["from"] is None
        await page.evaluate("conversation.take({ id: 'said-1', role: 'user', text: 'Hello.' })")
        began = anyio.current_time()
        os.kill(first, signal.SIGKILL)
        await page.wait_for("$('connection').innerText !== 'Connected'", "a notice")
        print(f"noticed after {anyio.current_time() - began:.1f} s")
        await page.wait_for_text("connection", "Connected")
        print(f"connected again after {anyio.current_time() - began:.1f} s")
        await check_sound(page)
        assert int(file.read_text()) != first
        assert await page.text("alert") == ""
        found = json.loads(resumed.read_text())
        assert found["from"] == {"id": former["id"], "value": {"pid": first}}
        await page.evaluate("conversation.take({ id: 'said-1', role: 'user', text: 'Again.' })")
        assert await page.evaluate("conversation.entries.map((entry) => entry.text)") == [
            "Hello.",
            "Again.",
        ]
        await page.click("connect")
        await page.wait_for_text("status", "Call ended")
        await connect(page)
        assert json.loads(resumed.read_text())["from"] is None, "it was hung up"


@on_trio
async def test_call_of_the_page_goes_on_while_workers_are_replaced(
    browser: Browser, tmp_path: Path
) -> None:
    file = tmp_path / "pid"
    async with run(IS_PUBLIC="1", PID_FILE=str(file), DRAIN_TIMEOUT="0") as cluster:
        page = await browser.open_page(cluster.url)
        await connect(page)
        await check_sound(page)
        first, call = int(file.read_text()), await page.evaluate("call.id")
        cluster.program.process.send_signal(signal.SIGHUP)
        with anyio.fail_after(60):
            while "the old ones drain" not in cluster.errors:
                await anyio.sleep(0.1)
        await check_sound(page)
        assert (await page.text("connection"), await page.evaluate("call.id")) == (
            "Connected",
            call,
        )
        await page.click("connect")
        await page.wait_for_text("status", "Call ended")
        await connect(page)
        await check_sound(page)
        assert int(file.read_text()) != first
