"""How much of a joint search is left, from what it has done so far."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from onnx_lapq.common.arrays import FloatArray
from onnx_lapq.method.powell.search_state import SearchOptions, SearchState

__all__ = ["Forecast", "forecast"]

_EVALUATIONS_PER_LINE = 2.7
"""Before the first line has ended."""
_FIRST_GAIN = 0.1
"""What the first sweep lowers the loss by, as a share of it."""
_NEXT_GAIN = 0.3
"""What a later sweep lowers the loss by, as a share of what the one before it did."""
_IDLE = 0.25
"""A search that has been idle for a larger share of its patience is expected to stay so."""


@dataclass(frozen=True)
class Forecast:
    """What a search has cost and is expected to cost still.

    Attributes:
        evaluations: Loss evaluations expected in all.
        spent: Cost of the lines searched so far, in units of ``costs``.
        left: Cost expected from here on.
    """

    evaluations: int
    spent: float
    left: float


def forecast(state: SearchState, options: SearchOptions, costs: Sequence[float]) -> Forecast:
    """Expect as many evaluations per line as there were so far, and gains that shrink from sweep to sweep.

    Args:
        state: Where the search is.
        options: Its limits and tolerances.
        costs: What one evaluation along each coordinate costs, [n], in any unit.
    """
    lines = len(state.steps)
    by_line = _line_costs(state, costs)
    searched = state.sweep * lines + state.line
    per_line = (state.evaluations - 1) / searched if searched else _EVALUATIONS_PER_LINE
    if state.idle > _IDLE * options.patience:
        sweeps, end = 0.0, min(state.line + options.patience - state.idle, lines)
    else:
        sweeps, end = _sweeps_left(state, options, per_line), lines
    expected = per_line * (end - state.line + sweeps * lines)
    left = by_line[state.line : end].sum() + sweeps * by_line.sum()
    if options.max_evaluations is not None and expected > options.max_evaluations - state.evaluations:
        allowed = options.max_evaluations - state.evaluations
        left, expected = left * allowed / expected, allowed
    return Forecast(
        evaluations=round(state.evaluations + expected),
        spent=float(per_line * (by_line[: state.line].sum() + state.sweep * by_line.sum())),
        left=float(per_line * left),
    )


def _line_costs(state: SearchState, costs: Sequence[float]) -> FloatArray:
    """Cost of an evaluation along every direction; one that moves several step sizes costs most."""
    return np.array([costs[line] if isinstance(line, int) else max(costs) for line in state.directions])


def _sweeps_left(state: SearchState, options: SearchOptions, per_line: float) -> float:
    """Sweeps expected after the current one, each as likely as its predecessor's gain is large."""
    lines = len(state.steps)
    gain = _gain_of_sweep(state)
    loss = max(state.sweep_loss - gain, 0.0)
    evaluations = state.evaluations + per_line * (lines - state.line)
    chance, expected = 1.0, 0.0
    for _ in range(state.sweep + 1, options.max_sweeps):
        if evaluations >= options.enough_evaluations or loss < options.negligible:
            break
        chance *= gain / (gain + options.smallest_gain(loss + gain)) if gain > 0 else 0.0
        expected += chance
        evaluations += per_line * lines
        gain *= _NEXT_GAIN
        loss = max(loss - gain, 0.0)
    return expected


def _gain_of_sweep(state: SearchState) -> float:
    """What the current sweep is expected to lower the loss by."""
    usual = _FIRST_GAIN * state.sweep_loss if state.last_gain is None else _NEXT_GAIN * state.last_gain
    ahead = 1 - state.line / len(state.steps)
    return state.sweep_loss - state.loss + ahead * usual
