"""Posts to the event loop from other threads."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

from fastrtc_anyio._core.host import Host, collect_posts
from tests.kit.backends import anyio_backend
from tests.kit.waiting import wait_until

__all__ = ["anyio_backend"]


class CountingHost(Host):
    """Counts how often the loop was woken."""

    wakes = 0

    def __init__(self) -> None:
        super().__init__()
        post = self._post

        def count(function: Callable[[], object]) -> None:
            CountingHost.wakes += 1
            post(function)

        self._post = count


@pytest.fixture(autouse=True)
def reset_wakes() -> None:
    CountingHost.wakes = 0


async def run_on_thread(function: Callable[[], object]) -> None:
    """Call a function on another thread, and wait for the end of that thread and its posts."""
    done: list[None] = []
    host = Host()

    def work() -> None:
        try:
            function()
        finally:
            host.post(lambda: done.append(None))

    thread = threading.Thread(target=work)
    thread.start()
    await wait_until(lambda: done)
    thread.join()


async def test_collected_posts_of_many_hosts_wake_the_loop_once() -> None:
    hosts = [CountingHost() for _ in range(5)]
    called: list[int] = []

    def post() -> None:
        with collect_posts():
            for i in range(20):
                hosts[i % 5].post(partial(called.append, i))
            assert CountingHost.wakes == 0

    await run_on_thread(post)
    assert called == list(range(20))
    assert CountingHost.wakes == 1


async def test_empty_block_wakes_no_loop() -> None:
    CountingHost()

    def post() -> None:
        with collect_posts():
            pass

    await run_on_thread(post)
    assert CountingHost.wakes == 0


async def test_nested_blocks_join_the_outer_one() -> None:
    host = CountingHost()
    called: list[str] = []

    def post() -> None:
        with collect_posts():
            host.post(partial(called.append, "outer"))
            with collect_posts():
                host.post(partial(called.append, "inner"))
            assert CountingHost.wakes == 0
            host.call(partial(called.append, "outer again"))
        host.post(partial(called.append, "after"))

    await run_on_thread(post)
    assert called == ["outer", "inner", "outer again", "after"]
    assert CountingHost.wakes == 2


async def test_exception_of_a_collected_function_is_logged_and_keeps_the_others(
    caplog: pytest.LogCaptureFixture,
) -> None:
    host = Host()
    called: list[int] = []

    def post() -> None:
        with collect_posts():
            host.post(partial(called.append, 1))
            host.post(lambda: 1 / 0)
            host.post(partial(called.append, 2))

    await run_on_thread(post)
    assert called == [1, 2]
    assert [record.levelno for record in caplog.records] == [logging.ERROR]
    assert "posted to the event loop" in caplog.text
    assert "ZeroDivisionError" in caplog.text


async def test_posts_before_an_exception_of_the_block_are_kept() -> None:
    host = Host()
    called: list[int] = []

    def post() -> None:
        with pytest.raises(KeyError), collect_posts():
            host.post(partial(called.append, 1))
            raise KeyError
        host.post(partial(called.append, 2))

    await run_on_thread(post)
    assert called == [1, 2]


async def test_posts_of_other_threads_are_not_collected() -> None:
    host = CountingHost()
    called: list[str] = []
    inside, leave = threading.Event(), threading.Event()

    def collect() -> None:
        with collect_posts():
            host.post(partial(called.append, "collected"))
            inside.set()
            leave.wait()

    thread = threading.Thread(target=collect)
    thread.start()
    inside.wait()
    await run_on_thread(partial(host.post, partial(called.append, "direct")))
    assert called == ["direct"]
    leave.set()
    await wait_until(lambda: len(called) == 2)
    thread.join()
    assert called == ["direct", "collected"]
    assert CountingHost.wakes == 2


async def test_call_on_the_loops_own_thread_is_not_delayed() -> None:
    called: list[int] = []
    with collect_posts():
        Host().call(partial(called.append, 1))
        assert called == [1]
    await checkpoint()


def test_post_to_a_loop_that_has_ended_is_ignored_and_others_are_reached(
    anyio_backend: tuple[str, dict[str, Any]],
) -> None:
    backend, options = anyio_backend
    called: list[str] = []

    async def make_host() -> Host:
        return Host()

    async def main() -> None:
        host = Host()

        def post() -> None:
            with collect_posts():
                ended.post(partial(called.append, "lost"))
                host.post(partial(called.append, "kept"))

        await run_on_thread(post)

    ended = anyio.run(make_host, backend=backend, backend_options=options)
    anyio.run(main, backend=backend, backend_options=options)
    assert called == ["kept"]
