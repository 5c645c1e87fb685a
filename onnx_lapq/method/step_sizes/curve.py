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
            low = lower = float(min(ends, key=lambda end: lost(end, high)))
        if flat_above:
            ends = np.linspace(high, 0.0, _CANDIDATES, endpoint=False)
            upper = float(min(ends, key=lambda end: lost(low, end)))
        return lower, upper

    def _lost(self, values: FloatArray, counts: FloatArray, levels: int) -> Callable[[float, float], float]:
        """The squared error of the results, of what is cut off and of rounding, for a lower and upper end.

        Rounding errors are uniform within half a step, and pass on by the slope of a function.
        """
        slopes = np.gradient(self.results, self.points, axis=1)
        steepness = np.sum([np.square(np.interp(values, self.points, slope)) for slope in slopes], axis=0)
        wanted = [np.interp(values, self.points, result) for result in self.results]

        def lost(low: float, high: float) -> float:
            errors = steepness * ((high - low) / levels) ** 2 / 12
            for end, beyond in ((low, values < low), (high, values > high)):
                cut = [
                    np.interp(end, self.points, result) - found[beyond]
                    for result, found in zip(self.results, wanted, strict=True)
                ]
                errors[beyond] = np.square(cut).sum(axis=0)
            return float(counts @ errors)

        return lost
