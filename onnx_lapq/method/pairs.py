"""8-bit codes of weights whose products an x86 processor without VNNI may add two by two in 16 bits.

Its kernels multiply uint8 codes of activations by int8 codes of weights, and add the products of input
channels 2i and 2i + 1 in int16, which saturates. 255 times 128 fits: so two neighbours share 128 steps above
zero, and 128 below. Seldom are both large, so a scale of such codes is hardly larger than one of all codes.

Neighbours lie ``apart`` columns from each other in a row [inputs of an output channel]: as many as the kernel
of a convolution has taps.
"""

import numpy as np

from onnx_lapq.common.arrays import Float32Array

__all__ = ["PAIR_STEPS", "pair_limits", "pair_sums"]

PAIR_STEPS = 128
"""Most steps that two neighbours take on one side of zero."""

_HIGHEST = 127
"""The largest code of int8; the smallest is -128."""


def pair_sums(rows: Float32Array, apart: int) -> Float32Array:
    """The largest sum of two neighbours on one side of zero, of each row.

    Args:
        rows: Weights, [..., inputs of a channel].
        apart: Columns from a weight to its neighbour.

    Returns:
        float32 [...], 0 and more.
    """
    above, below = (np.add(*_pairs(np.maximum(side, 0), apart)) for side in (rows, -rows))
    found: Float32Array = np.maximum(above, below).max(axis=(-2, -1), initial=0)
    return found


def pair_limits(levels: Float32Array, apart: int) -> tuple[Float32Array, Float32Array]:
    """Lowest and highest code of every weight, so that no two neighbours overflow whichever they take.

    Where two fit, what is left is shared by both; where they do not, both give way equally.

    Args:
        levels: Weights in units of their step size, [..., inputs of a channel].
        apart: Columns from a weight to its neighbour.
    """
    return -_highest(-levels, apart, PAIR_STEPS), _highest(levels, apart, _HIGHEST)


def _highest(levels: Float32Array, apart: int, most: int) -> Float32Array:
    first, second = _pairs(np.clip(levels, 0, most), apart)
    limits = np.clip(np.rint((PAIR_STEPS + first - second) / 2), PAIR_STEPS - most, most)
    both = np.stack([limits, PAIR_STEPS - limits], axis=-2)
    return both.reshape(*levels.shape[:-1], -1)[..., : levels.shape[-1]]


def _pairs(values: Float32Array, apart: int) -> tuple[Float32Array, Float32Array]:
    """First and second neighbours, both [..., pairs, apart]; a last one alone has a zero for a neighbour."""
    missing = -values.shape[-1] % (2 * apart)
    padded = np.pad(values, [(0, 0)] * (values.ndim - 1) + [(0, missing)]) if missing else values
    split = padded.reshape(*values.shape[:-1], -1, 2, apart)
    return split[..., 0, :], split[..., 1, :]
