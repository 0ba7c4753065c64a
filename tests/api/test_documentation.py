"""Every fenced block of the documentation runs as written, or is marked with the reason why not."""

from __future__ import annotations

import ast
from itertools import pairwise
from pathlib import Path

import pytest

from fastrtc_anyio import _cli
from tests.kit.documentation import (
    PAGES,
    ROOT,
    Block,
    DocumentationError,
    all_blocks,
    find_blocks,
    programs_of,
    prose,
    put_voice,
    read,
)
from tests.testing.test_plugin import Run

RUNNERS = {
    "python": "test_python_of_pages_runs",
    "diff": "test_python_of_pages_runs",
    "mermaid": "tests/api/test_diagrams.py::test_every_diagram_is_drawn",
    "sh": "tests/interop/test_programs.py::test_commands_run",
    "json": "tests/interop/test_programs.py::test_messages_are_accepted",
}
"""Tests that run the blocks of a language without a marker."""

PROGRAM = '''
"""All blocks of a page, in one namespace. Its streams and handlers are called in memory."""

import wave

import anyio
import numpy as np
import pytest

from fastrtc_anyio import Stream
from fastrtc_anyio.handlers import StreamHandlerBase

_shown = []


def _launch(stream, *args, **options):
    """tests/interop/test_programs.py launches the streams."""
    _shown.append(stream)


with pytest.MonkeyPatch.context() as _patch:
    _patch.setattr(Stream, "launch", _launch)
    for _line, _text in BLOCKS:
        # Tracebacks show the page and its line.
        exec(compile("\\n" * (_line - 1) + _text, PAGE, "exec"), globals())
        for _value in list(globals().values()):
            if isinstance(_value, Stream | StreamHandlerBase) and _value not in _shown:
                _shown.append(_value)

with wave.open(SPEECH) as _file:
    _rate = _file.getframerate()
    _said = np.frombuffer(_file.readframes(_rate * 3 // 2), np.int16)[np.newaxis]


@pytest.mark.parametrize("number", range(len(_shown)))
async def test_shown_handler_serves_a_call(open_call, number):
    """The client shows a picture, or speaks twice: to a conversation, over its reply."""
    shown = _shown[number]
    stream = shown if isinstance(shown, Stream) else Stream(shown, modality="audio")
    inputs = tuple(component.value for component in stream._web.additional_inputs)
    async with open_call(
        stream.handler, modality=stream.modality, inputs=inputs, thread_limit=10
    ) as call:
        if stream.modality == "video":
            call.client.send_video(np.full((240, 320, 3), 90, np.uint8))
            await call.client.receive_video()
            return
        await call.speak(_said, _rate)
        if hasattr(stream.handler, "can_interrupt"):
            with anyio.fail_after(5):
                while "response_starting" not in await call.client.receive_message():
                    pass
        else:
            with anyio.fail_after(5):
                while not call.heard.any():
                    await anyio.sleep(0.02)
        await call.speak(_said, _rate)
        await anyio.sleep(2)
'''


@pytest.mark.parametrize("block", all_blocks(), ids=str)
def test_block_has_a_runner_or_a_reason(block: Block) -> None:
    if block.marker is None:
        assert block.language in RUNNERS, (
            f"no test runs a block in {block.language or 'no language'}: run it, or mark it with "
            "`<!-- not run: the reason -->`"
        )
    elif block.marker.place is not None:
        check_place(block, block.marker.place)


def check_place(block: Block, place: str) -> None:
    """Check that a script contains the block, or that a test takes the block from its page."""
    name, _, test = place.partition("::")
    code = (ROOT / name).read_text(encoding="utf-8")
    if not test:
        assert [line for line in block.text.splitlines() if line not in code.splitlines()] == []
        return
    (function,) = [node for node in ast.walk(ast.parse(code)) if getattr(node, "name", "") == test]
    taken = ast.get_source_segment(code, function) or ""
    assert f'find_block("{block.page}"' in taken, f"{place} does not run {block}"


WITH_PYTHON = [page for page in PAGES if programs_of(page)]
RUNS = 4
"""Starting pytest takes longer than most pages: a few runs for all of them."""


@pytest.mark.parametrize("first", range(RUNS))
def test_python_of_pages_runs(first: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All code of a page runs in one namespace, and its tests pass."""
    speech = Path(_cli.__file__).with_name("speech.wav")
    monkeypatch.setenv("PATH", put_voice(tmp_path, speech))
    monkeypatch.setenv("PARROT_TOKEN", "secret")
    pages = {f"test_{Path(page).stem}_{n}.py": page for n, page in enumerate(WITH_PYTHON)}
    pages = dict(list(pages.items())[first::RUNS])
    files = {}
    for name, page in pages.items():
        blocks = [(block.line, block.program) for block in programs_of(page)]
        begin = f"BLOCKS = {blocks!r}\nPAGE = {str(ROOT / page)!r}\nSPEECH = {str(speech)!r}\n"
        files[name] = begin + PROGRAM
    run = Run(tmp_path, files)
    assert set(run.outcomes.values()) == {"PASSED"}, run.output
    for name, page in pages.items():
        outcomes = [test for test in run.outcomes if test.startswith(f"{name}::")]
        assert outcomes, f"no test of {page} ran: {run.output}"
        tests = shown_tests(page)
        assert len(tests) == len(set(tests))
        assert all(any(test in ran for ran in outcomes) for test in tests), run.output


def shown_tests(page: str) -> list[str]:
    """Return the names of the tests that a page shows."""
    trees = [ast.parse(block.program) for block in programs_of(page)]
    names = [str(getattr(node, "name", "")) for tree in trees for node in ast.walk(tree)]
    return [name for name in names if name.startswith("test_")]


@pytest.mark.parametrize(
    ("source", "language", "text"),
    [
        ("```sh\nls\n```", "sh", "ls\n"),
        ("~~~~ python title='x'\n~~~\n~~~~", "python", "~~~\n"),
        ("1. step\n\n   ```{.js}\n   f()\n   ```\n", "js", "f()\n"),
        ("- ```\n  nothing\n  ```", "", "nothing\n"),
        ("> ```nginx\n> a\n> ```", "nginx", "> a\n"),
    ],
)
def test_blocks_of_all_forms_are_found(source: str, language: str, text: str) -> None:
    (block,) = find_blocks("page.md", source)
    assert (block.language, block.text, block.marker) == (language, text, None)


def test_program_of_a_diff_is_the_code_after_the_change() -> None:
    (block,) = find_blocks(
        "page.md", "```diff\n def f():\n-    old()\n+    new()\n\n     end()\n```"
    )
    assert block.program == "def f():\n\n    new()\n\n    end()\n"


def test_marker_gives_place_and_reason() -> None:
    source = "<!-- run by tests/x.py::test_y: needs\n  ffmpeg -->\n```sh\nls\n```\n"
    (block,) = find_blocks("page.md", source)
    assert block.marker is not None
    assert (block.marker.place, block.marker.reason) == ("tests/x.py::test_y", "needs ffmpeg")


@pytest.mark.parametrize(
    "source",
    [
        "<!-- not run -->\n```sh\nls\n```",
        "<!-- not run: -->\n```sh\nls\n```",
        "<!-- run by tests/x.py -->\n```sh\nls\n```",
        "<!-- not run: no block follows -->\ntext",
        "<!-- not run: a text is between -->\ntext\n```sh\nls\n```",
        "```sh\nls",
    ],
)
def test_marker_without_reason_or_block_is_an_error(source: str) -> None:
    with pytest.raises(DocumentationError):
        find_blocks("page.md", source)


@pytest.mark.parametrize("page", PAGES)
def test_code_is_fenced(page: str) -> None:
    """No indented or HTML code, which the other tests would not find."""
    lines = prose(read(page)).split("\n")
    indented = [
        text
        for above, text in pairwise(lines)
        if not above.strip() and text.startswith(("    ", "\t", "<pre", "<code"))
    ]
    assert indented == []
