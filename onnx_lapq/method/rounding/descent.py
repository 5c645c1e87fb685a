"""Coordinate descent over codes, as in COMQ (Zhang et al., 2024): each goes where the error is least."""

import numpy as np

from onnx_lapq.common.arrays import Float32Array
from onnx_lapq.method.quantizer import Grid

__all__ = ["descended"]

_COLUMNS = 64
"""Columns whose changes reach the others together."""


def descended(
    codes: Float32Array, steps: Float32Array, grid: Grid, target: Float32Array, covariance: Float32Array
) -> Float32Array:
    """Codes after a sweep over all columns, which never raises the output error.

    Args:
        codes: Integer values, [C, J].
        steps: Step size of every weight, [C, J].
        grid: The codes.
        target: Real-valued weights, [C, J].
        covariance: H of the layer's inputs, [J, J], with a diagonal above zero.
    """
    # With r = (t - q d) H, the error e H e^T is a parabola in the value of column k, whose vertex lies
    # r_k / H_kk away. A change c of that value takes c H_k off r.
    codes = codes.copy()
    rest = (target - codes * steps) @ covariance
    for first in range(0, codes.shape[1], _COLUMNS):
        at = slice(first, min(first + _COLUMNS, codes.shape[1]))
        inside, left = covariance[at, at], rest[:, at].copy()
        changes = np.zeros_like(left)
        for column in range(at.stop - first):
            step, before = steps[:, first + column], codes[:, first + column]
            moved = before + left[:, column] / (inside[column, column] * step)
            after = np.clip(np.rint(moved), grid.qmin, grid.qmax)
            changes[:, column] = (after - before) * step
            left -= changes[:, column, None] * inside[column]
            codes[:, first + column] = after
        rest -= changes @ covariance[at]
    return codes
