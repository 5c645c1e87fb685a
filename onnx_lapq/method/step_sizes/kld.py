"""KLD: the clip value whose histogram diverges least from its quantized self (docs/method.md, "Baselines").

Migacz, *8-bit inference with TensorRT*, GTC 2017: for every number of leading bins, P is the histogram of the
magnitudes with everything beyond added to the last bin, Q the leading bins without what lies beyond, merged
into as many levels as there are codes and spread back evenly over the bins that are not empty.
"""

import numpy as np

from onnx_lapq.common.arrays import FloatArray
from onnx_lapq.method.quantizer import Grid
from onnx_lapq.method.step_sizes.clipping import reach, step_by_rule
from onnx_lapq.method.step_sizes.distribution import Distribution

__all__ = ["best_bins", "kld_step_size"]


_BINS = 2048


def kld_step_size(distribution: Distribution, grid: Grid) -> float:
    """The step size whose clip minimises KL(P || Q) over a histogram of 2048 bins.

    Args:
        distribution: The tensor's values. Zeros and values on a side without codes do not count.
        grid: The codes.

    Returns:
        Positive and finite, at most the min-max step.
    """
    levels = reach(grid) + 1

    def clip_of(sizes: Distribution) -> float:
        histogram, _ = np.histogram(sizes.values, bins=_BINS, range=(0.0, 1.0), weights=sizes.counts)
        return (best_bins(histogram, levels) + 0.5) / _BINS

    return step_by_rule(distribution, grid, clip_of)


def best_bins(histogram: FloatArray, levels: int) -> int:
    """Number of leading bins whose P and Q diverge least.

    Args:
        histogram: Counts, float64 [bins], the last one not zero.
        levels: Levels that the leading bins are merged into.

    Returns:
        From ``levels`` to the number of bins; the larger one of equals. All bins where there are more levels.
    """
    levels = min(levels, len(histogram))
    beyond = histogram.sum() - np.cumsum(histogram)
    candidates = range(len(histogram), levels - 1, -1)
    return min(candidates, key=lambda bins: _divergence(histogram[:bins], beyond[bins - 1], levels))


def _divergence(kept: FloatArray, beyond: float, levels: int) -> float:
    """KL(P || Q) of some leading bins; infinite where P is not zero but Q is."""
    if beyond and not kept[-1]:
        return float("inf")
    # Every bin that is not empty gets the mean count of its level (Q); P keeps its counts and takes what lies
    # beyond into its last bin. Both are brought to a sum of 1 in the last two lines.
    used = kept > 0
    starts = np.arange(levels) * len(kept) // levels
    widths = np.diff(starts, append=len(kept))
    filled = np.add.reduceat(used, starts, dtype=np.float64)
    level = np.add.reduceat(kept, starts) / np.maximum(filled, 1)
    q = np.repeat(level, widths)[used]
    p = kept[used]
    p[-1] += beyond
    p /= p.sum()
    return float(np.sum(p * np.log(p * (q.sum() / q))))
