"""Tools to test handlers and transports with: product, not leftovers."""

from .call import Call, open_call
from .check_peer import check_peer
from .signals import speech_like, tone, tone_snr
from .virtual_time import virtual_time

__all__ = ["Call", "check_peer", "open_call", "speech_like", "tone", "tone_snr", "virtual_time"]
