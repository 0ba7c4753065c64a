"""The text of a conversation, for a language model, for the client and for the record."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from ._core.options import check_type

__all__ = ["Transcript", "TranscriptEntry"]


class TranscriptEntry(NamedTuple):
    """A text and its speaker."""

    role: str
    """The speaker, with the names of chat models: ``"user"``, ``"assistant"``."""
    text: str
    """The text, without white space at both ends."""


class Transcript:
    """The text of a conversation: entries in the order in which they were added.

    ``session.transcript`` is one. :class:`ReplyOnPause` adds what the client heard of each reply;
    the application adds what it has recognised. Iterate over it to read the entries. Any thread may
    use it.
    """

    def __init__(self) -> None:
        self._entries: list[TranscriptEntry] = []

    def add(self, role: str, text: str) -> None:
        """Add an entry. A blank text, such as that of an interrupted silence, adds none.

        Raises:
            TypeError: an argument is not a str.
            ValueError: ``role`` is empty.
        """
        check_type("role", role, str)
        check_type("text", text, str)
        if not role:
            raise ValueError("role must be a str that is not empty; got ''")
        if words := text.strip():
            self._entries.append(TranscriptEntry(role, words))

    def messages(self, system: str | None = None) -> list[dict[str, str]]:
        """Return the conversation in the form of the OpenAI chat API.

        Consecutive entries of one role become one message, joined with a space: the templates of
        many models require that the roles alternate. A reply that was interrupted before its first
        word leaves such entries of the user.

        Args:
            system: text of a message with the role ``"system"`` before all others.

        Raises:
            TypeError: ``system`` is not a str.

        Returns:
            New dictionaries with the keys ``"role"`` and ``"content"``. The first message after the
            system's is the assistant's if the handler has greeted the user.
        """
        check_type("system", system, str, optional=True)
        messages = [] if system is None else [{"role": "system", "content": system}]
        joins = False
        for role, text in self:
            if joins and messages[-1]["role"] == role:
                messages[-1]["content"] += f" {text}"
            else:
                messages.append({"role": role, "content": text})
            joins = True
        return messages

    def __iter__(self) -> Iterator[TranscriptEntry]:
        return iter(self._entries.copy())

    def __len__(self) -> int:
        return len(self._entries)
