"""Files that are written whole or not at all: beside the old one, then renamed."""

import errno
import glob
import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from onnx_lapq.errors import OutputError

__all__ = ["check_writable", "write_whole", "writing_beside"]

_STALE = 600
"""Seconds after which a half-written file is one that a killed run left."""
_FULL = (errno.ENOSPC, errno.EDQUOT)


def check_writable(path: Path) -> None:
    """Refuse an output path before the work begins.

    Raises:
        OutputError: The folder is missing or not writable, the name is too long, or what lies there is not an
            ordinary file.
    """
    try:
        _temporary(path).lstat()
    except (FileNotFoundError, NotADirectoryError):
        pass
    except OSError as error:
        raise OutputError(f"{path}: cannot be written ({error.strerror}); choose another output") from error
    if path.is_dir():
        raise OutputError(f"{path}: is a folder; give the name of a file to write")
    if path.exists() and not path.is_file():
        raise OutputError(f"{path}: is a device or pipe, not an ordinary file; choose another output path")
    if not path.parent.is_dir():
        raise OutputError(f"{path.parent}: no such folder; make it first")
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise OutputError(f"{path.parent}: folder is not writable; choose another output path")


def write_whole(path: Path, content: bytes, check: Callable[[Path], None] | None = None) -> None:
    """Write beside, then rename; permissions follow the umask.

    Args:
        path: The file.
        content: What it shall hold.
        check: Looks at what was written; where it raises, nothing is renamed.

    Raises:
        OutputError: The file cannot be written, for example because the disk is full.
    """
    with writing_beside(path) as temporary:
        with temporary.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        if check is not None:
            check(temporary)
        temporary.replace(path)


@contextmanager
def writing_beside(path: Path) -> Iterator[Path]:
    """A name for a file or folder beside ``path``, where its new content is made before it is renamed.

    What is left under that name in the end is removed, and so is what killed runs left of the same file.

    Raises:
        OutputError: Something inside raised an `OSError`.
    """
    temporary = _temporary(path)
    try:
        yield temporary
    except OSError as error:
        space = "free some space or " if error.errno in _FULL else ""
        raise OutputError(
            f"{path}: cannot be written ({error.strerror}); {space}choose another path"
        ) from error
    finally:
        _remove(temporary)
    for found in path.parent.glob(f".{glob.escape(path.name)}.{'[0-9a-f]' * 32}"):
        with suppress(OSError):
            if time.time() - found.stat().st_mtime > _STALE:
                _remove(found)


def _temporary(path: Path) -> Path:
    return path.with_name(f".{path.name}.{uuid.uuid4().hex}")


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
