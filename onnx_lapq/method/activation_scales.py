"""Divisors that take the outlier channels of a layer's input down to the range of the others.

A product keeps its value where each channel of the input is divided by some number and the rows of the weight
that meet it are multiplied by the same. An input has one step size for all its channels, which a few wide
ones make too large for the rest; a weight has one for every output channel, and bears wide rows better.

With the share s and the range r_j of channel j, the divisor is d_j = max(r_j / (s max r), 1): what is wider
than s times the widest channel is cut down to that, everything else stays. The share is chosen by the outputs
of the quantized product. (SmoothQuant, Xiao et al. 2023, and RepQ-ViT, Li et al. 2023, scale every channel.)
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from onnx_lapq.common.arrays import AnyFloatArray, Float32Array, FloatArray
from onnx_lapq.method.quantizer import Grid, fake_quantize

__all__ = [
    "Matrix",
    "best_divisors",
    "best_gate_divisors",
    "best_output_divisors",
    "best_swish_divisors",
    "divisors",
]

_SHARES = (0.5, 0.3, 0.2, 0.1, 0.05, 0.02)
_CLIPS = (1.0, 0.8, 0.6, 0.4)
"""Shares of the range that step sizes are tried for."""


_FEW_BITS = 4
"""Weights of more bits are not clipped."""


_LITTLE = 0.005
"""Error of outputs, as a share of their power, that is not worth a gate in float."""


_DEAD = 1e-4
"""Groups of less power, as a share of the strongest one's, count as if they had this much."""


@dataclass(frozen=True, eq=False)
class Matrix:
    """A weight that the input meets.

    Attributes:
        values: float32 [groups, inputs of a channel, outputs of a group]; see `onnx_lapq.graph.layer_kinds`.
        bits: 2 to 8; None where it stays in float.
        per_channel: Whether every output has a step size of its own.
    """

    values: Float32Array
    bits: int | None
    per_channel: bool


def divisors(ranges: FloatArray, share: float) -> FloatArray:
    """What to divide the channels by.

    Args:
        ranges: Largest absolute value of every channel, [channels].
        share: Of the widest channel's range, above 0.

    Returns:
        float64 [channels], >= 1.
    """
    widest = float(ranges.max(initial=0.0))
    return np.maximum(ranges / (share * widest), 1.0) if widest > 0 else np.ones_like(ranges)


def best_divisors(
    rows: Float32Array, ranges: FloatArray, matrices: Sequence[Matrix], bits: int
) -> tuple[FloatArray, float]:
    """The divisors of least error in the outputs of the quantized products.

    Args:
        rows: Samples of the input, float32 [groups, n, inputs of a channel].
        ranges: Largest absolute value of every channel, on other samples, float64 [channels]. A channel has
            as many inputs, one after the other, as the kernel has taps.
        matrices: All weights that the input meets.
        bits: Of the input, 2 to 8.

    Returns:
        The divisors, float64 [channels], and their squared error as a share of that without any.
    """
    wanted = [rows @ matrix.values for matrix in matrices]

    def error(tried: FloatArray) -> float:
        by_input = _by_input(tried, rows)
        return _error(_rounded_input((rows / by_input).astype(np.float32), bits), by_input, matrices, wanted)

    return _best(ranges, error)


def best_swish_divisors(
    rows: Float32Array,
    gates: Callable[[Float32Array], Float32Array],
    ranges: FloatArray,
    matrices: Sequence[Matrix],
    bits: tuple[int, int],
) -> tuple[FloatArray, float]:
    """The divisors of least error in the outputs of quantized products of a value times its gates.

    Args:
        rows: Samples of the value, float32 [groups, n, inputs of a channel].
        gates: What a value is multiplied by before it meets the weights.
        ranges: See `best_divisors`, as the matrices.
        matrices: All weights that the gated value meets.
        bits: Of the value and of the gated value, 2 to 8.

    Returns:
        The divisors, float64 [channels], and their squared error as a share of that without any; none of them
        where that is small enough.
    """
    gated = (rows * gates(rows)).astype(np.float32)
    wanted = [gated @ matrix.values for matrix in matrices]

    def error(tried: FloatArray) -> float:
        by_input = _by_input(tried, rows).astype(np.float32)
        value = _rounded_input(rows / by_input, bits[0])
        return _error(_rounded_input(value * gates(value * by_input), bits[1]), by_input, matrices, wanted)

    return _best(ranges, error, _LITTLE * len(matrices))


def best_gate_divisors(
    rows: Float32Array, gates: Float32Array, ranges: FloatArray, bits: int
) -> tuple[FloatArray, float]:
    """The divisors of least error in the products of a value and its gates, all of them quantized.

    Args:
        rows: Samples of the value, float32 [n, channels].
        gates: What each is multiplied by, float32 [gates, n, channels].
        ranges: Largest absolute value of every channel, on other samples, float64 [channels].
        bits: Of the value and of its gates.

    Returns:
        The divisors, float64 [channels], and their squared error as a share of that without any.
    """
    wanted = rows * gates

    def error(tried: FloatArray) -> float:
        value = _rounded_input((rows / tried).astype(np.float32), bits)
        total = 0.0
        for gate, product in zip(gates, wanted, strict=True):
            scaled = _rounded_input((gate * tried).astype(np.float32), bits)
            total += float(np.square(value * scaled - product, dtype=np.float64).sum())
        return total

    return _best(ranges, error)


def best_output_divisors(rows: Float32Array, ranges: FloatArray, bits: int) -> tuple[FloatArray, float]:
    """The divisors of least error in a quantized value whose channels are multiplied again.

    Args:
        rows: Samples of the value, float32 [n, channels].
        ranges: Largest absolute value of every channel, on other samples, float64 [channels].
        bits: Of the value.

    Returns:
        The divisors, float64 [channels], and their squared error as a share of that without any.
    """

    def error(tried: FloatArray) -> float:
        clips = _CLIPS if (tried == 1).all() else _CLIPS[:1]  # a wide channel counts by its divisor
        value = _rounded_input((rows / tried).astype(np.float32), bits, clips) * tried
        return float(np.square(value - rows, dtype=np.float64).sum())

    return _best(ranges, error)


def _best(
    ranges: FloatArray, error: Callable[[FloatArray], float], little: float = 0.0
) -> tuple[FloatArray, float]:
    """Of the divisors for all shares those of least error, and that error as a share of that without any.

    There are none where that without any is not more than little.
    """
    best = np.ones_like(ranges)
    least = before = error(best)
    if not before > little:
        return best, 1.0
    for share in _SHARES:
        found = divisors(ranges, share)
        left = error(found)
        if left < least:
            best, least = found, left
    return best, least / before


def _by_input(divisor: FloatArray, rows: Float32Array) -> FloatArray:
    """The divisor of every input of a channel, [groups, 1, inputs of a channel]."""
    groups, _, inputs = rows.shape
    return np.repeat(divisor, groups * inputs // divisor.size).reshape(groups, 1, inputs)


def _error(
    quantized: Float32Array,
    by_input: AnyFloatArray,
    matrices: Sequence[Matrix],
    wanted: Sequence[Float32Array],
) -> float:
    """Sum over products and groups of their squared errors as shares of their power.

    A group counts as much as any other: what follows it may well even them out.
    """
    total = 0.0
    for matrix, product in zip(matrices, wanted, strict=True):
        weight = _rounded_weight((matrix.values * np.swapaxes(by_input, 1, 2)).astype(np.float32), matrix)
        power = np.square(product, dtype=np.float64).sum(axis=(1, 2))
        missed = np.square(quantized @ weight - product, dtype=np.float64).sum(axis=(1, 2))
        total += float((missed / np.maximum(power, _DEAD * power.max() + 1e-30)).mean())
    return total


def _rounded_input(rows: Float32Array, bits: int, clips: Sequence[float] = _CLIPS) -> Float32Array:
    low, high = min(float(rows.min()), 0.0), max(float(rows.max()), 0.0)
    top = (1 << bits) - 1
    if high == low:
        return rows
    grid = Grid(bits=bits, signed=False, zero_point=round(-low / (high - low) * top))
    tried = [fake_quantize(rows, clip * (high - low) / top, grid) for clip in clips]
    return min(tried, key=lambda some: float(np.square(some - rows).sum()))


def _rounded_weight(values: Float32Array, matrix: Matrix) -> Float32Array:
    if matrix.bits is None:
        return values
    grid = Grid(bits=matrix.bits, signed=True)
    peak = np.abs(values).max(axis=1 if matrix.per_channel else None, keepdims=True)
    clips = _CLIPS[:1] if matrix.bits > _FEW_BITS else _CLIPS[:2]
    tried = [fake_quantize(values, np.maximum(clip * peak / grid.qmax, 1e-30), grid) for clip in clips]
    errors = np.stack([np.square(some - values).sum(axis=1, keepdims=True) for some in tried])
    if not matrix.per_channel:
        errors = errors.sum(axis=(1, 3), keepdims=True)
    chosen: Float32Array = np.choose(errors.argmin(axis=0), tried)
    return chosen
