"""The command line of the benchmarks names what is wrong, and what was expected."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from benchmarks import report
from benchmarks.__main__ import main, parse
from benchmarks.names import check_server
from benchmarks.processes import Cores
from benchmarks.suites import SUITES, Options


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("ecko", "unknown suite ecko; choose from echo, latency,"),
        ("echo --servers ours", "unknown server ours; expected ours-async|sync|session|"),
        ("echo --servers ours-sink-24", "unknown server ours-sink-24; expected ours-async|"),
        ("echo --servers ours-async-44", "-RATE in kHz (8, 12, 16, 24, 48)"),
        ("echo --servers fastrtc-async-24-trio", "for ours, -trio or -asyncio"),
        ("echo --servers raw-plain-48-asyncio-1", "unknown server raw-plain-48-asyncio-1"),
        (
            "bridge --servers fastrtc-async-24",
            "cannot measure fastrtc-async-24; expected ours-async",
        ),
        ("video --servers ours-async-24", "expected ours-video; fastrtc-video; raw-plain"),
        ("--servers raw-plain", "suite recovery cannot measure raw-plain; expected ours-stopping;"),
        ("echo --calls 0", "--calls: must be a positive whole number; got 0"),
        ("echo --rounds -1", "--rounds: must be a positive whole number; got -1"),
        ("echo --seconds nan", "--seconds: must be a number of seconds; got nan"),
        ("echo --tree /nowhere", "/nowhere contains no folder fastrtc_anyio"),
    ],
)
def test_wrong_argument(arguments: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse(arguments.split())
    assert message in capsys.readouterr().err


def test_other_systems(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    with pytest.raises(SystemExit):
        parse(["echo"])
    assert (
        "needs Linux, for /proc and the choice of cores; this is darwin" in capsys.readouterr().err
    )


@pytest.mark.skipif(sys.platform != "linux", reason="benchmarks need Linux")
@pytest.mark.parametrize("python", ["/nowhere/python", "/", "/bin/false"])
def test_interpreter_without_fastrtc(python: str) -> None:
    with pytest.raises(SystemExit, match=f"interpreter with FastRTC installed; got {python}"):
        main(["imports", "--fastrtc", python])


def test_servers_of_all_suites_have_valid_names() -> None:
    options = Options((), (1, 10), 1.0, 1.0, 1, Cores(0, 1), True, "python", ())
    for suite in SUITES.values():
        for case in suite.cases(options):
            check_server(case.server)
            suite.check(case.server)


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"measurements": [{}]}', '{"measurements": 1}', "\xff"]
)
def test_report_of_another_file(
    content: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report, "find_spec", lambda name: object())
    path = tmp_path / "other.json"
    path.write_bytes(content.encode("latin-1"))
    with pytest.raises(
        SystemExit, match=r"other\.json must be a JSON file that python -m benchmarks"
    ):
        report.main([str(path)])
    with pytest.raises(SystemExit, match=r"missing\.json cannot be read: No such file"):
        report.main([str(tmp_path / "missing.json")])


def test_report_without_matplotlib(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "find_spec", lambda name: None)
    with pytest.raises(SystemExit, match="matplotlib is not installed: pip install"):
        report.main(["benchmarks.json"])
