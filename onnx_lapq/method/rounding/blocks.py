"""Weights with a scale for every block of inputs of an output channel.

A matrix of rows [C, J] has blocks of ``block`` neighbouring columns, the last of which may be shorter, and
scales [C, blocks].
"""

import numpy as np

from onnx_lapq.common.arrays import AnyFloatArray, Float32Array, FloatArray

__all__ = ["by_weight", "fitted_blocks", "in_blocks"]

_REACH = 0.125
"""How far fitted step sizes may lie from those that the codes were chosen for, as a share."""

_SWEEPS = 2


def in_blocks(rows: np.ndarray, block: int) -> np.ndarray:
    """Rows [C, J] as [C, blocks, block], filled up with zeros, which every step size leaves as they are."""
    missing = -rows.shape[1] % block
    padded = np.pad(rows, ((0, 0), (0, missing))) if missing else rows
    return padded.reshape(len(rows), -1, block)


def by_weight(scale: AnyFloatArray, block: int, width: int) -> AnyFloatArray:
    """Scales [C, blocks] as one for each weight, [C, width]."""
    return np.repeat(scale, block, axis=1)[:, :width]


def fitted_blocks(
    codes: Float32Array, scale: FloatArray, block: int, pulled: Float32Array, covariance: Float32Array
) -> tuple[FloatArray, FloatArray]:
    """Step sizes of all blocks of a row by least squares, at most an eighth off, and the output errors there.

    Args:
        codes: Integer values, [C, J].
        scale: Step sizes that they were chosen for, [C, blocks].
        block: Columns of a block.
        pulled: Target times covariance, [C, J].
        covariance: H of the layer's inputs, [J, J].

    Returns:
        Step sizes, [C, blocks], and errors up to a constant, [C].
    """
    # With the values v_b = d_b q_b of block b, and a factor f_b on its step size, the output error is a
    # quadratic form in f: f A f - 2 f g, A_bc = v_b H v_c, g_b = t H v_b. Each factor in turn goes to its
    # minimum within the bounds, which never raises the error.
    values = codes * by_weight(scale, block, codes.shape[1]).astype(np.float32)
    gains = in_blocks(pulled * values, block).sum(axis=2, dtype=np.float64)
    starts = range(0, codes.shape[1], block)
    bends = np.stack(
        [
            in_blocks((values[:, at : at + block] @ covariance[at : at + block]) * values, block).sum(
                axis=2, dtype=np.float64
            )
            for at in starts
        ],
        axis=1,
    )
    factors = np.ones_like(gains)
    for _ in range(_SWEEPS):
        for at in range(gains.shape[1]):
            bend = bends[:, at, at]
            others = np.einsum("cb,cb->c", bends[:, at], factors) - bend * factors[:, at]
            best = np.divide(gains[:, at] - others, bend, out=np.ones_like(bend), where=bend > 0)
            factors[:, at] = np.clip(best, 1 - _REACH, 1 + _REACH)
    errors = np.einsum("cb,cbd,cd->c", factors, bends, factors) - 2 * np.einsum("cb,cb->c", factors, gains)
    return scale * factors, errors
