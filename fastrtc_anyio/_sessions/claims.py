"""The claims of a service to the ids that its clients have chosen."""

from __future__ import annotations

from typing import Protocol


class SessionClaims(Protocol):
    """Registers the sessions of this process, so that other processes find them."""

    @property
    def name(self) -> str:
        """The name of this process, with which the ids of its sessions begin."""
        ...

    async def claim(self, webrtc_id: str, session_id: str) -> None:
        """Register the id that the client of a session has chosen.

        Raises:
            InvalidStateError: a session of another process has it.
        """

    def release(self, webrtc_id: str, session_id: str) -> None:
        """Give up a claim, if there is one. Returns at once."""
