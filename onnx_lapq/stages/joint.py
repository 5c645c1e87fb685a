"""The joint step: Powell's method over all step sizes together (docs/method.md, "Joint optimisation")."""

import math
from collections.abc import Callable
from dataclasses import replace

from onnx_lapq.method.powell.joint import minimise
from onnx_lapq.method.powell.scipy_powell import minimise_scipy
from onnx_lapq.method.powell.search_state import SearchOptions, SearchResult, SearchState
from onnx_lapq.network.bench import Bench
from onnx_lapq.network.objective import Objective
from onnx_lapq.network.step_sizes import Steps
from onnx_lapq.progress import Ticker, counting
from onnx_lapq.stages.found import Found, Save, StageRecord
from onnx_lapq.stages.measure import is_worse, measured

__all__ = ["search_jointly"]

_SCIPY_SWEEPS = 2
_NEGLIGIBLE = {
    **{"kl": 1e-3, "soft-kl": 1e-3},
    **{"combined": 1e-5, "binary-kl": 1e-5, "mse": 1e-5, "row-mse": 1e-5, "direction": 1e-5},
}
"""What is not worth lowering, of losses that are 0 for the float network (docs/measurements/search.md)."""
_MANY_BITS = 7
"""Tensors of so many bits and more seldom gain anything."""
_PART = 64
"""Samples that show whether such a network gains anything."""
_PATIENCE = {True: 24, False: 8}
"""Lines in a row that may lower nothing: where bits are few, and where they are not."""


def search_jointly(bench: Bench, found: Found, save: Save) -> Found:
    """Move all searched step sizes together; the search is saved after every line.

    Where no tensor has few bits, the search sees a part of the samples, and what it finds has to hold on all
    of them. A search that had ended is found ended again, unless the caps on it are others now.
    """
    if bench.config.optimizer == "none":
        return replace(found, steps=found.start)
    bench = bench.with_codes(found.codes)
    seen = bench if _has_few_bits(bench) else bench.on_part(_PART)
    objective = seen.objective(found.start)

    def on_line(state: SearchState) -> None:
        save(replace(found, search=state, evaluations=seen.evaluations))

    with bench.clock.phase("joint", bench.config.max_evaluations) as tick:
        result = _minimise(seen, objective, found.search, tick, on_line)
    steps = objective.steps(result.step_sizes)
    stage = StageRecord("joint", result.loss, result.guard, seen.evaluations)
    if seen is not bench:
        steps, stage = _on_all_samples(bench, found, steps, len(result.history) > 1)
    return replace(
        found,
        steps=steps,
        stages=(*found.stages, stage),
        search=result.state,
        stopped=result.stopped,
        history=result.history,
        evaluations=bench.evaluations,
    )


def _has_few_bits(bench: Bench) -> bool:
    placement = bench.network.placement
    bits = [site.bits for site in placement.weights]
    bits += [site.bits for site in placement.activations if site.searched]
    return min(bits) < _MANY_BITS


def _on_all_samples(bench: Bench, found: Found, steps: Steps, moved: bool) -> tuple[Steps, StageRecord]:
    """The step sizes that a part of the samples led to, unless all samples do not agree."""
    before = found.stages[-1]
    if moved:
        stage = measured(bench, "joint", steps)
        if not is_worse(stage, before):
            return steps, stage
    return found.start, replace(before, stage="joint", evaluations=bench.evaluations)


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
            patience=_PATIENCE[_has_few_bits(bench)],
        ),
        guard=objective.guard if len(bench.guard) else None,
        on_line_search=on_line,
        state=state,
        should_stop=bench.out_of_time,
    )
