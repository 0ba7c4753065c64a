"""Serve the sessions of a stream in several processes.

A session lives in one process. Requests about it that reach another process are forwarded.
"""

from .directory import Location, MemoryDirectory, SessionDirectory
from .member import Member
from .switchboard import Switchboard

__all__ = ["Location", "Member", "MemoryDirectory", "SessionDirectory", "Switchboard"]
