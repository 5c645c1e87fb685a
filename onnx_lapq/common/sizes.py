"""Sizes of files, weights and memory for a person."""

__all__ = ["in_gigabytes", "in_megabytes", "with_unit"]

_SMALL = 50_000
"""Bytes that two digits behind the point of a megabyte say little of."""


def with_unit(count: int) -> str:
    """Bytes as ``15.11 MB``; few of them as ``4.2 kB``."""
    return f"{count / 1e3:.1f} kB" if count < _SMALL else f"{count / 1e6:.2f} MB"


def in_megabytes(count: int) -> str:
    """Bytes for a column of megabytes, as ``15.11``; few of them as ``0.0042``."""
    return f"{count / 1e6:.2g}" if 0 < count < _SMALL else f"{count / 1e6:.2f}"


def in_gigabytes(count: int) -> str:
    """Bytes as messages on memory show them."""
    return f"{count / 1e9:,.1f} GB"
