"""What the machine has."""

import os
import sys
from pathlib import Path

from onnx_lapq.common.sizes import in_gigabytes
from onnx_lapq.errors import RunError

__all__ = ["physical_memory", "require_room"]

_ROOM = 128 << 20
"""Bytes of address space without which threads do not start."""


def physical_memory() -> int:
    """Bytes of memory; without a limit where the system does not say."""
    if not hasattr(os, "sysconf"):
        return sys.maxsize
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def require_room() -> None:
    """Refuse to start under a limit on memory (``ulimit -v``) that is nearly reached.

    Python waits for ever for a thread that finds no memory when it starts.

    Raises:
        RunError: Says how much more it takes.
    """
    taken = Path("/proc/self/statm")
    if not taken.exists():
        return
    import resource

    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    wanted = int(taken.read_text().split()[0]) * resource.getpagesize() + _ROOM
    if limit != resource.RLIM_INFINITY and limit < wanted:
        raise RunError(
            f"the limit on memory, {in_gigabytes(limit)}, leaves no room to run; allow (ulimit -v) "
            f"{in_gigabytes(wanted)} and what the model and its samples take"
        )
