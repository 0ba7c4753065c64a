"""``call URL``: place a call, play speech and report the measurements."""

from __future__ import annotations

import json
import sys

from .client import CallOptions, CallReport, place_call
from .remote_stream import CallFailed

_CLEAR_LINE = "\r\x1b[K"
_CUT = {"cancelled", "peer_failed", "rejected", "vanished"}
"""Reasons of an ``end_stream`` message for which a call did not last to its end."""


async def call(url: str, options: CallOptions, as_json: bool) -> bool:
    """Place a call and print its measurements, as JSON or as a table.

    Returns:
        Whether the call lasted to its end and the handler reported no error.
    """
    report: CallReport = {"url": url}
    screen = _Screen(report, quiet=as_json)
    try:
        report.update(await place_call(url, options, screen))
    except CallFailed as exc:
        report["error"] = str(exc)
        if exc.status is not None:
            report["status"] = exc.status
    finally:
        screen.clear()
    report["ok"] = ok = "error" not in report
    if options.out is not None and "heard_seconds" in report:
        report["out"] = str(options.out)
    if as_json:
        print(json.dumps(report))
    elif "heard_seconds" in report or ok:
        _print_table(report)
    if not ok:
        print(f"error: {report['error']}{_advice(report, options)}", file=sys.stderr)
    return ok


def _advice(report: CallReport, options: CallOptions) -> str:
    token = "Send a token with --token TOKEN"
    if options.headers:
        token = "The server does not accept this --token"
    advice = {401: token, 503: "Try again later"}.get(report.get("status", 0))
    if not advice or " again " in report["error"]:
        return ""
    return f". {advice}"


class _Screen:
    """Shows a call while it lasts: progress on one line of a terminal, messages above it."""

    def __init__(self, report: CallReport, quiet: bool) -> None:
        self._report = report
        self._quiet = quiet
        self._is_terminal = sys.stderr.isatty()
        self._written = False

    def connected(self, seconds: float) -> None:
        self._report["connect_seconds"] = seconds
        if not self._quiet:
            self._print(f"connected in {seconds * 1000:.0f} ms")

    def progress(self, said: float, heard: float) -> None:
        if self._is_terminal:
            line = f"{_CLEAR_LINE}  said {said:5.1f} s   heard {heard:5.1f} s"
            print(line, end="", file=sys.stderr, flush=True)
            self._written = True

    def message(self, text: str) -> None:
        """Record the end and the error of the call, and print any other message."""
        try:
            message = json.loads(text)
        except ValueError:
            message = None
        match message:
            case {"type": "end_stream"}:
                if message.get("data"):
                    self._report["ended_because"] = str(message["data"])
                if (reason := message.get("reason")) in _CUT:
                    because = self._report.get("ended_because", reason)
                    self._report["error"] = f"the server ended the call: {because}"
            case {"type": "error"}:
                reason = message.get("message") or message.get("data")
                self._report["error"] = f"the handler failed: {reason}"
            case _:
                self._print(f"message: {text}")

    def lost(self, text: str) -> None:
        self._print(text)

    def clear(self) -> None:
        if self._written:
            print(_CLEAR_LINE, end="", file=sys.stderr, flush=True)
            self._written = False

    def _print(self, text: str) -> None:
        self.clear()
        print(text, file=sys.stderr, flush=True)


def _print_table(report: CallReport) -> None:
    times = [
        ("connected in", report.get("connect_seconds"), ""),
        ("network round trip", report.get("network_round_trip"), ""),
        ("first sound after", report.get("first_sound"), ""),
        ("echo after", report.get("latency"), "  (the speech came back)"),
        ("answer after", report.get("answer_after"), "  (from the last word to the first sound)"),
    ]
    rows = [
        (label, f"{seconds * 1000:.0f} ms{note}")
        for label, seconds, note in times
        if seconds is not None
    ]
    if "frames" in report:
        if report["first_sound"] is None:
            rows.append(("heard", "nothing but silence"))
        rows.append(("frames lost", f"{report['lost']} of {report['frames'] + report['lost']}"))
    if losses := report.get("connections_lost"):
        rows.append(("connection lost", f"{losses} {'time' if losses == 1 else 'times'} before"))
    if report.get("ended"):
        because = report.get("ended_because")
        rows.append(("ended by", f"the server ({because})" if because else "the server"))
    if "out" in report:
        rows.append(("what was heard", report["out"]))
    for label, text in rows:
        print(f"{label:20} {text}")
