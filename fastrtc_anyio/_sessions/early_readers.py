"""Readers of outputs that arrive before their session."""

from __future__ import annotations

from fastrtc_anyio.errors import LimitExceeded
from fastrtc_anyio.limits import RequestLimits
from fastrtc_anyio.outputs import OutputBoard, OutputReader


class EarlyReaders:
    """Readers that wait for their session to begin.

    A page on a WebSocket requests its outputs separately, and the request may arrive before the
    message that names the session.

    Args:
        limits: maximum number of waiting readers, and their patience.
    """

    def __init__(self, limits: RequestLimits) -> None:
        self._limits = limits
        # `list(d)` and `d.pop(k, None)` are atomic: threads need no lock.
        self._awaited: dict[OutputReader, str] = {}

    def __len__(self) -> int:
        return len(self._open_readers())

    def add(self, webrtc_id: str) -> OutputReader:
        """Create a reader that waits for the session ``webrtc_id``. Thread-safe.

        Raises:
            LimitExceeded: too many readers are waiting already.
        """
        limit = self._limits.early_clients
        if len(self) >= limit:
            text = f"{limit} readers wait for their sessions already (RequestLimits.early_clients)"
            raise LimitExceeded(text, 429)
        reader = OutputReader(webrtc_id, self._limits.early_seconds)
        self._awaited[reader] = webrtc_id
        return reader

    def attach(self, webrtc_id: str, board: OutputBoard) -> None:
        """Move the readers that wait for ``webrtc_id`` to the board of its session."""
        for reader in self._open_readers():
            if self._awaited.get(reader) == webrtc_id:
                self._awaited.pop(reader, None)
                board.add(reader)

    def close(self) -> None:
        """End all waiting readers: no further session will begin."""
        for reader in self._open_readers():
            self._awaited.pop(reader, None)
            reader.end()

    def _open_readers(self) -> list[OutputReader]:
        for reader in list(self._awaited):
            if not reader.is_open:
                self._awaited.pop(reader, None)
        return list(self._awaited)
