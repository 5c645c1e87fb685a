"""Layer-wise step sizes: argmin over the step of the L_p quantization error.

docs/method.md, "Layer-wise step sizes"; paper section 4.1, Eq. 12, Algorithm 1 lines 1-4.

The error is not unimodal at low bits, so a coarse grid of steps is scanned first and its best bracket
refined.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize_scalar  # type: ignore[import-untyped]

from onnx_lapq.common.arrays import AnyFloatArray, FloatArray
from onnx_lapq.method.quantizer import Grid
from onnx_lapq.method.step_sizes.distribution import EXACT_LIMIT, Distribution
from onnx_lapq.method.step_sizes.lp_error import (
    SMALLEST_STEP,
    checked_exponents,
    coarse_steps,
    in_minmax_units,
    minmax_step_size,
    minmax_step_size_per_channel,
    power_sums,
    precision_for,
)

__all__ = [
    "minmax_step_size",
    "minmax_step_size_per_channel",
    "step_sizes",
    "step_sizes_per_channel",
]


_LEAST_STEPS, _MOST_STEPS = 24, 96
"""Of the coarse scan for a large weight and for a small one; 256 leave a tensor at most 0.1 % less error."""

_SMOOTH_UP_TO_BITS = 6  # with more codes, the error ripples as single extreme values change their code
_RIPPLE_STEPS = 66
_ZOOM_STEPS = 24
_RIPPLE_ZOOM_STEPS = 34
_COARSE_ELEMENTS = 16 << 20  # of a tensor, summed over the coarse steps
_BLOCK = 1 << 16  # elements worked on at a time, so that they stay in the processor's cache
_LONG, _LONG_OF_MANY_BITS, _OUTERMOST = 1024, EXACT_LIMIT, 64
"""Values of a row beyond which it is condensed to half as many, and of these those at each end that stay."""
_DENSE = 0.75
"""Share of values other than zero from which on rows are condensed; zeros leave the others few means."""


def step_sizes(distribution: Distribution, grid: Grid, ps: Sequence[float]) -> FloatArray:
    """The step sizes that minimise ``sum counts * |Q(x) - x|^p``, for every p at once.

    Args:
        distribution: The tensor's values.
        grid: The codes; unequal limits above and below zero are honoured.
        ps: Exponents, each positive and finite.

    Returns:
        float64 [len(ps)], positive and finite. At most ``q / (q - 1/2)`` min-max steps, where q is the larger
        number of codes on one side of zero: beyond, the outermost code is never used.

    Raises:
        ConfigError: An exponent is not positive and finite, or there is none.
    """
    exponents = checked_exponents(ps)
    unit = minmax_step_size(distribution, grid)
    x = in_minmax_units(distribution.values[np.newaxis], np.array([unit]), grid, np.float64)
    precision = precision_for(exponents)
    steps, errors = _scan(
        x.astype(precision), distribution.counts[np.newaxis].astype(precision), grid, exponents
    )
    best = errors.argmin(axis=0)

    def refine(p: float, index: int) -> float:
        def error_at(step: float) -> float:
            return float(power_sums(x, distribution.counts, step, grid, np.array([p]))[0, 0])

        bounds = (steps[max(index - 1, 0)], steps[min(index + 1, len(steps) - 1)])
        found = minimize_scalar(
            error_at, bounds=bounds, method="bounded", options={"xatol": 1e-3 * steps[index], "maxiter": 20}
        )
        return float(found.x if found.fun < error_at(steps[index]) else steps[index])

    refined = np.array([refine(p, index) for p, index in zip(exponents, best, strict=True)])
    return np.maximum(refined * unit, SMALLEST_STEP)


def step_sizes_per_channel(weights: AnyFloatArray, grid: Grid, ps: Sequence[float]) -> FloatArray:
    """:func:`step_sizes` of every row of a weight at once, for every p.

    All rows share a coarse scan for the smallest and the largest exponent; then every row is scanned again
    between their brackets for all of them, and a parabola through the best three steps gives the result. Long
    rows are condensed first.

    Args:
        weights: Float, [C, n], one row per channel.
        grid: The codes.
        ps: Exponents, each positive and finite.

    Returns:
        float64 [len(ps), C], positive and finite.

    Raises:
        ConfigError: An exponent is not positive and finite, or there is none.
        InputError: A value is NaN or infinite.
    """
    exponents = checked_exponents(ps)
    units = minmax_step_size_per_channel(weights, grid)
    steps = int(np.clip(_COARSE_ELEMENTS // max(weights.size, 1), _LEAST_STEPS, _MOST_STEPS))
    candidates = coarse_steps(grid, steps)
    long = _LONG if grid.bits <= _SMOOTH_UP_TO_BITS else _LONG_OF_MANY_BITS
    if np.count_nonzero(weights) < _DENSE * weights.size:
        long = weights.shape[1]
    rows = max(_BLOCK // max(min(weights.shape[1], long), 1), 1)
    result = np.empty((len(exponents), weights.shape[0]))
    for begin in range(0, weights.shape[0], rows):
        block = slice(begin, begin + rows)
        values, counts = _condensed(weights[block], long)
        x = in_minmax_units(values, units[block], grid, precision_for(exponents))
        counts = None if counts is None else counts.astype(x.dtype)
        result[:, block] = _search_rows(x, counts, candidates, grid, exponents)
    return np.maximum(result * units, SMALLEST_STEP)


def _condensed(rows: AnyFloatArray, long: int) -> tuple[AnyFloatArray, FloatArray | None]:
    """Rows [C, n] as means of neighbours in size, [C, m <= long / 2], and how many each is of, [1, m]."""
    inner = rows.shape[1] - 2 * _OUTERMOST
    if rows.shape[1] <= long:
        return rows, None
    size = -(-inner // (long // 2 - 2 * _OUTERMOST))
    ends = np.arange(_OUTERMOST)
    starts = np.concatenate([ends, np.arange(0, inner, size) + _OUTERMOST, ends + _OUTERMOST + inner])
    counts = np.diff(starts, append=rows.shape[1]).astype(np.float64)
    sums = np.add.reduceat(np.sort(rows, axis=1), starts, axis=1, dtype=np.float64)
    return sums / counts, counts[None]


def _scan(
    x: AnyFloatArray, counts: AnyFloatArray, grid: Grid, ps: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Ascending steps [T] and their errors [T, P] on the single row of ``x``."""
    steps = coarse_steps(grid, int(np.clip((1 << 18) // max(x.size, 1), 64, 512)))
    errors = _errors_at(x, counts, steps[:, np.newaxis], grid, ps)[:, :, 0]
    # With many codes the error ripples faster than the coarse steps sample it: steps between the best ones of
    # the smallest and the largest p are added, finely enough to tell one ripple from the next.
    if grid.bits > _SMOOTH_UP_TO_BITS:
        extra = np.linspace(*_bracket(steps, errors.argmin(axis=0)), _RIPPLE_STEPS)[1:-1]
        errors = np.concatenate([errors, _errors_at(x, counts, extra[:, np.newaxis], grid, ps)[:, :, 0]])
        steps = np.concatenate([steps, extra])
        order = np.argsort(steps)
        steps, errors = steps[order], errors[order]
    return steps, errors


def _search_rows(
    x: AnyFloatArray, counts: AnyFloatArray | None, candidates: FloatArray, grid: Grid, ps: FloatArray
) -> FloatArray:
    """Best step [P, C] of every row of ``x`` [C, n], in units of its min-max step."""
    # The best step grows with p, so those of all p lie between those of the smallest and the largest one:
    # the coarse scan needs these two alone, and every row gets candidates of its own in between.
    ends = np.array([ps.min(), ps.max()])
    errors = _errors_at(x, counts, candidates[:, np.newaxis], grid, ends)
    count = _ZOOM_STEPS if grid.bits <= _SMOOTH_UP_TO_BITS else _RIPPLE_ZOOM_STEPS
    steps = np.linspace(*_bracket(candidates, errors.argmin(axis=0)), count)
    zoomed = _errors_at(x, counts, steps, grid, ps)
    found, vertices = _vertices(steps, zoomed)
    at_vertices = np.concatenate(
        [
            power_sums(x, counts, vertex[:, np.newaxis], grid, p)
            for vertex, p in zip(vertices, ps[:, np.newaxis], strict=True)
        ]
    )
    best: FloatArray = np.where(at_vertices < zoomed.min(axis=0), vertices, found)
    return best


def _errors_at(
    x: AnyFloatArray, counts: AnyFloatArray | None, steps: FloatArray, grid: Grid, ps: FloatArray
) -> FloatArray:
    """Errors [T, P, C] of the rows of ``x`` [C, n] at steps [T, C], or [T, 1] for the same of every row.

    Several steps at a time: numpy's calls cost as much as a thousand values each, and wait for each other.
    """
    steps, found = np.broadcast_to(steps, (len(steps), len(x))), []
    some = max(_BLOCK // max(x.size, 1), 1)
    for at in range(0, len(steps), some):
        part = steps[at : at + some]
        rows = np.tile(x, (len(part), 1))
        sums = power_sums(rows, counts, part.reshape(-1, 1), grid, ps)
        found.append(sums.reshape(len(ps), *part.shape).swapaxes(0, 1))
    return np.concatenate(found)


def _vertices(steps: FloatArray, errors: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Best of evenly spaced ``steps`` [Z, C], and the parabola's vertex there, both [P, C].

    ``errors`` is [Z, P, C].
    """
    best = errors.argmin(axis=0)
    inner = np.clip(best, 1, len(steps) - 2)
    left, centre, right = (
        np.take_along_axis(errors, (inner + shift)[np.newaxis], axis=0)[0].astype(np.float64)
        for shift in (-1, 0, 1)
    )
    # Parabola through three evenly spaced points: its vertex lies (left - right) / (2 bend) spacings from the
    # middle one. A best step at an end is taken with its two neighbours on one side.
    with np.errstate(invalid="ignore"):
        bend = left - 2 * centre + right
        convex = np.isfinite(bend) & (bend > 0)
        offset = np.divide(0.5 * (left - right), bend, out=np.zeros_like(bend), where=convex)
    columns = np.arange(steps.shape[1])
    vertices = steps[inner, columns] + np.clip(offset, -1, 1) * (steps[1] - steps[0])
    return steps[best, columns], vertices


def _bracket(steps: FloatArray, best: npt.NDArray[np.intp]) -> tuple[FloatArray, FloatArray]:
    """The steps beside the smallest and the largest of the ``best`` indices, taken along the first axis."""
    low, high = best.min(axis=0) - 1, best.max(axis=0) + 1
    return steps[np.maximum(low, 0)], steps[np.minimum(high, len(steps) - 1)]
