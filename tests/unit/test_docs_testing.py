"""What docs/testing.md shows is so: all its code, in one file, under pytest."""

from __future__ import annotations

import re
from pathlib import Path

from .test_testing_plugin import Run

PAGE = Path(__file__).parents[2] / "docs" / "testing.md"


def test_the_code_runs(tmp_path: Path) -> None:
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    wanted = re.findall(r"^ *async def (test_\w+)", "\n".join(blocks), re.MULTILINE)
    assert len(wanted) == len(set(wanted)) >= 8
    run = Run(tmp_path, "\n\n".join(blocks))
    passed = {re.sub(r".*::|\[.*", "", name) for name in run.outcomes}
    assert passed == set(wanted), run.output
    assert set(run.outcomes.values()) == {"PASSED"}, run.output
