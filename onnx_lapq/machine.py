"""What the machine has."""

import os
import sys

__all__ = ["in_gigabytes", "physical_memory"]


def physical_memory() -> int:
    """Bytes of memory; without a limit where the system does not say."""
    if not hasattr(os, "sysconf"):
        return sys.maxsize
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def in_gigabytes(size: int) -> str:
    """A number of bytes, as messages show it."""
    return f"{size / 1e9:,.1f} GB"
