"""The memory that this process uses, as it knows it itself."""

from __future__ import annotations

import ctypes
import gc
import sys


class _MallocInfo(ctypes.Structure):
    """``struct mallinfo2`` of glibc 2.33 and later."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in (
            *("arena", "ordblks", "smblks", "hblks", "hblkhd"),
            *("usmblks", "fsmblks", "uordblks", "fordblks", "keepcost"),
        )
    ]
    hblkhd: int
    uordblks: int


def count_memory() -> dict[str, int]:
    """Return what is in use after a search for garbage.

    ``garbage`` is the number of objects that the search has found, ``blocks`` that of blocks of
    Python's allocator, and ``malloc`` the bytes of all other allocations; 0 without glibc 2.33.
    """
    garbage = gc.collect()
    info = getattr(ctypes.CDLL(None), "mallinfo2", None)
    malloc = 0
    if info is not None:
        info.restype = _MallocInfo
        found = info()
        malloc = found.uordblks + found.hblkhd
    return {"garbage": garbage, "blocks": sys.getallocatedblocks(), "malloc": malloc}
