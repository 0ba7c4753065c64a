"""Public tools to test handlers and transports.

:mod:`.strategies` needs Hypothesis; import it explicitly.
"""

from .call import Call, NoSpeechWarning, OpenCall, open_call
from .check_peer import check_peer
from .faults import FaultPlan, faulty, inject_fault
from .link import LinkFaults
from .recordings import spoken
from .signals import speech_like, tone, tone_snr
from .virtual_time import virtual_time

__all__ = [
    "Call",
    "FaultPlan",
    "LinkFaults",
    "NoSpeechWarning",
    "OpenCall",
    "check_peer",
    "faulty",
    "inject_fault",
    "open_call",
    "speech_like",
    "spoken",
    "tone",
    "tone_snr",
    "virtual_time",
]
