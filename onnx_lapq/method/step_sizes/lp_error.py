"""The L_p error of a quantizer, in units of its min-max step.

docs/method.md, "Layer-wise step sizes"; paper Eq. 12.

The min-max step is the smallest that clips nothing. In its units the candidate steps are the same for every
tensor, rounding errors lie below 1/2, and no tensor is too large or too small.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from onnx_lapq.common.arrays import AnyFloatArray, FloatArray
from onnx_lapq.errors import ConfigError, InputError
from onnx_lapq.method.quantizer import Grid
from onnx_lapq.method.step_sizes.distribution import Distribution

__all__ = [
    "SMALLEST_STEP",
    "checked_exponents",
    "coarse_steps",
    "in_minmax_units",
    "lp_errors",
    "minmax_step_size",
    "minmax_step_size_per_channel",
    "power_sums",
    "precision_for",
]


SMALLEST_STEP = float(np.finfo(np.float32).tiny)
"""No step size is smaller: the smallest normal float32."""

_SMALLEST_ERROR = 1e-9  # keeps the logarithm of an error finite
_SINGLE_PRECISION_UP_TO_P = 8.0


def minmax_step_size(distribution: Distribution, grid: Grid) -> float:
    """The smallest step size that clips nothing; the limit of p to infinity.

    Args:
        distribution: The tensor's values.
        grid: The codes. Values on a side without codes (negative ones on an unsigned grid) do not count.

    Returns:
        Positive and finite, never below the smallest normal float32. A tensor without a value to represent
        gets the step size whose outermost code stands for 1.
    """
    return float(minmax_step_size_per_channel(distribution.values[np.newaxis], grid)[0])


def minmax_step_size_per_channel(weights: AnyFloatArray, grid: Grid) -> FloatArray:
    """:func:`minmax_step_size` of every row of ``weights`` [C, n], as float64 [C].

    Raises:
        InputError: A value is NaN or infinite.
    """
    above = weights.max(axis=1, initial=0.0).astype(np.float64)
    below = -weights.min(axis=1, initial=0.0).astype(np.float64)
    if not (np.isfinite(above).all() and np.isfinite(below).all()):
        raise InputError("a tensor to quantize holds NaN or infinite values; repair the model or the samples")
    steps = np.zeros(weights.shape[0])
    if grid.highest > 0:
        steps = np.maximum(steps, above / grid.highest)
    if grid.lowest < 0:
        steps = np.maximum(steps, below / -grid.lowest)
    return np.where(steps > 0, np.maximum(steps, SMALLEST_STEP), 1.0 / max(grid.highest, -grid.lowest))


def lp_errors(
    distribution: Distribution, grid: Grid, ps: Sequence[float], count: int
) -> tuple[FloatArray, FloatArray]:
    """The L_p error against the step size (paper Fig. 4).

    Args:
        distribution: The tensor's values.
        grid: The codes.
        ps: Exponents, each positive and finite.
        count: Number of step sizes.

    Returns:
        Step sizes float64 [count], ascending, up to where nothing is clipped; and
        ``(mean |Q(x) - x|^p)^(1/p)``, float64 [len(ps), count].
    """
    exponents = checked_exponents(ps)
    unit = minmax_step_size(distribution, grid)
    x = in_minmax_units(distribution.values[np.newaxis], np.array([unit]), grid, np.float64)
    steps = coarse_steps(grid, count)
    sums = np.stack(
        [power_sums(x, distribution.counts, step, grid, exponents)[:, 0] for step in steps], axis=1
    )
    means = sums / distribution.counts.sum()
    return steps * unit, unit * means ** (1 / exponents[:, np.newaxis])


def power_sums(
    x: AnyFloatArray, counts: AnyFloatArray | None, step: npt.ArrayLike, grid: Grid, ps: FloatArray
) -> FloatArray:
    """``sum counts * |Q(x) - x|^p`` along the rows of ``x`` [C, n], as float64 [P, C].

    ``step`` is a scalar or [C, 1]. The errors and their logarithm are shared by all p, and so are the powers,
    through ``|e|^(p + h) = |e|^p * |e|^h``. Works in the precision of ``x``.
    """
    delta = np.asarray(step, dtype=x.dtype)
    error = x / delta
    np.rint(error, out=error)
    np.maximum(error, x.dtype.type(grid.lowest), out=error)
    np.minimum(error, x.dtype.type(grid.highest), out=error)
    error *= delta
    error -= x
    np.abs(error, out=error)
    np.maximum(error, x.dtype.type(_SMALLEST_ERROR), out=error)
    # |e|^p = exp(p log |e|), the summand of Eq. 12; squares need no logarithm. From the smallest p on, each
    # power is the one before times |e|^h (`ratio`), and carries the counts along.
    order = np.argsort(ps, kind="stable")
    gaps = np.diff(ps[order], prepend=0.0)
    power: AnyFloatArray | None = None
    logs: AnyFloatArray | None = None
    sums = np.empty((len(ps), x.shape[0]))
    with np.errstate(over="ignore"):
        for i, gap in enumerate(gaps):
            if i == 0 or abs(gap - gaps[i - 1]) > 1e-9 * abs(gap):
                if gap == 2.0 and logs is None:
                    ratio = np.square(error)
                else:
                    logs = np.log(error, out=error) if logs is None else logs
                    ratio = np.multiply(logs, x.dtype.type(gap))
                    np.exp(ratio, out=ratio)
            if power is None:
                power = ratio.copy() if counts is None else ratio * counts
            else:
                np.multiply(power, ratio, out=power)
            sums[order[i]] = np.einsum("cn->c", power)  # the fastest sum that starts no threads
    return sums


def in_minmax_units(
    values: AnyFloatArray, units: FloatArray, grid: Grid, dtype: npt.DTypeLike
) -> AnyFloatArray:
    """``values`` [C, n] in units of the min-max steps [C]; what lies on a side without codes becomes 0."""
    x = values / units[:, np.newaxis]
    if grid.lowest == 0:
        np.maximum(x, 0.0, out=x)
    if grid.highest == 0:
        np.minimum(x, 0.0, out=x)
    result: AnyFloatArray = x.astype(dtype)
    return result


def coarse_steps(grid: Grid, count: int) -> FloatArray:
    """Ascending candidates, [count], in units of the min-max step, finer towards small ones.

    The last one is the step at which the outermost code is only just used, half a step above the largest
    value.
    """
    levels = max(grid.highest, -grid.lowest)
    fractions: FloatArray = np.arange(1, count + 1) / count
    return fractions**2 * (levels / (levels - 0.5))


def precision_for(ps: FloatArray) -> npt.DTypeLike:
    """float32 is twice as fast and good for the usual exponents; large ones would underflow."""
    return np.float32 if ps.max() <= _SINGLE_PRECISION_UP_TO_P else np.float64


def checked_exponents(ps: Sequence[float]) -> FloatArray:
    """The exponents as an array."""
    exponents = np.asarray(ps, dtype=np.float64)
    if exponents.size == 0 or not (np.isfinite(exponents).all() and (exponents > 0).all()):
        raise ConfigError(f"the exponents p are {list(ps)}; give at least one, each positive and finite")
    return exponents
