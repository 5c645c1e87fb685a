"""From a clip value to a step size, and the clip that cuts a share of the values off.

docs/method.md, "Baselines".

The baselines choose the largest value that is still represented; the step size follows from the codes.
"""

from collections.abc import Callable

import numpy as np

from onnx_lapq.errors import ConfigError
from onnx_lapq.method.quantizer import Grid
from onnx_lapq.method.step_sizes.distribution import Distribution
from onnx_lapq.method.step_sizes.lp_error import SMALLEST_STEP, minmax_step_size

__all__ = ["magnitudes", "percentile_step_size", "reach", "step_by_rule", "step_for_clip"]


def reach(grid: Grid) -> int:
    """Codes above zero on the side that has more of them: the clip value in units of the step size."""
    return max(grid.highest, -grid.lowest - 1)


def step_for_clip(clip: float, distribution: Distribution, grid: Grid) -> float:
    """The step size ``clip / reach``, at most the min-max step: beyond it nothing is clipped anyway.

    Args:
        clip: Largest magnitude that is represented.
        distribution: The tensor's values.
        grid: The codes.

    Returns:
        Positive and finite. The min-max step for a clip value that is not positive.
    """
    widest = minmax_step_size(distribution, grid)
    return min(max(clip / reach(grid), SMALLEST_STEP), widest) if clip > 0 else widest


def magnitudes(distribution: Distribution, grid: Grid) -> Distribution:
    """Magnitudes of the values that the codes can represent, without zeros, which are always exact.

    On an unsigned grid without zero point these are the positive values: one side of what went into a Relu.
    """
    values = distribution.values
    kept = (values > 0) & (grid.highest > 0) | (values < 0) & (grid.lowest < 0)
    return Distribution(np.abs(values[kept]), distribution.counts[kept])


def step_by_rule(distribution: Distribution, grid: Grid, clip_of: Callable[[Distribution], float]) -> float:
    """The step size of a rule that looks at magnitudes alone.

    Args:
        distribution: The tensor's values. Zeros and values on a side without codes do not count.
        grid: The codes.
        clip_of: Gives the clip value of magnitudes above 0 whose largest is 1.

    Returns:
        Positive and finite, at most the min-max step.
    """
    sizes = magnitudes(distribution, grid)
    if not sizes.counts.sum() > 0:
        return step_for_clip(0.0, distribution, grid)
    largest = float(sizes.values.max())
    return step_for_clip(
        clip_of(Distribution(sizes.values / largest, sizes.counts)) * largest, distribution, grid
    )


def percentile_step_size(distribution: Distribution, grid: Grid, percentile: float) -> float:
    """The smallest step size that clips no more than ``100 - percentile`` per cent of the values.

    Args:
        distribution: The tensor's values; zeros count.
        grid: The codes; unequal limits above and below zero are honoured.
        percentile: Above 0, at most 100; 100 is min-max.

    Returns:
        Positive and finite; the min-max step where so few values are not zero that none need be kept.

    Raises:
        ConfigError: The percentile is outside its range.
    """
    if not 0 < percentile <= 100:
        raise ConfigError(f"the percentile is {percentile}; give one above 0 and at most 100")
    widest = minmax_step_size(distribution, grid)
    needed = np.zeros(distribution.values.size)
    for side in (grid.highest, grid.lowest):
        if side:
            np.maximum(needed, distribution.values / side, out=needed)
    order = np.argsort(needed)
    counts = np.cumsum(distribution.counts[order])
    if percentile == 100 or not counts.size:
        return widest
    step = float(needed[order][np.searchsorted(counts, counts[-1] * percentile / 100)])
    return max(step, SMALLEST_STEP) if step > 0 else widest
