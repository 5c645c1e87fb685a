"""What the readers of a tensor compute from each of its values, and how much of its range is worth codes."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from onnx_lapq.common.arrays import FloatArray
from onnx_lapq.method.step_sizes.distribution import Distribution

__all__ = ["Curve"]

_CANDIDATES = 64
"""Ends that are tried."""


@dataclass(frozen=True, eq=False)
class Curve:
    """Functions of a tensor's values, element by element, that are flat towards one end or both.

    Attributes:
        points: float64 [points], ascending.
        results: float64 [functions, points], what each function makes of the points.
        lowest: What lies below it is all the same to the functions; minus infinity where nothing is.
        highest: What lies above it is all the same to them; infinity where nothing is.
    """

    points: FloatArray
    results: FloatArray
    lowest: float
    highest: float

    def range_worth_codes(
        self, distribution: Distribution, low: float, high: float, levels: int
    ) -> tuple[float, float]:
        """Where to cut values off at the flat ends, for the least squared error of the functions.

        A lower end that lies nearer to zero cuts off more, and makes the steps of all others smaller.

        Args:
            distribution: The tensor's values.
            low: The lower end of what codes reach where the functions are not flat below; so few lie below
                that they do not count.
            high: The upper end of it.
            levels: Steps between the lowest and the highest code.

        Returns:
            The lower and the upper end, on both sides of zero; infinite where the functions are not flat.
        """
        flat_below, flat_above = np.isfinite(self.lowest), np.isfinite(self.highest)
        values = np.clip(distribution.values, -np.inf if flat_below else low, np.inf if flat_above else high)
        lost = self._lost(values, distribution.counts, levels)
        # What is rare may be what functions tell apart best: SiLU is lowest near -1.3, and 0 far below.
        low = min(max(float(values.min(initial=0.0)), self.lowest), 0.0)
        high = max(min(float(values.max(initial=0.0)), self.highest), 0.0)
        lower, upper = -np.inf, np.inf
        if flat_below:
            ends = np.linspace(low, 0.0, _CANDIDATES, endpoint=False)
            low = lower = float(ends[lost(ends, high).argmin()])
        if flat_above:
            ends = np.linspace(high, 0.0, _CANDIDATES, endpoint=False)
            upper = float(ends[lost(low, ends).argmin()])
        return lower, upper

    def _lost(
        self, values: FloatArray, counts: FloatArray, levels: int
    ) -> Callable[[FloatArray | float, FloatArray | float], FloatArray]:
        """The squared error of the results, of what is cut off and of rounding, for lower and upper ends.

        Rounding errors are uniform within half a step, and pass on by the slope of a function.
        """
        order = np.argsort(values)
        values, counts = values[order], counts[order]
        slopes = np.gradient(self.results, self.points, axis=1)
        steepness = np.sum([np.square(np.interp(values, self.points, slope)) for slope in slopes], axis=0)
        wanted = np.stack([np.interp(values, self.points, result) for result in self.results])
        # Of all values below each of them: number, steepness, results, and squares of results.
        sums = np.stack([np.ones_like(values), steepness, *wanted, np.square(wanted).sum(axis=0)]) * counts
        below = np.pad(np.cumsum(sums, axis=1), ((0, 0), (1, 0)))

        def cut(ends: FloatArray, beyond: FloatArray) -> FloatArray:
            found = np.stack([np.interp(ends, self.points, result) for result in self.results])
            squares: FloatArray = (found * (found * beyond[0] - 2 * beyond[2:-1])).sum(axis=0) + beyond[-1]
            return squares

        def lost(low: FloatArray | float, high: FloatArray | float) -> FloatArray:
            lows, highs = np.broadcast_arrays(np.atleast_1d(low), np.atleast_1d(high))
            under = below[:, np.searchsorted(values, lows)]
            within = below[:, np.searchsorted(values, highs, side="right")]
            rounded: FloatArray = (within[1] - under[1]) * ((highs - lows) / levels) ** 2 / 12
            return rounded + cut(lows, under) + cut(highs, below[:, -1:] - within)

        return lost
