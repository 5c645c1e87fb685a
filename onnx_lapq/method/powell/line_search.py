"""One line of the joint search: evaluate two to three points, accept what holds.

Works in log coordinates ``v = log(Δ / Δ_start)``, where one step length means the same for every step size.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from onnx_lapq.common.arrays import FloatArray
from onnx_lapq.method.powell.search_state import Progress, SearchOptions, StopReason

__all__ = ["Evaluator", "Line", "Point", "Probe", "Stopped", "search_line"]


TRUST = 2.0
"""Largest factor by which a step size may leave its start, above or below."""

MIN_STEP = 0.002
"""Smallest step that adaptation arrives at, in log units."""

GUARD_ERRORS = 1.0
"""How many standard errors the guard loss of an accepted point may exceed the lowest one of all accepted
points by. The error is that of the mean difference over the guard samples: what chance does to it. Measured
from the lowest value and not from the last, a row of small rises cannot add up."""

_SAME_POINT = 0.02
"""Share of a step below which two points of a line count as one."""

_FARTHEST = 4.0
"""Steps that one line may travel."""


class Stopped(Exception):  # noqa: N818 - a signal, not an error
    """A budget is used up or a stop was asked for; raised before an evaluation, never within one."""

    def __init__(self, reason: StopReason) -> None:
        super().__init__(reason)
        self.reason: StopReason = reason


@dataclass(frozen=True)
class Point:
    """An evaluated point: log coordinates, loss and guard loss (None without a guard)."""

    v: tuple[float, ...]
    loss: float
    guard: float | None


@dataclass(frozen=True)
class Probe:
    """A point of a line: its place in log units, its loss, and whether the guard forbids it."""

    t: float
    loss: float
    forbidden: bool = False


@dataclass(frozen=True)
class Line:
    """The points ``centre.v + t * direction``; ``step`` is the first ``t`` tried."""

    centre: Point
    direction: FloatArray
    step: float


class Evaluator:
    """Evaluates points, counts and caps the evaluations, and keeps the best point that the guard allows.

    A point is accepted if its loss is below the best one's and its guard loss does not exceed the lowest one
    of all accepted points by more than chance explains: `GUARD_ERRORS` standard errors of the mean
    difference, sample by sample. A loss that is not finite counts as infinite.
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
        self.best = Point((0.0,) * start.size, math.inf, None)
        self.lowest_guard: FloatArray | None = None if guard is None else np.array([math.inf])
        self.history: tuple[Progress, ...] = ()

    def begin(self) -> None:
        """Evaluates the start, which is accepted whatever it is."""
        loss, guard = self._measure(self._start.copy())
        self._accept((0.0,) * self._start.size, loss, guard)

    def probe(self, v: FloatArray, t: float) -> Probe:
        """Evaluates the point ``v`` that lies at ``t`` on a line.

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
        """Makes a point the best one."""
        self.best = Point(v, loss, None if guard is None else float(guard.mean()))
        if guard is not None and self.lowest_guard is not None and guard.mean() <= self.lowest_guard.mean():
            self.lowest_guard = guard
        self.history += (Progress(self.evaluations, loss, self.best.guard),)


def search_line(evaluator: Evaluator, line: Line, known: Probe | None = None) -> float:
    """Searches along a line with two to three evaluations; the evaluator keeps the best point.

    The first point lies one step ahead. The second lies two steps ahead if the first is better than the
    centre, otherwise one step behind. The third is the vertex of the parabola through centre and both, if it
    is convex and promises a gain worth an evaluation, or lies farther out if the loss still falls there. A
    first point that only the guard forbids is halved once instead. No point leaves the trust region.

    Args:
        evaluator: Its best point is the centre of the line.
        line: The line.
        known: The first point if it has been evaluated already.

    Returns:
        The signed step for the next search along this direction: twice as long after success at the far end
        or on a plateau, as long as the move after success inside, half as long after none.

    Raises:
        Stopped: An evaluation is not allowed any more; the evaluator's best point is valid.
    """
    low, high = _reach(line, evaluator.limit)
    nearest = _SAME_POINT * abs(line.step)

    def clamp(t: float) -> float:
        return min(max(t, low), high)

    def probe(t: float) -> Probe:
        return evaluator.probe(np.array(line.centre.v) + t * line.direction, t)

    t = clamp(line.step) if abs(clamp(line.step)) > nearest else clamp(-line.step)
    if known is None and abs(t) <= nearest:
        return line.step
    probes = [Probe(0.0, line.centre.loss), known or probe(t)]
    first = probes[1]
    if first.forbidden:
        probes.append(probe(first.t / 2))
        return _next_step(line, probes, evaluator)
    second = clamp(2 * first.t if first.loss < line.centre.loss else -first.t)
    if min(abs(second - first.t), abs(second)) <= nearest:
        second = clamp(-first.t) if first.loss < line.centre.loss else first.t / 2
    if abs(second) > nearest:
        probes.append(probe(second))
    smallest = evaluator.options.smallest_gain(line.centre.loss) / len(line.centre.v)
    target = _third(probes, smallest)
    if target is not None:
        farthest = _FARTHEST * abs(line.step)
        target = clamp(min(max(target, -farthest), farthest))
        if min(abs(target - taken.t) for taken in probes) > nearest:
            probes.append(probe(target))
    return _next_step(line, probes, evaluator)


def _reach(line: Line, limit: float) -> tuple[float, float]:
    """The range of t, around 0, within which every coordinate stays in the trust region."""
    moving = line.direction != 0
    v, direction = np.array(line.centre.v)[moving], line.direction[moving]
    ends = np.sort(np.stack([(-limit - v) / direction, (limit - v) / direction]), axis=0)
    return min(float(ends[0].max()), 0.0), max(float(ends[1].min()), 0.0)


def _third(probes: list[Probe], smallest_gain: float) -> float | None:
    """Where to look after three points of a line, or None where that promises less than the smallest gain."""
    best = min(probes, key=lambda probe: probe.loss)
    if len(probes) < 3 or best.forbidden:
        return None
    left, middle, right = sorted(probes, key=lambda probe: probe.t)
    if not all(math.isfinite(probe.loss) for probe in probes):
        return None
    before = (middle.loss - left.loss) / (middle.t - left.t)
    after = (right.loss - middle.loss) / (right.t - middle.t)
    bend = (after - before) / (right.t - left.t)
    if bend <= 0:
        return None if best is middle else 2 * best.t
    vertex = 0.5 * (left.t + middle.t - before / bend)
    value = left.loss + before * (vertex - left.t) + bend * (vertex - left.t) * (vertex - middle.t)
    return vertex if best.loss - value > smallest_gain else None


def _next_step(line: Line, probes: list[Probe], evaluator: Evaluator) -> float:
    """The adapted step; see :func:`search_line`."""
    length = abs(line.step)
    if evaluator.best is line.centre or evaluator.best.loss >= line.centre.loss:
        flat = all(probe.loss == line.centre.loss for probe in probes)
        wanted, sign = (2 * length if flat else length / 2), line.step
    else:
        winner = next(probe for probe in probes if probe.loss == evaluator.best.loss)
        outermost = all(abs(probe.t) <= abs(winner.t) for probe in probes)
        wanted, sign = abs(winner.t) * (2 if outermost else 1), winner.t
    bounded = min(max(wanted, length / 2), length * 2)
    return math.copysign(min(max(bounded, MIN_STEP), evaluator.limit), sign)
