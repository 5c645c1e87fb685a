"""How Python and the C library hand memory back."""

import gc
import sys

__all__ = ["give_back_freed_memory", "keep_what_is_loaded"]

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8  # malloc.h of glibc


def give_back_freed_memory() -> None:
    """Let large blocks go back to the system once they are freed, where the C library is glibc.

    By itself it keeps all blocks of up to 32 MB once such a one was freed, and has an arena for each thread:
    arrays and tensors come and go, and a run holds up to a gigabyte that nothing uses. It has to be said
    before threads start.
    """
    if sys.platform != "linux":
        return
    import ctypes

    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, 1 << 20)
        mallopt(_M_TRIM_THRESHOLD, 8 << 20)
        mallopt(_M_ARENA_MAX, 1)


def keep_what_is_loaded() -> None:
    """Spare the garbage collector what the imports have made, which lives as long as the process.

    It would look through all of it again and again, for a thirtieth of a short run.
    """
    gc.freeze()
