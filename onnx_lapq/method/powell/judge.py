"""The judge of a joint search: evaluates points within all limits and keeps the best one that holds.

Works in log coordinates ``v = log(Δ / Δ_start)``, where one step length means the same for every step size.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from onnx_lapq.common.arrays import FloatArray
from onnx_lapq.method.powell.search_state import (
    Accepted,
    SearchOptions,
    SearchPoint,
    SearchState,
    StopReason,
)

__all__ = ["Judge", "Probe", "Stopped"]

TRUST = 2.0
"""Largest factor by which a step size may leave its start, above or below."""

GUARD_ERRORS = 1.0
"""How many standard errors the guard loss of an accepted point may exceed the lowest one of all accepted
points by. The error is that of the mean difference over the guard samples: what chance does to it. Measured
from the lowest value and not from the last, a row of small rises cannot add up."""


class Stopped(Exception):  # noqa: N818 - a signal, not an error
    """A budget is used up or a stop was asked for; raised before an evaluation, never within one."""

    def __init__(self, reason: StopReason) -> None:
        super().__init__(reason)
        self.reason: StopReason = reason


@dataclass(frozen=True)
class Probe:
    """A point of a line: its place in log units, its loss, and whether the guard forbids it."""

    t: float
    loss: float
    forbidden: bool = False


class Judge:
    """Evaluates points, counts and caps the evaluations, and keeps the best point that the guard allows.

    A point is accepted if its loss is below the best one's and its guard loss does not exceed the lowest one
    of all accepted points by more than chance explains: `GUARD_ERRORS` standard errors of the mean
    difference, sample by sample. A loss that is not finite counts as infinite. The search goes on from the
    best accepted point; what it gives in the end is the best one whose guard loss is not above the start's.
    """

    def __init__(
        self,
        loss: Callable[[FloatArray], float],
        start: FloatArray,
        options: SearchOptions,
        guard: Callable[[], FloatArray] | None,
        should_stop: Callable[[], bool] | None,
    ) -> None:
        self._loss, self._start, self._guard, self._should_stop = loss, start, guard, should_stop
        self.options = options
        self.limit = math.log(TRUST)
        self.evaluations = 0
        self.best = self.kept = SearchPoint((0.0,) * start.size, math.inf, None)
        self.lowest_guard: FloatArray | None = None if guard is None else np.array([math.inf])
        self.history: tuple[Accepted, ...] = ()

    def begin(self) -> None:
        """Evaluate the start, which is accepted whatever it is."""
        loss, guard = self._measure(self._start.copy())
        self._accept((0.0,) * self._start.size, loss, guard)

    def go_on_from(self, state: SearchState) -> None:
        """Stand where a state was taken."""
        self.best, self.kept = SearchPoint(state.point, state.loss, state.guard), state.kept
        self.lowest_guard = None if state.lowest_guard is None else np.array(state.lowest_guard)
        self.evaluations, self.history = state.evaluations, state.history

    def probe(self, v: FloatArray, t: float) -> Probe:
        """Evaluate the point ``v`` that lies at ``t`` on a line.

        Raises:
            Stopped: The evaluation is not allowed any more.
        """
        inside = np.clip(v, -self.limit, self.limit)
        with np.errstate(over="ignore"):
            step_sizes = self._start * np.exp(inside)
        if not (np.isfinite(step_sizes).all() and (step_sizes > 0).all()):
            return Probe(t, math.inf)
        if self.options.max_evaluations is not None and self.evaluations >= self.options.max_evaluations:
            raise Stopped("max-evaluations")
        if self._should_stop is not None and self._should_stop():
            raise Stopped("stopped")
        loss, guard = self._measure(step_sizes)
        if not loss < self.best.loss:
            return Probe(t, loss)
        if not self._holds(guard):
            return Probe(t, loss, forbidden=True)
        self._accept(tuple(inside.tolist()), loss, guard)
        return Probe(t, loss)

    def _measure(self, step_sizes: FloatArray) -> tuple[float, FloatArray | None]:
        """Loss and guard losses by sample, counted."""
        loss = float(self._loss(step_sizes))
        guard = None if self._guard is None else self._guard()
        self.evaluations += 1
        if guard is not None and not np.isfinite(guard).all():
            guard = np.array([math.inf])
        return loss if math.isfinite(loss) else math.inf, guard

    def _holds(self, guard: FloatArray | None) -> bool:
        """Whether guard losses are low enough."""
        lowest = self.lowest_guard
        if guard is None or lowest is None or guard.mean() <= lowest.mean():
            return True
        if not math.isfinite(guard.mean()) or guard.size < 2:
            return False
        rise = guard - lowest
        error = rise.std(ddof=1) / math.sqrt(rise.size)
        return bool(rise.mean() <= GUARD_ERRORS * error)

    def _accept(self, v: tuple[float, ...], loss: float, guard: FloatArray | None) -> None:
        """Make a point the best one."""
        self.best = SearchPoint(v, loss, None if guard is None else float(guard.mean()))
        if guard is not None and self.lowest_guard is not None and guard.mean() <= self.lowest_guard.mean():
            self.lowest_guard = guard
        self.history += (Accepted(self.evaluations, loss, self.best.guard),)
        of_start = self.history[0].guard
        if self.best.guard is None or of_start is None or self.best.guard <= of_start:
            self.kept = self.best
