"""Arrays that are put aside: in memory up to a budget, beyond it in a temporary file without a name."""

import os
import tempfile
import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Any

import numpy as np

from onnx_lapq.common.sizes import in_gigabytes
from onnx_lapq.errors import RunError

__all__ = ["Scratch", "Shelf"]


class Scratch:
    """A budget of bytes that shelves share.

    Args:
        budget: Bytes that arrays may take in memory.
    """

    def __init__(self, budget: int) -> None:
        self._left = budget

    def shelf(self) -> "Shelf":
        """A new, empty shelf."""
        return Shelf(self)

    def take(self, size: int) -> bool:
        """Take bytes of the budget; false where it has no more."""
        if size > self._left:
            return False
        self._left -= size
        return True

    def give_back(self, size: int) -> None:
        """Bytes that are free again."""
        self._left += size


@dataclass(frozen=True)
class _Stored:
    """An array in a file."""

    file: IO[bytes]
    offset: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    def mapped(self) -> np.ndarray:
        return np.memmap(self.file, self.dtype, "r", self.offset, self.shape)


class Shelf:
    """Arrays in the order in which they were put aside; those on disk are mapped while they are in use.

    The file has no name, so it is gone with the process, whatever ends that.
    """

    def __init__(self, scratch: Scratch) -> None:
        self._scratch = scratch
        self._arrays: list[np.ndarray | _Stored] = []
        self._in_memory = 0
        self._file: IO[bytes] | None = None

    def append(self, array: np.ndarray) -> None:
        """Put an array aside.

        Raises:
            RunError: The disk is full.
        """
        if self._scratch.take(array.nbytes):
            self._in_memory += array.nbytes
            self._arrays.append(array)
        else:
            self._arrays.append(self._on_disk(array) if array.nbytes else array)

    def __getitem__(self, index: int) -> np.ndarray:
        array = self._arrays[index]
        return array.mapped() if isinstance(array, _Stored) else array

    def __iter__(self) -> Iterator[np.ndarray]:
        return (self[index] for index in range(len(self._arrays)))

    def clear(self) -> None:
        """Give everything back."""
        self._scratch.give_back(self._in_memory)
        self._arrays, self._in_memory, self._file = [], 0, None

    def _new_file(self) -> IO[bytes]:
        file = tempfile.TemporaryFile(prefix="onnx-lapq-")  # noqa: SIM115 - it lives as long as the shelf
        weakref.finalize(self, file.close)
        return file

    def _on_disk(self, array: np.ndarray) -> _Stored:
        try:
            file = self._file = self._file or self._new_file()
            # Written and not merely mapped: a full disk is an error of a write, and a crash of a mapping.
            offset = file.seek(0, os.SEEK_END)
            file.write(np.ascontiguousarray(array).data)
            file.flush()
        except OSError as error:
            raise RunError(
                f"{tempfile.gettempdir()}: {in_gigabytes(array.nbytes)} more do not fit ({error.strerror}); "
                "free some space, let TMPDIR name another folder, or allow more --memory"
            ) from error
        return _Stored(file, offset, array.shape, array.dtype)
