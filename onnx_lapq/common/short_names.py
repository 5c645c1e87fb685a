"""Names of files for a person: short, and each another one."""

from collections.abc import Sequence
from pathlib import Path

__all__ = ["short_names"]


def short_names(paths: Sequence[Path]) -> list[str]:
    """The bare name of every file; names that are alike get as much of their paths as tells them apart."""
    return [_apart(path, {other for other in paths if other.name == path.name}) for path in paths]


def _apart(path: Path, alike: set[Path]) -> str:
    for depth in range(1, len(path.parts)):
        tail = path.parts[-depth:]
        if sum(other.parts[-depth:] == tail for other in alike) == 1:
            return str(Path(*tail))
    return str(path)
