"""The process of PocketSphinx: its end, its unexpected end, and forks."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable

import pytest

from fastrtc_anyio.speech._process import ModelProcess
from fastrtc_anyio.speech.pocketsphinx import PROGRAM, PocketSphinxSTT
from tests.kit.served import is_running

pytest.importorskip("pocketsphinx")

FORK = """
import os
from fastrtc_anyio.speech._process import ModelProcess
from fastrtc_anyio.speech.pocketsphinx import PROGRAM

model = ModelProcess(PROGRAM, ["tell me a story"])
before = model._process.pid
if child := os.fork():
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
else:
    assert model.request("check", ["Hello"]) == ["hello"]
    assert model._process.pid != before
    del model
    os._exit(0)
assert model.request("check", ["stop"]) == ["stop"]
assert model._process.pid == before
print(before)
"""


def test_process_starts_again_after_unexpected_end() -> None:
    model = ModelProcess(PROGRAM, ["tell me a story"])
    first = model._process
    first.kill()
    first.wait()
    assert model.request("check", ["Tell ME"]) == ["tell me"]
    assert model._process is not first


def test_end_during_request_is_an_error_and_next_request_succeeds() -> None:
    model = PocketSphinxSTT(["tell me a story"])
    process = model._process._process
    os.kill(process.pid, signal.SIGSTOP)
    threading.Timer(0.1, process.kill).start()
    with pytest.raises(RuntimeError, match=r"_pocketsphinx_process\.py ended unexpectedly with"):
        model.check_phrases(["hello"])
    model.check_phrases(["hello"])


def test_process_ends_with_the_model() -> None:
    model = PocketSphinxSTT(["tell me a story"])
    pid = model._process._process.pid
    del model
    gc.collect()
    assert not is_running(pid)


def test_failed_start_leaves_no_process() -> None:
    started: list[subprocess.Popen[bytes]] = []
    popen = subprocess.Popen

    def record(*args: object, **kwargs: object) -> object:
        started.append(popen(*args, **kwargs))  # type: ignore[call-overload]
        return started[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(subprocess, "Popen", record)
        with pytest.raises(ValueError, match="xyzzy"):
            PocketSphinxSTT(["say xyzzy"])
    assert started[0].returncode is not None


def test_missing_interpreter_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with pytest.raises(RuntimeError, match="could not start /nowhere/python"):
        PocketSphinxSTT()


def test_forked_process_starts_another_one() -> None:
    done = subprocess.run([sys.executable, "-c", FORK], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert not is_running(int(done.stdout))  # it ended with its parent


def test_requests_of_several_threads_get_their_own_answers() -> None:
    model = ModelProcess(PROGRAM, ["tell me a story"])
    words = ["hello", "stop", "story", "time"] * 25
    answers: dict[int, object] = {}

    def ask(k: int) -> Callable[[], None]:
        return lambda: answers.__setitem__(k, model.request("check", [words[k]]))

    threads = [threading.Thread(target=ask(k)) for k in range(len(words))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == {k: [word] for k, word in enumerate(words)}
