"""``call URL``: place a call, say something, and tell how it went."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from fastrtc_anyio.demo.caller import CallOptions, place_call

__all__ = ["call"]


async def call(url: str, options: CallOptions, out: Path | None, as_json: bool) -> bool:
    """Place the call.

    Args:
        url: of the server, as the page has it.
        options: what to say and how long to listen.
        out: where what was heard is written, as WAV.
        as_json: print one JSON object.

    Returns:
        Whether the call came up and lasted to its end.
    """
    results: dict[str, Any] = {"url": url}

    def report(fields: dict[str, Any]) -> None:
        event = fields.pop("event")
        if event == "progress":
            _show_progress(fields)
        elif event == "message":
            print(f"message: {fields['text']}", file=sys.stderr)
        elif event == "connected":
            results["connect_seconds"] = fields["seconds"]
            print(f"connected in {fields['seconds'] * 1000:.0f} ms", file=sys.stderr)
        else:
            results.update(fields)

    worked = await place_call(url, options, report, out)
    results["ok"] = worked
    if out is not None and worked and "heard_seconds" in results:
        results["out"] = str(out)
    if as_json:
        print(json.dumps(results))
    elif worked:
        _show(results)
    if not worked:
        print(f"error: {results['error']}", file=sys.stderr)
    return worked


def _show_progress(fields: dict[str, Any]) -> None:
    line = f"  said {fields['played']:5.1f} s   heard {fields['heard']:5.1f} s"
    end = "\r" if sys.stderr.isatty() else "\n"
    print(line, end=end, file=sys.stderr, flush=True)


def _show(results: dict[str, Any]) -> None:
    def milliseconds(name: str) -> str:
        value = results.get(name)
        return "-" if value is None else f"{value * 1000:.0f} ms"

    print(f"connected in         {milliseconds('connect_seconds')}")
    print(f"first sound after    {milliseconds('first_sound')}")
    print(f"echo after           {milliseconds('latency')}")
    print(f"answer after         {milliseconds('answer_after')}")
    if "frames" in results:
        total = results["frames"] + results["lost"]
        print(f"frames lost          {results['lost']} of {total}")
    if results.get("ended"):
        print("ended by             the server")
    if "out" in results:
        print(f"what was heard       {results['out']}")
