"""The first stage: step sizes to begin with (docs/method.md, "Quadratic approximation over p")."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace

from onnx_lapq.common.arrays import FloatArray
from onnx_lapq.method.step_sizes.interpolation import QuadraticFit, most_losses, quadratic_start
from onnx_lapq.network.bench import Bench
from onnx_lapq.network.step_sizes import Steps
from onnx_lapq.progress import Ticker
from onnx_lapq.stages.baselines import baseline_steps
from onnx_lapq.stages.found import Attempt, Found, Save, StageRecord
from onnx_lapq.stages.measure import is_lower, measured, record_of
from onnx_lapq.stages.nearest import nearest_candidates, nearest_start

__all__ = ["MIN_MAX", "FitOverP", "find_start", "fit_over_p"]

logger = logging.getLogger(__name__)

MIN_MAX = float("inf")
"""The p whose layer-wise step sizes clip nothing."""

_FAR_LOWER = 0.5
"""Share of what quantization adds to a loss: a start that clips what it should not adds several times as
much."""

_COARSE_BITS = 8
"""Activations of fewer bits have step sizes that depend much on p."""


@dataclass(frozen=True)
class FitOverP:
    """The parabola over p, and what was seen on the way.

    Attributes:
        fit: The parabola, and the p that was taken.
        steps: Step sizes of all quantizers at that p.
        losses: Their loss on the judging samples, float64 [n].
        smallest: Step sizes at the smallest p of the grid.
        is_level: Whether that of p is not far below theirs.
        stages: Losses of all candidates, and last that of the one taken.
    """

    fit: QuadraticFit
    steps: Steps
    losses: FloatArray
    smallest: Steps
    is_level: bool
    stages: tuple[StageRecord, ...]


def find_start(bench: Bench, found: Found, save: Save) -> Found:
    """Step sizes of all quantizers, by LAPQ or by a baseline, and the starts to round from."""
    if found.start:
        return found
    found = replace(found, stages=(record_of(bench, "float", bench.reference_losses),))
    if bench.config.method == "lapq":
        found = _by_loss(bench, found)
    else:
        with bench.clock.phase("step sizes", len(bench.layerwise.names)) as tick:
            steps = baseline_steps(bench.layerwise, bench.config, tick)
        stage = measured(bench, bench.config.method, steps)
        found = replace(found, start=steps, stages=(*found.stages, stage), attempts=(Attempt(None, steps),))
    if bench.config.rounding != "compensated":
        found = replace(found, attempts=())
    found = replace(found, evaluations=bench.evaluations)
    save(found)
    return found


def fit_over_p(bench: Bench, candidates: Sequence[Steps], tick: Ticker, *, is_start: bool = True) -> FitOverP:
    """Fit a parabola through the losses of layer-wise candidates and take its minimum.

    Where time is up, the grid ends after its first p.

    Args:
        bench: The network.
        candidates: Step sizes of all quantizers for every p of the options.
        tick: Told after every evaluation.
        is_start: Whether a search starts at the lowest loss, whichever p has it. Else the vertex is left out
            where neither it nor another candidate is far below the smallest p.
    """
    known = dict(zip(bench.p_values, candidates, strict=True))
    known[MIN_MAX] = bench.layerwise.minmax()
    seen: dict[float, StageRecord] = {}
    losses: dict[float, FloatArray] = {}

    def loss_of_p(p: float) -> float:
        if p not in known:
            known[p] = bench.layerwise.for_p([p], lambda done: None)[0]
        losses[p] = bench.stage_losses(known[p])
        seen[p] = record_of(bench, "min-max" if p == MIN_MAX else f"p={p:.4g}", losses[p])
        tick(len(seen), min(record.loss for record in seen.values()))
        return seen[p].loss

    smallest, floor = min(bench.p_values), record_of(bench, "float", bench.reference_losses).loss

    def is_worth(loss: float) -> bool:
        return is_start or _adds_far_less(loss, seen[smallest].loss, floor)

    fit = quadratic_start(bench.p_values, loss_of_p, loss_of_p(MIN_MAX), bench.out_of_time, is_worth)
    taken = replace(seen[fit.p], stage="quadratic", evaluations=bench.evaluations)
    is_level = not _is_far_lower(losses[fit.p], losses[smallest], bench.reference_losses)
    return FitOverP(fit, known[fit.p], losses[fit.p], known[smallest], is_level, (*seen.values(), taken))


def _is_far_lower(losses: FloatArray, others: FloatArray, floor: FloatArray) -> bool:
    """Whether losses of the judging samples are far below others, and not by chance.

    Losses against labels can be below those of the float network, the floor.
    """
    means = (float(each.mean()) for each in (losses, others, floor))
    return _adds_far_less(*means) and is_lower(losses, others)


def _adds_far_less(loss: float, other: float, floor: float) -> bool:
    return loss - floor < _FAR_LOWER * (other - floor)


def _by_loss(bench: Bench, found: Found) -> Found:
    """LAPQ's start. Rounded to nearest, other step sizes compete with those of the parabola."""
    nearest = bench.config.rounding == "nearest"
    with bench.clock.phase("step sizes", len(bench.layerwise.names)) as tick:
        candidates = bench.layerwise.for_p(bench.p_values, tick)
    most = 1 + most_losses(bench.p_values) + (nearest_candidates(bench.network) if nearest else 0)
    with bench.clock.phase("quadratic", most) as tick:
        fitted = fit_over_p(bench, candidates, tick, is_start=nearest)
        found = replace(found, fit=fitted.fit, start=fitted.steps, stages=(*found.stages, *fitted.stages))
        logger.info("step sizes: %s", fitted.fit.reason)
        if nearest:
            return _nearest(bench, found, fitted.losses, tick)
    return replace(found, attempts=_attempts(bench, fitted))


def _attempts(bench: Bench, fitted: FitOverP) -> tuple[Attempt, ...]:
    """The starts to round from: the smallest p, or the best of the grid where that has a far lower loss.

    Compensated rounding makes up for much of what a small p clips, so it mostly wants a smaller p than the
    one with the lowest loss before it (docs/measurements/rounding.md). At few bits of activations the
    smallest p is tried even where its loss is far higher.
    """
    best, smallest = Attempt(fitted.fit.p, fitted.steps), Attempt(min(bench.p_values), fitted.smallest)
    if fitted.is_level:
        return (smallest,)
    is_coarse = any(grid.bits < _COARSE_BITS for grid in bench.network.grids.values())
    return (best, smallest) if is_coarse else (best,)


def _nearest(bench: Bench, found: Found, losses: FloatArray, tick: Ticker) -> Found:
    """The start where weights are rounded to nearest; every candidate is on record."""
    seen = list(found.stages)

    def measure(stage: str, candidate: Steps) -> FloatArray:
        losses = bench.losses(candidate)
        seen.append(record_of(bench, stage, losses))
        tick(len(seen) - 2, min(record.loss for record in seen[1:]))
        return losses

    name, steps, losses = nearest_start(
        bench.network, bench.layerwise, found.start, losses, measure, bench.out_of_time
    )
    chosen = record_of(bench, f"start: {name}", losses)
    return replace(found, start=steps, stages=(*seen, chosen))
