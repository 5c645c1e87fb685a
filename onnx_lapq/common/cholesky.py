"""Cholesky's method in float32, by the LAPACK that scipy brings.

scipy's own functions hold the interpreter's lock all the while, so that those of several threads come one
after another. The routines are those it offers to compiled code, as `scipy.LowLevelCallable` finds them.
"""

import ctypes
import sys
from functools import cache
from typing import Any

import numpy as np
from scipy.linalg import cython_lapack  # type: ignore[import-untyped]

from onnx_lapq.common.arrays import Float32Array

__all__ = ["solve_rows", "upper_factor"]

_LOWER = ctypes.create_string_buffer(b"L")
"""Of a matrix by columns, as LAPACK has it: the upper triangle of one by rows."""


def upper_factor(matrix: Float32Array, damping: float = 0.0) -> Float32Array:
    """U with U^T U = H, by rows; what lies below its diagonal stays as it was in H.

    Args:
        matrix: H, symmetric, [J, J].
        damping: Added to its diagonal beforehand.

    Raises:
        numpy.linalg.LinAlgError: It is not positive definite.
    """
    factor = np.array(matrix, np.float32, order="C")
    np.einsum("jj->j", factor)[:] += np.float32(damping)
    size = _integer(len(factor))
    if _call("spotrf", _LOWER, size, factor, size) > 0:
        raise np.linalg.LinAlgError("the matrix is not positive definite")
    return factor


def solve_rows(factor: Float32Array, rows: Float32Array) -> Float32Array:
    """X with X H = rows.

    Args:
        factor: What `upper_factor` makes of H, [J, J].
        rows: [K, J].

    Returns:
        [K, J].
    """
    solved = np.array(rows, np.float32, order="C")
    count, size = map(_integer, rows.shape)
    _call("spotrs", _LOWER, size, count, factor, size, solved, size)
    return solved


def _integer(value: int) -> ctypes.c_int32 | ctypes.c_int64:
    """An integer that routines of 32 and of 64 bits read alike, where the low bytes come first."""
    return ctypes.c_int64(value) if sys.byteorder == "little" else ctypes.c_int32(value)


def _call(name: str, *arguments: Any) -> int:
    """Call a routine, all of whose arguments are pointers; give what it says in the end, 0 for success.

    Below 0 an argument is wrong, which is a fault of this module.
    """
    info = _integer(0)
    pointers = [
        given.ctypes.data if isinstance(given, np.ndarray) else ctypes.addressof(given)
        for given in (*arguments, info)
    ]
    _routine(name, len(pointers))(*pointers)
    found = ctypes.c_int32(info.value).value  # routines of 32 bits leave the upper half as it was
    assert found >= 0, f"{name} refuses argument {-found}"
    return found


@cache
def _routine(name: str, count: int) -> Any:
    capsule = cython_lapack.__pyx_capi__[name]
    name_of, pointer_of = ctypes.pythonapi.PyCapsule_GetName, ctypes.pythonapi.PyCapsule_GetPointer
    name_of.restype, name_of.argtypes = ctypes.c_char_p, [ctypes.py_object]
    pointer_of.restype, pointer_of.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    kind = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * count)
    return kind(pointer_of(capsule, name_of(capsule)))
