"""Joint optimisation of all step sizes: Powell's method with few evaluations.

docs/method.md, "Joint optimisation"; paper section 4.3, Algorithm 1 lines 7-23.

The search runs in log coordinates ``v = log(Δ / Δ_start)``: sweeps of line searches along a set of directions
that starts as the unit vectors, the last coordinate first, and after every sweep Powell's update, which may
replace the direction of the largest decrease by the sweep's whole displacement.

It guarantees: a point that is not positive and finite is never evaluated; no step size leaves the trust
region; the result is never worse than the start in the loss, nor in the guard loss; the same input gives the
same result, also across an interruption at any line search. A line costs 2 or 3 evaluations, a sweep 1 to 3
more.
"""

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from onnx_lapq.common.arrays import FloatArray
from onnx_lapq.errors import RunError
from onnx_lapq.method.powell.judge import Judge, Probe, Stopped
from onnx_lapq.method.powell.line_search import MIN_STEP, Line, search_line
from onnx_lapq.method.powell.search_state import (
    Direction,
    SearchOptions,
    SearchResult,
    SearchState,
    StopReason,
)

__all__ = ["minimise"]


MAX_SWEEPS = 3
"""Sweeps over all directions."""

INITIAL_STEP = 0.1
"""First step along every direction, in log units (about 10 %)."""

ENOUGH_EVALUATIONS = 250
"""Once as many loss evaluations are spent, no further sweep begins. The first sweep gains most; where there
are many step sizes it is the only one."""


def minimise(
    loss: Callable[[FloatArray], float],
    start: FloatArray,
    options: SearchOptions,
    guard: Callable[[], FloatArray] | None = None,
    on_line_search: Callable[[SearchState], None] | None = None,
    state: SearchState | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> SearchResult:
    """Lower the loss over all step sizes together.

    Args:
        loss: Loss of the quantized network at step sizes float64 [n], all positive and finite. What it raises
            passes through.
        start: Step sizes to start from, float64 [n], in topological order: a sweep visits the last one first.
        options: Limits and tolerances.
        guard: Losses by held-out sample, float64 [g], of the point that ``loss`` was last called with; called
            once after every ``loss``.
        on_line_search: Receives the state after every line search and every direction update.
        state: A state to go on from; the options, but for the limits, must be those it was made with.
        should_stop: Asked before every evaluation but the first; true ends the search.

    Returns:
        The best point seen. It is the same, to the bit, however often the search was interrupted and resumed.

    Raises:
        RunError: The start is not positive and finite, or the state belongs to another search.
    """
    start = np.asarray(start, dtype=np.float64)
    if start.ndim != 1 or not (np.isfinite(start).all() and (start > 0).all()):
        raise RunError("the search was started from step sizes that are not positive and finite")
    judge = Judge(loss, start, options, guard, should_stop)
    if state is None:
        judge.begin()
        state = _first_state(judge, start)
    else:
        _restore(judge, state, start)
    try:
        while (stopped := _ended(state, options)) is None:
            state = _search(judge, state) if state.line < len(start) else _end_sweep(judge, state)
            if on_line_search is not None:
                on_line_search(state)
    except Stopped as signal:
        stopped = signal.reason
    best = judge.kept
    return SearchResult(
        step_sizes=start * np.exp(np.array(best.v)),
        loss=best.loss,
        guard=best.guard,
        evaluations=judge.evaluations,
        stopped=stopped,
        history=judge.history,
        state=state,
    )


def _first_state(judge: Judge, start: FloatArray) -> SearchState:
    """The state before the first line."""
    best = judge.best
    return SearchState(
        start=tuple(start.tolist()),
        point=best.v,
        loss=best.loss,
        guard=best.guard,
        kept=judge.kept,
        lowest_guard=_tuple(judge.lowest_guard),
        directions=tuple(reversed(range(start.size))),
        steps=(min(INITIAL_STEP, judge.limit),) * start.size,
        sweep=0,
        line=0,
        idle=0,
        sweep_point=best.v,
        sweep_loss=best.loss,
        largest_drop=0.0,
        largest_line=0,
        last_gain=None,
        evaluations=judge.evaluations,
        history=judge.history,
    )


def _restore(judge: Judge, state: SearchState, start: FloatArray) -> None:
    """Put a fresh judge where the state was taken."""
    if state.start != tuple(start.tolist()):
        raise RunError("the saved search state was made from other step sizes; start the search afresh")
    if (state.lowest_guard is None) != (judge.lowest_guard is None):
        raise RunError(
            "only one of the saved search state and this search has a guard; start the search afresh"
        )
    judge.go_on_from(state)


def _tuple(losses: FloatArray | None) -> tuple[float, ...] | None:
    return None if losses is None else tuple(losses.tolist())


def _ended(state: SearchState, options: SearchOptions) -> StopReason | None:
    """Why no further line is searched, if so."""
    if state.loss < options.negligible:
        return "negligible"
    if state.idle >= options.patience:
        return "converged"
    gain = state.last_gain
    if state.line == 0 and gain is not None and gain < options.smallest_gain(state.loss + gain):
        return "converged"
    enough = state.sweep > 0 and state.line == 0 and state.evaluations >= ENOUGH_EVALUATIONS
    return "max-sweeps" if enough or state.sweep >= MAX_SWEEPS else None


def _moved(judge: Judge, state: SearchState) -> SearchState:
    """The state at the judge's best point."""
    best = judge.best
    return replace(
        state,
        point=best.v,
        loss=best.loss,
        guard=best.guard,
        kept=judge.kept,
        lowest_guard=_tuple(judge.lowest_guard),
        evaluations=judge.evaluations,
        history=judge.history,
    )


def _search(judge: Judge, state: SearchState) -> SearchState:
    """Search the next line of the sweep."""
    index = state.line
    direction = _vector(state.directions[index], len(state.start))
    step = search_line(judge, Line(judge.best, direction, state.steps[index]))
    drop = state.loss - judge.best.loss
    if drop > state.largest_drop:
        state = replace(state, largest_drop=drop, largest_line=index)
    steps = (*state.steps[:index], step, *state.steps[index + 1 :])
    idle = 0 if drop > judge.options.smallest_gain(judge.best.loss) else state.idle + 1
    return _moved(judge, replace(state, steps=steps, line=index + 1, idle=idle))


def _end_sweep(judge: Judge, state: SearchState) -> SearchState:
    """Powell's direction update, then the next sweep.

    The extrapolated point ``2 v_N - v_0``, cut to the trust region, is evaluated. By Powell's criterion the
    displacement replaces the direction of the largest decrease (it goes last, so that the others keep their
    order) and is searched; otherwise the extrapolated point is merely accepted if it is better.
    """
    target = np.clip(2 * np.array(state.point) - np.array(state.sweep_point), -judge.limit, judge.limit)
    displacement = target - np.array(state.point)
    length = float(np.abs(displacement).max(initial=0.0))
    if np.count_nonzero(displacement) > 1 and length >= MIN_STEP:
        centre = judge.best
        ahead = judge.probe(target, length)
        if _replaces(state, ahead):
            line = Line(centre, displacement / length, length)
            step = search_line(judge, line, known=ahead)
            kept = [index for index in range(len(state.steps)) if index != state.largest_line]
            state = replace(
                state,
                directions=(*(state.directions[i] for i in kept), tuple(line.direction.tolist())),
                steps=(*(state.steps[i] for i in kept), step),
            )
    gain = state.sweep_loss - judge.best.loss
    state = _moved(judge, state)
    return replace(
        state,
        sweep=state.sweep + 1,
        line=0,
        idle=0,
        sweep_point=state.point,
        sweep_loss=state.loss,
        largest_drop=0.0,
        largest_line=0,
        last_gain=0.0 if math.isnan(gain) else gain,
    )


def _replaces(state: SearchState, ahead: Probe) -> bool:
    """Powell's criterion: the displacement is worth a direction of its own."""
    before, after, drop = state.sweep_loss, state.loss, state.largest_drop
    if not ahead.loss < before:
        return False
    # Powell 1964, as in Press et al., Numerical Recipes, section 10.5: f_0 is `before`, f_N `after`, f_E
    # `ahead`. The old directions stay where no single one of them made most of the decrease, or where the
    # loss bends so much along the displacement that its minimum there is near.
    rest, fall = before - after - drop, before - ahead.loss
    return 2 * (before - 2 * after + ahead.loss) * rest * rest < drop * fall * fall


def _vector(direction: Direction, size: int) -> FloatArray:
    """A direction with all its components."""
    if not isinstance(direction, int):
        return np.array(direction)
    unit = np.zeros(size)
    unit[direction] = 1.0
    return unit
