"""The arrays of an ``.npz``, each read when it is asked for and its size is known to be sound."""

import math
import zipfile
from collections.abc import Iterator, Mapping
from typing import IO, BinaryIO

import numpy as np

from onnx_lapq.calibration.stored import Array
from onnx_lapq.common.limits import physical_memory
from onnx_lapq.common.sizes import in_gigabytes

__all__ = ["Archive"]

_SUFFIX = ".npy"


class Archive(Mapping[str, Array]):
    """A zip file of arrays by name; objects are never unpickled.

    Args:
        file: The open file.

    Raises:
        zipfile.BadZipFile: if it is none.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._zip = zipfile.ZipFile(file)
        names = [name for name in self._zip.namelist() if name.endswith(_SUFFIX)]
        self._members = {name.removesuffix(_SUFFIX): name for name in names}

    def __getitem__(self, name: str) -> Array:
        """Read an array.

        Raises:
            ValueError: Its size is not that of its header or too large for memory, or it holds objects.
            Exception: Of nearly any kind, from zlib and zipfile, if the file is damaged.
        """
        member = self._zip.getinfo(self._members[name])
        with self._zip.open(member) as file:
            size = _declared_bytes(file)
        if size != member.file_size:
            raise ValueError(f"the shape of '{name}' asks for {size:,} bytes, there are {member.file_size:,}")
        if size > physical_memory():
            raise ValueError(f"'{name}' takes {in_gigabytes(size)}, more than this machine has")
        with self._zip.open(member) as file:
            array: Array = np.lib.format.read_array(file, allow_pickle=False)
        return array

    def __iter__(self) -> Iterator[str]:
        return iter(self._members)

    def __len__(self) -> int:
        return len(self._members)


def _declared_bytes(file: IO[bytes]) -> int:
    """Bytes of a member with its header, by what the header says."""
    major, _ = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if major == 1 else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(file)
    if dtype.hasobject:
        raise ValueError("Python objects are never loaded")
    return file.tell() + math.prod(shape) * dtype.itemsize
