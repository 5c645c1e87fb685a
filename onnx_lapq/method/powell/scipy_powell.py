"""The authors' joint optimisation, kept as the yardstick: scipy's Powell with its own line searches.

It runs in normalised coordinates ``u = Δ / Δ_start`` without bounds (docs/method.md, "Joint
optimisation").
"""

import math
from collections.abc import Callable

import numpy as np
from scipy.optimize import minimize  # type: ignore[import-untyped]

from onnx_lapq.common.arrays import FloatArray
from onnx_lapq.errors import RunError
from onnx_lapq.method.powell.judge import Stopped
from onnx_lapq.method.powell.search_state import Accepted, SearchResult, StopReason

__all__ = ["minimise_scipy"]


class _Counted:
    """The loss in normalised coordinates: counted, capped, infinite at invalid points; keeps the best one."""

    def __init__(
        self,
        loss: Callable[[FloatArray], float],
        start: FloatArray,
        max_evaluations: int | None,
        should_stop: Callable[[], bool] | None,
    ) -> None:
        self._loss, self._start = loss, start
        self._max_evaluations, self._should_stop = max_evaluations, should_stop
        self.best, self.best_loss = start.copy(), math.inf
        self.evaluations = 0
        self.history: tuple[Accepted, ...] = ()

    def __call__(self, u: FloatArray) -> float:
        """Loss at ``start * u``; infinite without an evaluation where that is not positive and finite."""
        step_sizes = self._start * u
        if not (np.isfinite(step_sizes).all() and (step_sizes > 0).all()):
            return math.inf
        if self._max_evaluations is not None and self.evaluations >= self._max_evaluations:
            raise Stopped("max-evaluations")
        if self.evaluations and self._should_stop is not None and self._should_stop():
            raise Stopped("stopped")
        value = float(self._loss(step_sizes))
        self.evaluations += 1
        value = value if math.isfinite(value) else math.inf
        if value < self.best_loss or not self.history:
            self.best, self.best_loss = step_sizes, value
            self.history += (Accepted(self.evaluations, value, None),)
        return value


def minimise_scipy(
    loss: Callable[[FloatArray], float],
    start: FloatArray,
    max_iterations: int = 2,
    max_evaluations: int | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> SearchResult:
    """Lower the loss with ``scipy.optimize.minimize(method="Powell")`` and its default tolerances.

    Args:
        loss: Loss at step sizes float64 [n], all positive and finite; never called with others.
        start: Step sizes to start from, float64 [n].
        max_iterations: Sweeps, scipy's ``maxiter``.
        max_evaluations: Exact cap on the evaluations; None for no cap.
        should_stop: Asked before every evaluation but the first; true ends the search.

    Returns:
        The best point seen, without a guard and without a state to resume from.

    Raises:
        RunError: The start is not positive and finite.
    """
    start = np.asarray(start, dtype=np.float64)
    if start.ndim != 1 or not (np.isfinite(start).all() and (start > 0).all()):
        raise RunError("the search was started from step sizes that are not positive and finite")
    counted = _Counted(loss, start, max_evaluations, should_stop)
    stopped = _run(counted, start.size, max_iterations)
    return SearchResult(
        step_sizes=counted.best,
        loss=counted.best_loss,
        guard=None,
        evaluations=counted.evaluations,
        stopped=stopped,
        history=counted.history,
        state=None,
    )


def _run(counted: _Counted, size: int, max_iterations: int) -> StopReason:
    """Run scipy, and say why it ended."""
    try:
        with np.errstate(all="ignore"):  # scipy subtracts the infinities of invalid points
            found = minimize(counted, np.ones(size), method="Powell", options={"maxiter": max_iterations})
    except Stopped as signal:
        return signal.reason
    return "max-sweeps" if found.nit >= max_iterations else "converged"
