"""Drivers: a handler or function of the application, serving a session.

Plain methods of a handler run on threads of the session, one thread per method; coroutine methods
run on the event loop. All methods run concurrently, and an error in any of them ends the session.

* :mod:`.factory` - the driver for any value that an application passes to a ``Stream``
* :mod:`.handler` - a handler's parts as one task tree; its messages and audio
* :mod:`.run` - one handler's service of one session
* :mod:`.calls` - calls of the handler's code, plain or async
* :mod:`.emissions` - values from the handler's code, checked and taken apart
* :mod:`.video`, :mod:`.generators` - further parts of a handler
* :mod:`.conversation` - the part of a handler that takes turns, with its :mod:`.replies` and
  :mod:`.interruptions`
"""

from .emissions import read_audio_emission, read_audio_frame
from .handler import HandlerDriver, check_handler

__all__ = ["HandlerDriver", "check_handler", "read_audio_emission", "read_audio_frame"]
