"""``call URL``: place a call, say something, and tell how it went."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from .client import CallOptions, place_call

__all__ = ["call"]

_CLEAR_LINE = "\r\x1b[K"


async def call(url: str, options: CallOptions, out: Path | None, as_json: bool) -> bool:
    """Place the call.

    Args:
        url: of the server, as the page has it.
        options: what to say and how long to listen.
        out: where what was heard is written, as WAV.
        as_json: print one JSON object.

    Returns:
        Whether the call came up and lasted to its end, and the handler told of no error.
    """
    results: dict[str, Any] = {"url": url}
    screen = _Screen()

    def report(fields: dict[str, Any]) -> None:
        event = fields.pop("event")
        if event == "progress":
            screen.show_progress(fields["played"], fields["heard"])
        elif event == "message":
            _take_message(fields["text"], results, screen)
        elif event == "connected":
            results["connect_seconds"] = fields["seconds"]
            screen.say(f"connected in {fields['seconds'] * 1000:.0f} ms")
        else:
            results.update(fields)

    try:
        worked = await place_call(url, options, report, out)
    finally:
        screen.clear()
    results["ok"] = worked = worked and "error" not in results
    if out is not None and "heard_seconds" in results:
        results["out"] = str(out)
    if as_json:
        print(json.dumps(results))
    elif "heard_seconds" in results or worked:
        _show(results)
    if not worked:
        print(f"error: {results['error']}{_advice(results, options)}", file=sys.stderr)
    return worked


def _take_message(text: str, results: dict[str, Any], screen: _Screen) -> None:
    """Understand what the server says of the call; show what the handler says."""
    try:
        parsed = json.loads(text)
    except ValueError:
        parsed = None
    message: dict[str, Any] = parsed if isinstance(parsed, dict) else {}
    kind = message.get("type")
    if kind == "end_stream":
        if message.get("data"):
            results["ended_because"] = message["data"]
    elif kind == "error":
        results["error"] = f"the handler failed: {message.get('message') or message.get('data')}"
    else:
        screen.say(f"message: {text}")


def _advice(results: dict[str, Any], options: CallOptions) -> str:
    """What a person can do about a refusal."""
    match results.get("status"):
        case 401 if "Authorization" in options.headers:
            return ". It does not take this --token"
        case 401:
            return ". --token TOKEN sends one"
        case 503:
            return ". Try again in a while"
        case _:
            return ""


class _Screen:
    """Where progress is shown: a line that is written over, and on a terminal only."""

    def __init__(self) -> None:
        self._live = sys.stderr.isatty()
        self._written = False

    def show_progress(self, said: float, heard: float) -> None:
        if self._live:
            line = f"{_CLEAR_LINE}  said {said:5.1f} s   heard {heard:5.1f} s"
            print(line, end="", file=sys.stderr, flush=True)
            self._written = True

    def say(self, text: str) -> None:
        self.clear()
        print(text, file=sys.stderr, flush=True)

    def clear(self) -> None:
        if self._written:
            print(_CLEAR_LINE, end="", file=sys.stderr, flush=True)
            self._written = False


def _show(results: dict[str, Any]) -> None:
    rows: list[tuple[str, str]] = []

    def add(label: str, name: str, note: str = "") -> None:
        if results.get(name) is not None:
            rows.append((label, f"{results[name] * 1000:.0f} ms{note}"))

    add("connected in", "connect_seconds")
    add("network round trip", "network_round_trip")
    add("first sound after", "first_sound")
    add("echo after", "latency", "  (what was said came back)")
    add("answer after", "answer_after", "  (from the last word to the first sound)")
    if "frames" in results:
        total = results["frames"] + results["lost"]
        if results["first_sound"] is None:
            rows.append(("heard", "nothing but silence"))
        rows.append(("frames lost", f"{results['lost']} of {total}"))
    if results.get("ended"):
        because = results.get("ended_because")
        rows.append(("ended by", f"the server ({because})" if because else "the server"))
    if "out" in results:
        rows.append(("what was heard", results["out"]))
    for label, text in rows:
        print(f"{label:20} {text}")
