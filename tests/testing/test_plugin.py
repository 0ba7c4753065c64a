"""The pytest plugin, in separate runs of pytest."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
import textwrap
from collections.abc import Mapping
from importlib.metadata import entry_points
from pathlib import Path

import pytest

import fastrtc_anyio
from fastrtc_anyio.testing import pytest_plugin

PLUGIN = "fastrtc_anyio.testing.pytest_plugin"

FEW_EXAMPLES = """
import hypothesis

hypothesis.settings.register_profile("few", max_examples=10)
hypothesis.settings.load_profile("few")
"""

HANDLER = """
import anyio, pytest, trio
from fastrtc_anyio import AsyncStreamHandler
from fastrtc_anyio.testing import tone

class Echo(AsyncStreamHandler):
    def __init__(self):
        super().__init__()
        self.send, self.take = anyio.create_memory_object_stream(100)
    async def receive(self, frame): await self.send.send(frame)
    async def emit(self): return await self.take.receive()
    async def shutdown(self): self.send.close(); self.take.close()
    def copy(self): return Echo()

class Failing(Echo):
    async def emit(self): raise OSError("out of order")
"""


class Run:
    """A run of pytest on one file, or on several by name, with the outcome of each test.

    The outcomes of several files are by file and test, as in ``test_echo.py::test_it``.
    """

    def __init__(self, folder: Path, tests: str | Mapping[str, str], *, ini: str = "") -> None:
        files = {"test_it.py": tests} if isinstance(tests, str) else tests
        for name, text in files.items():
            (folder / name).write_text(text, encoding="utf-8")
        (folder / "pytest.ini").write_text("[pytest]\n" + ini)
        (folder / "conftest.py").write_text(FEW_EXAMPLES, encoding="utf-8")
        # The entry point of an installed package loads the plugin.
        installed = any(entry.value == PLUGIN for entry in entry_points(group="pytest11"))
        done = subprocess.run(
            [
                *(sys.executable, "-m", "pytest", "-rA", "-W", "error", "--strict-markers"),
                *("-p", "no:cacheprovider", "--rootdir", folder, folder),
                *(() if installed else ("-p", PLUGIN)),
            ],
            capture_output=True,
            text=True,
            check=False,
            cwd=folder,
            env=os.environ | {"PYTHONPATH": str(Path(fastrtc_anyio.__file__).parents[1])},
        )
        self.output = done.stdout + done.stderr
        summary = self.output.partition("short test summary info")[2]
        self.outcomes: dict[str, str] = {}
        for line in summary.splitlines():
            outcome, _, rest = line.partition(" ")
            if "::" in rest and outcome.isupper():
                test = rest.partition(" - ")[0]
                self.outcomes[test.removeprefix("test_it.py::")] = outcome


def test_tests_with_open_call_run_without_configuration(tmp_path: Path) -> None:
    run = Run(
        tmp_path,
        HANDLER
        + textwrap.dedent("""
        async def test_minutes(open_call):
            async with open_call(Echo()) as call:
                await call.speak(tone(440, 48_000, 1.0), 48_000)
                await anyio.sleep(100)
            assert any(frame.any() for frame in call.client.heard)
            assert trio.current_time() > 100

        async def test_time_starts_at_zero(open_call):
            assert trio.current_time() < 1

        async def test_failing_handler(open_call):
            async with open_call(Failing()) as call:
                await call.ended.wait()

        async def test_failing_assertion(open_call):
            async with open_call(Echo()):
                await anyio.sleep(1)
                left = 3
                assert left == 4

        async def test_skipped(open_call):
            async with open_call(Echo()):
                pytest.skip("not today")

        @pytest.mark.xfail(strict=True)
        async def test_expected_to_fail(open_call):
            async with open_call(Echo()):
                raise ValueError

        def test_plain(open_call):
            assert callable(open_call)

        @pytest.fixture
        def number(): return 3

        @pytest.fixture
        def caller(open_call): return open_call

        @pytest.mark.parametrize("seconds", [1, 2])
        async def test_arguments(caller, seconds, number, tmp_path):
            async with caller(Echo()):
                await anyio.sleep(seconds)
            assert (trio.current_time() >= seconds, number, tmp_path.is_dir()) == (True, 3, True)

        class TestThings:
            async def test_method(self, open_call):
                assert isinstance(self, TestThings)
                await trio.sleep(1)
        """),
    )
    assert run.outcomes == {
        "test_minutes": "PASSED",
        "test_time_starts_at_zero": "PASSED",
        "test_failing_handler": "FAILED",
        "test_failing_assertion": "FAILED",
        "test_expected_to_fail": "XFAIL",
        "test_plain": "PASSED",
        "test_arguments[1]": "PASSED",
        "test_arguments[2]": "PASSED",
        "TestThings::test_method": "PASSED",
    }, run.output
    assert "1 skipped" in run.output
    assert "test_failing_handler - OSError: out of order" in run.output
    assert "test_failing_assertion - assert 3 == 4" in run.output


def test_each_hypothesis_example_is_a_new_run(tmp_path: Path) -> None:
    run = Run(
        tmp_path,
        HANDLER
        + textwrap.dedent("""
        from hypothesis import given, settings
        from fastrtc_anyio.testing.strategies import HangUp, audio_frames, hang_ups

        times = []

        @settings(max_examples=6, database=None, deadline=None)
        @pytest.mark.parametrize("extra", [0, 1])
        @given(frame=audio_frames(), leaves=hang_ups(2))
        async def test_any_audio(open_call, extra, frame, leaves):
            times.append(trio.current_time())
            async with open_call(Echo()) as call:
                call.client.send_audio(frame)
                await anyio.sleep(leaves.after + extra)
                call.client.hang_up(leaves.reason)

        def test_times():
            assert len(times) >= 12
            assert max(times) < 0.1

        @settings(max_examples=50, database=None, deadline=None)
        @given(hang_ups(9))
        async def test_failing(open_call, leaves):
            assert leaves.after < 1
        """),
    )
    assert run.outcomes == {
        "test_any_audio[0]": "PASSED",
        "test_any_audio[1]": "PASSED",
        "test_times": "PASSED",
        "test_failing": "FAILED",
    }, run.output
    assert "test_failing - AssertionError: assert 1.0 < 1" in run.output, "the example must shrink"


OTHERS = f"""
{HANDLER}
import sniffio

def on_virtual_time():
    library = sniffio.current_async_library()
    return library == "trio" and isinstance(
        trio.lowlevel.current_clock(), trio.testing.MockClock
    )
"""


def test_tests_marked_for_anyio_run_under_anyio(tmp_path: Path) -> None:
    run = Run(
        tmp_path,
        OTHERS
        + """
@pytest.mark.anyio
async def test_marked(open_call):
    assert not on_virtual_time()

async def test_backend(open_call, anyio_backend):
    assert not on_virtual_time()

async def test_unmarked(open_call):
    assert on_virtual_time()

class TestMarked:
    pytestmark = pytest.mark.anyio

    async def test_method(self, open_call):
        assert not on_virtual_time()
""",
    )
    assert run.outcomes == {
        "test_marked[asyncio]": "PASSED",
        "test_marked[trio]": "PASSED",
        "test_backend[asyncio]": "PASSED",
        "test_backend[trio]": "PASSED",
        "test_unmarked": "PASSED",
        "TestMarked::test_method[asyncio]": "PASSED",
        "TestMarked::test_method[trio]": "PASSED",
    }, run.output


def test_anyio_auto_mode_runs_all_tests(tmp_path: Path) -> None:
    run = Run(
        tmp_path,
        OTHERS
        + """
async def test_mine(open_call):
    assert not on_virtual_time()
    async with open_call(Echo()) as call:
        await anyio.sleep(0.05)
""",
        ini="anyio_mode = auto",
    )
    assert run.outcomes == {"test_mine[asyncio]": "PASSED", "test_mine[trio]": "PASSED"}, run.output


def test_other_tests_are_unaffected(tmp_path: Path) -> None:
    run = Run(
        tmp_path,
        HANDLER
        + textwrap.dedent("""
        async def test_without_the_fixture(): ...

        @pytest.mark.trio
        async def test_for_pytest_trio(open_call): ...

        @pytest.mark.asyncio
        async def test_for_pytest_asyncio(open_call): ...

        class TestOwnFixture:
            @pytest.fixture
            def open_call(self): return 3

            async def test_own(self, open_call): ...
        """),
        ini="markers =\n  trio: of pytest-trio\n  asyncio: of pytest-asyncio\n",
    )
    # No plugin runs them, and pytest reports it.
    assert set(run.outcomes.values()) == {"FAILED"}, run.output
    assert len(run.outcomes) == 4
    assert run.output.count("async def functions are not natively supported") >= 4


def test_plugin_imports_only_pytest_at_first() -> None:
    tree = ast.parse(Path(str(pytest_plugin.__file__)).read_text(encoding="utf-8"))
    imported = {
        name
        for node in tree.body
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in (
            [node.module] if isinstance(node, ast.ImportFrom) else [a.name for a in node.names]
        )
    }
    packages = {str(name).partition(".")[0] for name in imported}
    assert packages - set(sys.stdlib_module_names) == {"pytest"}


def test_entry_point_is_the_plugin() -> None:
    found = [e for e in entry_points(group="pytest11") if e.name == "fastrtc_anyio"]
    if not found:
        pytest.skip("the package is not installed here")
    assert found[0].value == PLUGIN
    assert found[0].load() is pytest_plugin
