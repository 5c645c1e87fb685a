"""One line of the joint search: evaluate two to three points, keep the best, adapt the step.

Works in log coordinates, as `onnx_lapq.method.powell.judge` does.
"""

import math
from dataclasses import dataclass

import numpy as np

from onnx_lapq.common.arrays import FloatArray
from onnx_lapq.method.powell.judge import Judge, Probe
from onnx_lapq.method.powell.search_state import SearchPoint

__all__ = ["Line", "search_line"]

MIN_STEP = 0.002
"""Smallest step that adaptation arrives at, in log units."""

_SAME_POINT = 0.02
"""Share of a step below which two points of a line count as one."""

_FARTHEST = 4.0
"""Steps that one line may travel."""


@dataclass(frozen=True)
class Line:
    """The points ``centre.v + t * direction``; ``step`` is the first ``t`` tried."""

    centre: SearchPoint
    direction: FloatArray
    step: float


def search_line(judge: Judge, line: Line, known: Probe | None = None) -> float:
    """Search along a line with two to three evaluations; the judge keeps the best point.

    The first point lies one step ahead. The second lies two steps ahead if the first is better than the
    centre, otherwise one step behind. The third is the vertex of the parabola through centre and both, if it
    is convex and promises a gain worth an evaluation, or lies farther out if the loss still falls there. A
    first point that only the guard forbids is halved once instead. No point leaves the trust region.

    Args:
        judge: Its best point is the centre of the line.
        line: The line.
        known: The first point if it has been evaluated already.

    Returns:
        The signed step for the next search along this direction: twice as long after success at the far end
        or on a plateau, as long as the move after success inside, half as long after none.

    Raises:
        Stopped: An evaluation is not allowed any more; the judge's best point is valid.
    """
    low, high = _reach(line, judge.limit)
    nearest = _SAME_POINT * abs(line.step)

    def clamp(t: float) -> float:
        return min(max(t, low), high)

    def probe(t: float) -> Probe:
        return judge.probe(np.array(line.centre.v) + t * line.direction, t)

    t = clamp(line.step) if abs(clamp(line.step)) > nearest else clamp(-line.step)
    if known is None and abs(t) <= nearest:
        return line.step
    probes = [Probe(0.0, line.centre.loss), known or probe(t)]
    first = probes[1]
    if first.forbidden:
        probes.append(probe(first.t / 2))
        return _next_step(line, probes, judge)
    second = clamp(2 * first.t if first.loss < line.centre.loss else -first.t)
    if min(abs(second - first.t), abs(second)) <= nearest:
        second = clamp(-first.t) if first.loss < line.centre.loss else first.t / 2
    if abs(second) > nearest:
        probes.append(probe(second))
    # A sweep must gain `smallest_gain`; a line is worth an evaluation more for its share of that.
    smallest = judge.options.smallest_gain(line.centre.loss) / len(line.centre.v)
    target = _third(probes, smallest)
    if target is not None:
        farthest = _FARTHEST * abs(line.step)
        target = clamp(min(max(target, -farthest), farthest))
        if min(abs(target - taken.t) for taken in probes) > nearest:
            probes.append(probe(target))
    return _next_step(line, probes, judge)


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
    # Newton's form of the parabola: loss(t) = left + before (t - t_l) + bend (t - t_l) (t - t_m), where
    # `before` is the slope from left to middle and `bend` the second divided difference. Where it does not
    # open upwards, the loss falls towards an end: look as far again beyond the better one.
    before = (middle.loss - left.loss) / (middle.t - left.t)
    after = (right.loss - middle.loss) / (right.t - middle.t)
    bend = (after - before) / (right.t - left.t)
    if bend <= 0:
        return None if best is middle else 2 * best.t
    vertex = 0.5 * (left.t + middle.t - before / bend)
    value = left.loss + before * (vertex - left.t) + bend * (vertex - left.t) * (vertex - middle.t)
    return vertex if best.loss - value > smallest_gain else None


def _next_step(line: Line, probes: list[Probe], judge: Judge) -> float:
    """The adapted step; see :func:`search_line`."""
    length = abs(line.step)
    if judge.best is line.centre or judge.best.loss >= line.centre.loss:
        flat = all(probe.loss == line.centre.loss for probe in probes)
        wanted, sign = (2 * length if flat else length / 2), line.step
    else:
        winner = next(probe for probe in probes if probe.loss == judge.best.loss)
        outermost = all(abs(probe.t) <= abs(winner.t) for probe in probes)
        wanted, sign = abs(winner.t) * (2 if outermost else 1), winner.t
    bounded = min(max(wanted, length / 2), length * 2)
    return math.copysign(min(max(bounded, MIN_STEP), judge.limit), sign)
