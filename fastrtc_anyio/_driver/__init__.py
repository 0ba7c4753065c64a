"""Drives a handler over a session: the classes of :mod:`.handlers` are an adapter onto it.

Plain methods run on worker threads of the session's own, one thread for each method, coroutine
methods on the event loop. All methods run side by side, and an error in any of them ends the rest.

* :mod:`.program` - the parts of a handler as one task tree; what the handler is given
* :mod:`.calls` - calling user code, of either colour
* :mod:`.emissions` - what user code returns, checked and taken apart
* :mod:`.audio`, :mod:`.video`, :mod:`.generators`, :mod:`.conversation` - the parts
* :mod:`.own_algorithm` - a subclass's ``determine_pause``, for a conversation
"""

from .calls import check_handler
from .emissions import Emission, read_audio_emission, read_video_emission
from .handler import HandlerDriver

__all__ = [
    "Emission",
    "HandlerDriver",
    "check_handler",
    "read_audio_emission",
    "read_video_emission",
]
