"""From layer-wise step sizes to jointly optimised ones (METHOD.md sections 2 to 4)."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from onnx_lapq.common.arrays import FloatArray
from onnx_lapq.config import QuantizationConfig
from onnx_lapq.evaluation.protocols import Evaluator
from onnx_lapq.method.powell.joint import minimise
from onnx_lapq.method.powell.scipy_powell import minimise_scipy
from onnx_lapq.method.powell.search_state import SearchOptions, SearchResult, SearchState
from onnx_lapq.method.step_sizes.interpolation import QuadraticFit, quadratic_start
from onnx_lapq.network.network import Network, Objective
from onnx_lapq.network.step_sizes import LayerwiseSteps, Steps
from onnx_lapq.progress import Ticker
from onnx_lapq.report.record import StageRecord
from onnx_lapq.stages.nearest import nearest_candidates, nearest_start
from onnx_lapq.stages.pace import Pace

__all__ = ["MIN_MAX", "Search", "Start"]


MIN_MAX = float("inf")
"""The p whose layer-wise step sizes clip nothing."""

_SCIPY_SWEEPS = 2
_COARSE_BITS = 8
"""Activations of fewer bits have step sizes that depend much on p."""
_NEGLIGIBLE = {"kl": 1e-3, "soft-kl": 1e-3, "mse": 1e-5}
"""What is not worth lowering, of losses that are 0 for the float network (measured: docs/search.md)."""


@dataclass(frozen=True)
class Start:
    """Where the joint step begins.

    Attributes:
        steps: Step sizes of all quantizers.
        fit: The parabola over p that the search for them began with; None for step sizes of a baseline.
        stages: Losses of the candidates on the way.
        alternative: Step sizes at the smallest p, where compensated rounding is to begin from them as well.
    """

    steps: Steps
    fit: QuadraticFit | None
    stages: tuple[StageRecord, ...]
    alternative: Steps | None = None


def _guard_positions(count: int, share: float) -> npt.NDArray[np.intp]:
    """Positions of the guard samples, evenly spread over the (class-sorted) calibration set."""
    guards = int(count * share)
    return np.unique(((np.arange(guards) + 0.5) * count / max(guards, 1)).astype(np.intp))


class Search:
    """The search over the step sizes of one network.

    Args:
        network: The network.
        evaluator: Gives per-sample losses; counted.
        layerwise: Step sizes for any p.
        order: Names of the searched quantizers, in topological order.
        samples: Number of calibration samples.
        loss: Name of the loss.
        config: Options of the run.
    """

    def __init__(
        self,
        network: Network,
        evaluator: Evaluator,
        layerwise: LayerwiseSteps,
        order: Sequence[str],
        samples: int,
        loss: str,
        config: QuantizationConfig,
    ) -> None:
        self._network = network
        self._evaluator = evaluator
        self._layerwise = layerwise
        self.order = order
        self._samples = samples
        self.guard = _guard_positions(samples, config.guard)
        self._loss = loss
        self._config = config
        self._deadline = None if config.max_minutes is None else time.monotonic() + 60 * config.max_minutes

    def start(self, candidates: Sequence[Steps], tick: Ticker) -> Start:
        """Fit a parabola through the losses of the layer-wise candidates and take its minimum.

        Where weights are rounded to nearest, other step sizes compete with it (`onnx_lapq.stages.nearest`).
        Compensated rounding makes up for much of what a small p clips, so at few bits of activations it
        mostly wants a smaller p than the one with the lowest loss before it (measured: docs/rounding.md).

        Args:
            candidates: Step sizes for every p of the configuration.
            tick: Told after every evaluation.
        """
        known = dict(zip(self._config.p_values, candidates, strict=True))
        known[MIN_MAX] = self._layerwise.minmax()
        seen: dict[float, StageRecord] = {}
        losses: dict[float, FloatArray] = {}

        def loss_of_p(p: float) -> float:
            if p not in known:
                known[p] = self._layerwise.for_p([p], lambda done: None)[0]
            losses[p] = self._losses(known[p])
            stage = "min-max" if p == MIN_MAX else f"p={p:.4g}"
            seen[p] = self.average(stage, losses[p], self._evaluator.evaluations)
            tick(len(seen), min(record.loss for record in seen.values()))
            return seen[p].loss

        fit = quadratic_start(self._config.p_values, loss_of_p, min_max_loss=loss_of_p(MIN_MAX))
        best = seen[fit.p]
        quadratic = StageRecord("quadratic", best.loss, best.guard_loss, self._evaluator.evaluations)
        start = Start(known[fit.p], fit, (*seen.values(), quadratic))
        if self._config.rounding == "nearest":
            return self._for_nearest(start, losses[fit.p], tick)
        smallest = min(self._config.p_values)
        coarse = any(grid.bits < _COARSE_BITS for grid in self._network.grids.values())
        return replace(start, alternative=known[smallest] if coarse and fit.p != smallest else None)

    def start_evaluations(self) -> int:
        """How many evaluations `start` makes at most."""
        parabola = len(self._config.p_values) + 2
        if self._config.rounding != "nearest":
            return parabola
        return parabola + nearest_candidates(self._network)

    def over_all_samples(self, record: StageRecord) -> float:
        """The loss of a stage over the search and the guard samples together."""
        if record.guard_loss is None:
            return record.loss
        share = len(self.guard) / self._samples
        return (1 - share) * record.loss + share * record.guard_loss

    def _for_nearest(self, start: Start, losses: FloatArray, tick: Ticker) -> Start:
        """The start where weights are rounded to nearest; every candidate is on record."""
        seen = list(start.stages)

        def measure(stage: str, candidate: Steps) -> FloatArray:
            found = self._losses(candidate)
            seen.append(self.average(stage, found, self._evaluator.evaluations))
            tick(len(seen) - 1, min(record.loss for record in seen))
            return found

        name, steps, losses = nearest_start(self._network, self._layerwise, start.steps, losses, measure)
        chosen = self.average(f"start: {name}", losses, self._evaluator.evaluations)
        return replace(start, steps=steps, stages=(*seen, chosen))

    def start_from(self, steps: Steps) -> Start:
        """Begin at the step sizes of a baseline."""
        return Start(steps, None, (self.record(self._config.method, steps),))

    def jointly(
        self,
        start: Steps,
        tick: Ticker,
        state: SearchState | None = None,
        on_line_search: Callable[[SearchState], None] = lambda state: None,
    ) -> tuple[Steps, SearchResult]:
        """Powell's method over all searched step sizes together.

        Args:
            start: Step sizes of all quantizers.
            tick: Told after every evaluation.
            state: A state to go on from.
            on_line_search: Receives the state after every line search.
        """
        objective = self.objective(start)
        options = self._options()
        pace = Pace(tick, options, self._costs, self._deadline, state)

        def loss(vector: FloatArray) -> float:
            value = objective(vector)
            pace.evaluated(value)
            return value

        def on_line(state: SearchState) -> None:
            pace.moved(state)
            on_line_search(state)

        result = self._minimise(loss, objective, options, on_line, state)
        pace.ended(result)
        return objective.steps(result.step_sizes), result

    def _costs(self) -> list[float]:
        return [self._evaluator.cost(name) for name in self.order]

    def _options(self) -> SearchOptions:
        most = 1 if self._config.optimizer == "none" else self._config.max_evaluations
        return SearchOptions(max_evaluations=most, negligible=_NEGLIGIBLE.get(self._loss, 0.0))

    def _minimise(
        self,
        loss: Callable[[FloatArray], float],
        objective: Objective,
        options: SearchOptions,
        on_line_search: Callable[[SearchState], None],
        state: SearchState | None,
    ) -> SearchResult:
        if self._config.optimizer == "scipy-powell":
            most = options.max_evaluations
            return minimise_scipy(loss, objective.start, _SCIPY_SWEEPS, most, self._out_of_time)
        return minimise(
            loss,
            objective.start,
            options,
            guard=objective.guard if len(self.guard) else None,
            on_line_search=on_line_search,
            state=state,
            should_stop=self._out_of_time,
        )

    def _out_of_time(self) -> bool:
        return self._deadline is not None and time.monotonic() > self._deadline

    def objective(self, steps: Steps) -> Objective:
        """The loss as a function of the searched step sizes, which start at the given ones."""
        limits = np.array([self._layerwise.limit(name) for name in self.order])
        return Objective(self._network, self._evaluator, steps, self.order, limits, self.guard)

    def record(self, stage: str, steps: Steps) -> StageRecord:
        """Evaluate a stage of the search."""
        losses = self._losses(steps)
        return self.average(stage, losses, self._evaluator.evaluations)

    def _losses(self, steps: Steps) -> FloatArray:
        return self._evaluator.losses(self._network.point(steps))

    def average(self, stage: str, losses: FloatArray, evaluations: int) -> StageRecord:
        """Per-sample losses as a stage of the search."""
        guard = float(losses[self.guard].mean()) if len(self.guard) else None
        search = float(np.delete(losses, self.guard).mean())
        return StageRecord(stage, search, guard, evaluations)
