"""Find the session of a request, in its path, its query or its JSON body."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal
from urllib.parse import parse_qs

from anyio import move_on_after
from starlette.types import Message, Receive, Scope

from fastrtc_anyio._signaling.messages import load_json
from fastrtc_anyio._signaling.requests import MAX_ID_LENGTH
from fastrtc_anyio._signaling.session_ids import OWNER_CHARACTERS
from fastrtc_anyio.limits import RequestLimits

__all__ = ["BufferedRequest", "Subject"]

_SEGMENT = re.compile(rf"[A-Za-z0-9_-]{{1,{OWNER_CHARACTERS}}}\.[A-Za-z0-9_-]{{22}}")
"""A session's own id."""
_OFFER_PATHS = ("/webrtc/offer", "/whip", "/whep")
_MAX_QUERY = 4096
_BEGINNINGS = (b"", b"{", b" ", b"\t", b"\r", b"\n")
"""First bytes of a JSON object."""


@dataclass(frozen=True)
class Subject:
    """The session that a request is about.

    Attributes:
        name: the id of a session; None if the request is about none.
        kind: ``"offer"`` for a request that may begin a session; ``"early"`` for one that may come
            before its session; ``"metrics"`` and ``"ready"`` for those about all processes.
    """

    name: str | None
    kind: Literal["offer", "early", "other", "metrics", "ready"]


class BufferedRequest:
    """An HTTP request whose body, if it may be JSON, is read in advance, up to a limit.

    Args:
        limits: how much is read, and for how long.
    """

    def __init__(self, scope: Scope, receive: Receive, limits: RequestLimits | None = None) -> None:
        self.scope = scope
        self._receive = receive
        self._limits = limits or RequestLimits()
        self._messages: list[Message] = []
        self._next = 0
        self.is_spent = False
        """Whether a part of the body has been passed on that was not read in advance."""

    async def find_subject(self) -> Subject:
        """Return what the request is about."""
        path: str = self.scope["path"].rstrip("/")
        is_post = self.scope["method"] == "POST"
        begins = is_post and path.endswith(_OFFER_PATHS)
        _, _, last = path.rpartition("/")
        is_described = self.scope["method"] == "GET" and path.endswith(f"/sessions/{last}")
        if _SEGMENT.fullmatch(last) or (is_described and len(last) <= MAX_ID_LENGTH):
            return Subject(last, "other")
        if (name := _name_in_query(self.scope["query_string"])) is not None:
            return Subject(name, "early" if self._reads_events(path) else "other")
        if not is_post:
            return Subject(None, self._kind_for_operators(path))
        body = await self._read_json(begins)
        given = body.get("webrtc_id")
        name = given if isinstance(given, str) and 0 < len(given) <= MAX_ID_LENGTH else None
        if body.get("type") == "ice-candidate":
            return Subject(name, "early")
        return Subject(name, "offer" if begins and not body.get("restart") else "other")

    def _kind_for_operators(self, path: str) -> Literal["metrics", "ready", "other"]:
        if self.scope["method"] != "GET":
            return "other"
        if path.endswith("/metrics"):
            return "metrics"
        return "ready" if path.endswith("/health/ready") else "other"

    def _reads_events(self, path: str) -> bool:
        accepted = b",".join(value for key, value in self.scope["headers"] if key == b"accept")
        is_for_events = path.endswith("/outputs") or b"text/event-stream" in accepted
        return self.scope["method"] == "GET" and is_for_events

    @property
    def is_buffered(self) -> bool:
        """Whether the whole body has been read, so that it can be sent more than once."""
        return bool(self._messages) and not self._messages[-1].get("more_body", False)

    def rewind(self) -> None:
        """Let :meth:`receive` begin anew."""
        self._next = 0

    async def receive(self) -> Message:
        """Return the next message of the request: ASGI's ``receive`` for an application."""
        if self._next < len(self._messages):
            self._next += 1
            return self._messages[self._next - 1]
        message = await self._receive()
        self.is_spent = self.is_spent or message["type"] == "http.request"
        return message

    async def _read_json(self, is_offer: bool) -> dict[str, object]:
        """Return the body, if it is a JSON object that is not too large or too slow.

        Other bodies than offers are read no further than to see that they are no objects.
        """
        body, more = bytearray(), True
        last: Message | None = None
        with move_on_after(self._limits.body_seconds):
            while more and len(body) <= self._limits.body_bytes:
                message = await self._receive()
                if message["type"] == "http.disconnect":
                    last = message
                    break
                body += message.get("body", b"")
                more = message.get("more_body", False)
                if not is_offer and body[:1] not in _BEGINNINGS:
                    break
        # One message: each of a thousand chunks would take more memory than its bytes.
        self._messages = [{"type": "http.request", "body": bytes(body), "more_body": more}]
        if last is not None:
            self._messages.append(last)
        if more:
            return {}
        try:
            found = load_json(bytes(body))
        except ValueError:
            return {}
        return found if isinstance(found, dict) else {}


def _name_in_query(query: bytes) -> str | None:
    if b"webrtc_id=" not in query or len(query) > _MAX_QUERY:
        return None
    # The last one, as in Starlette's query_params.
    given = parse_qs(query.decode("latin-1"), keep_blank_values=True)
    found = given.get("webrtc_id", [""])[-1]
    return found if 0 < len(found) <= MAX_ID_LENGTH else None
