"""The loss as a function of a vector of step sizes."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from onnx_lapq.common.arrays import FloatArray
from onnx_lapq.evaluation.protocols import Evaluator
from onnx_lapq.network.network import Network
from onnx_lapq.network.step_sizes import Steps

__all__ = ["Objective"]


class Objective:
    """The loss that the search minimises, as a function of the searched step sizes.

    A vector holds one number per searched quantizer: its step size, or for a per-channel weight the
    median of its step sizes, which then all move by the same factor.

    Args:
        network: The network.
        evaluator: Gives per-sample losses at a point.
        start: Step sizes of all quantizers.
        order: Names of the searched ones.
        limits: Largest step size of each searched quantizer.
        guard: Positions of the samples that only guard.
    """

    def __init__(
        self,
        network: Network,
        evaluator: Evaluator,
        start: Steps,
        order: Sequence[str],
        limits: FloatArray,
        guard: npt.NDArray[np.intp],
    ) -> None:
        self.start = np.array([np.median(start[name]) for name in order])
        self._network = network
        self._evaluator = evaluator
        self._steps = start
        self._order = list(order)
        self._limits = limits
        self._guard = guard
        self._last: FloatArray = np.empty(0)

    def __call__(self, vector: FloatArray) -> float:
        """Mean loss over the search samples at a vector of step sizes."""
        self._last = self._evaluator.losses(self._network.point(self.steps(vector)))
        return float(np.delete(self._last, self._guard).mean())

    def at_multiples(self, u: FloatArray) -> float:
        """The same at multiples of the start, in which one distance fits all coordinates."""
        return self(u * self.start)

    def guard(self) -> FloatArray:
        """Losses of the guard samples at the vector evaluated last, float64 [guard samples]."""
        return self._last[self._guard]

    def steps(self, vector: FloatArray) -> Steps:
        """Step sizes of all quantizers at a vector."""
        steps = dict(self._steps)
        for name, value, start in zip(self._order, np.minimum(vector, self._limits), self.start, strict=True):
            steps[name] = steps[name] * (value / start)
        return steps
