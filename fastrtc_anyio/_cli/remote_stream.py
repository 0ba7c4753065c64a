"""The HTTP endpoints of a stream, as a client sees them, and their refusals."""

from __future__ import annotations

import math
import secrets
from collections.abc import Mapping

import httpx

from .wav import describe_error

__all__ = ["CallFailed", "RemoteStream"]

_SECONDS = 30.0
"""Seconds for a request."""
_PASSING = {429, 502, 503, 504}
"""Statuses after which another attempt may succeed."""
_MOST_WAIT = 120.0
"""Seconds of a Retry-After at most."""


class CallFailed(Exception):
    """A call failed, or the server refused it with an HTTP ``status``.

    Attributes:
        is_passing: whether another attempt may succeed.
        retry_after: seconds that the server asks to wait before it.
    """

    def __init__(
        self,
        message: str,
        status: int | None = None,
        *,
        is_passing: bool = False,
        retry_after: float = 0.0,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.is_passing = is_passing
        self.retry_after = retry_after


class RemoteStream:
    """A stream behind HTTP: one call at a time, with an id of its own.

    Attributes:
        inputs: the values of the stream's inputs by name.
    """

    def __init__(self, http: httpx.AsyncClient, url: str) -> None:
        self._http = http
        self._url = url
        self._webrtc_id = ""
        self._resume_token: object = None
        self.inputs: Mapping[str, object] = {}

    async def request_config(self) -> Mapping[str, object]:
        """Request the stream's configuration; {} from FastRTC's servers, which have none."""
        url = f"{self._url}/webrtc/config"
        try:
            reply = await self._http.get(url)
        except (httpx.HTTPError, httpx.InvalidURL) as exc:
            raise _no_answer(url, exc) from exc
        return _read_object(reply) if reply.is_success else {}

    async def send_offer(self, sdp: str) -> str:
        """Begin a call, which continues the former one if there was one. Return the answer.

        Raises:
            CallFailed: there is no answer, or a refusal.
        """
        self._webrtc_id = secrets.token_hex(16)
        body: dict[str, object] = {"type": "offer", "sdp": sdp}
        if self._resume_token is not None:
            body["resume_token"] = self._resume_token
        reply = await self._post("webrtc/offer", body)
        answer = _read_object(reply)
        sdp_answer = answer.get("sdp")
        if not isinstance(sdp_answer, str) or not reply.is_success:
            raise _refusal(reply, "call")
        self._resume_token = answer.get("resume_token")
        return sdp_answer

    async def send_inputs(self) -> None:
        """Send the inputs, if the stream declares any."""
        if not self.inputs:
            return
        reply = await self._post("input_hook", self.inputs)
        if not reply.is_success:
            raise _refusal(reply, "inputs")

    async def _post(self, path: str, body: Mapping[str, object]) -> httpx.Response:
        url = f"{self._url}/{path}"
        try:
            return await self._http.post(
                url, json={**body, "webrtc_id": self._webrtc_id}, timeout=_SECONDS
            )
        except httpx.HTTPError as exc:
            raise _no_answer(url, exc) from exc


def _read_object(reply: httpx.Response) -> Mapping[str, object]:
    """Return the JSON object in a response; {} for anything else."""
    try:
        body = reply.json()
    except ValueError:
        return {}
    return body if isinstance(body, dict) else {}


def _no_answer(url: str, error: Exception) -> CallFailed:
    return CallFailed(f"no answer from {url}: {describe_error(error)}", is_passing=True)


def _refusal(reply: httpx.Response, what: str) -> CallFailed:
    status, meta = reply.status_code, _read_object(reply).get("meta")
    if not isinstance(meta, dict):
        phrase = f"{status} {httpx.codes.get_reason_phrase(status)}".strip()
        passing = status in _PASSING  # of a proxy whose server is away
        return CallFailed(f"no stream found at {reply.url}: {phrase}", status, is_passing=passing)
    reason = meta.get("message") or meta.get("error")
    return CallFailed(
        f"the server refused the {what}: {status}, {reason}",
        status,
        is_passing=status in _PASSING,
        retry_after=_read_retry_after(reply),
    )


def _read_retry_after(reply: httpx.Response) -> float:
    """Return the seconds to wait; 0 without them. Servers also send dates, which are ignored."""
    try:
        seconds = float(reply.headers.get("Retry-After", ""))
    except ValueError:
        return 0.0
    return min(max(seconds, 0.0), _MOST_WAIT) if math.isfinite(seconds) else 0.0
