"""The joint step: Powell's method over all step sizes together (docs/method.md, "Joint optimisation")."""

import logging
import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from onnx_lapq.method.powell.joint import minimise
from onnx_lapq.method.powell.scipy_powell import minimise_scipy
from onnx_lapq.method.powell.search_state import SearchOptions, SearchResult, SearchState
from onnx_lapq.network.bench import Bench
from onnx_lapq.network.objective import Objective
from onnx_lapq.progress import Ticker, counting
from onnx_lapq.stages.found import Found, Save, StageRecord

__all__ = ["search_jointly"]

logger = logging.getLogger(__name__)

_SCIPY_SWEEPS = 2
_NEGLIGIBLE = {
    **{"kl": 1e-3, "soft-kl": 1e-3},
    **{"combined": 1e-5, "binary-kl": 1e-5, "mse": 1e-5, "row-mse": 1e-5, "direction": 1e-5},
}
"""What is not worth lowering, of losses that are 0 for the float network (docs/measurements/search.md)."""


def search_jointly(bench: Bench, found: Found, save: Save) -> Found:
    """Move all searched step sizes together; the search is saved after every line.

    A search that had ended is found ended again, unless the caps on it are others now.
    """
    if not bench.searches_jointly:
        return replace(found, steps=found.start)
    bench = bench.with_codes(found.codes)
    objective = bench.objective(found.start)

    def on_line(state: SearchState) -> None:
        save(replace(found, search=state, evaluations=bench.evaluations))

    with bench.clock.phase("joint", bench.config.max_evaluations) as tick:
        result = _minimise(bench, objective, found.search, tick, on_line)
    if result.stopped == "negligible":
        logger.info("joint: a loss of %.2g is too low for this step to matter", result.loss)
    elif np.array_equal(result.step_sizes, objective.start):
        logger.info("joint: nothing better found; evaluations: %d", result.evaluations)
    return replace(
        found,
        steps=objective.steps(result.step_sizes),
        stages=(*found.stages, StageRecord("joint", result.loss, result.guard, bench.evaluations)),
        search=result.state,
        stopped=result.stopped,
        history=result.history,
        evaluations=bench.evaluations,
    )


def _minimise(
    bench: Bench,
    objective: Objective,
    state: SearchState | None,
    tick: Ticker,
    on_line: Callable[[SearchState], None],
) -> SearchResult:
    config = bench.config
    done, lowest = (0, math.inf) if state is None else (state.evaluations, state.loss)
    loss = counting(objective, tick, done, lowest)
    if config.optimizer == "scipy-powell":
        most = config.max_evaluations
        return minimise_scipy(loss, objective.start, _SCIPY_SWEEPS, most, bench.out_of_time)
    return minimise(
        loss,
        objective.start,
        SearchOptions(
            max_evaluations=config.max_evaluations,
            negligible=_NEGLIGIBLE.get(bench.loss.name, 0.0),
        ),
        guard=objective.guard if len(bench.guard) else None,
        on_line_search=on_line,
        state=state,
        should_stop=bench.out_of_time,
    )
