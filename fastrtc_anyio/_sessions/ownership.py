"""Owners of sessions: the clients whose requests reach them.

An owner is an identity that ``authenticate`` returned. A session without an owner is reached by
every client without an identity that knows its id.
"""

from __future__ import annotations

import math
import re

from fastrtc_anyio._core.log import logger
from fastrtc_anyio.session import Session

ANONYMOUS = ""
"""Identity of a client without one. None stands for the application, which reaches all sessions."""
_MIN_BITS = 64
_CLASSES = (("[0-9]", 10), ("[a-z]", 26), ("[A-Z]", 26))
_HEX = re.compile(r"[0-9a-f]*|[0-9A-F]*")


def is_reachable(session: Session, identity: str | None) -> bool:
    """Return whether requests of a client reach a session."""
    return identity is None or identity == (session.identity or ANONYMOUS)


class IdCheck:
    """Warns once of session ids that other clients could guess."""

    def __init__(self) -> None:
        self._warned = False

    def check(self, alias: str) -> None:
        """Log a warning if an id that a client chose has less than 64 bits of randomness."""
        bits = estimate_bits(alias)
        if bits >= _MIN_BITS or self._warned:
            return
        self._warned = True
        logger.warning(
            "a client's webrtc_id has at most %d bits of randomness: other clients may guess it "
            "and reach the session. Use ids of at least %d random bits, such as 32 hexadecimal "
            "digits, or let authenticate() return an identity for each client",
            bits,
            _MIN_BITS,
            event="client.guessable_id",
        )


def estimate_bits(text: str) -> float:
    """Return the maximum randomness of an id in bits: its letters and digits, drawn by chance.

    The alphabet is the union of the classes that occur. Punctuation counts as separators.
    """
    characters = re.sub("[^0-9A-Za-z]", "", text)
    alphabet = sum(size for pattern, size in _CLASSES if re.search(pattern, characters))
    if _HEX.fullmatch(characters):
        alphabet = min(alphabet, 16)
    return len(characters) * math.log2(max(alphabet, 1))
