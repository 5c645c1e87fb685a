"""The stages of a run on one network, in the order of METHOD.md."""

import logging
from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

from onnx_lapq.config import QuantizationConfig
from onnx_lapq.evaluation.verification import expect
from onnx_lapq.method.powell.search_state import SearchResult, SearchState
from onnx_lapq.network.bench import Workbench
from onnx_lapq.network.layers import Encoder
from onnx_lapq.network.network import Network
from onnx_lapq.network.step_sizes import LayerwiseSteps, Steps
from onnx_lapq.progress import Clock, Ticker
from onnx_lapq.report.notes import oddities
from onnx_lapq.report.outcome import Outcome
from onnx_lapq.report.record import StageRecord
from onnx_lapq.report.tensors import fidelities, histograms, sensitivities
from onnx_lapq.stages.baselines import baseline_steps
from onnx_lapq.stages.biases import correct_biases, correctable
from onnx_lapq.stages.rounding import Rounder
from onnx_lapq.stages.search import Search, Start
from onnx_lapq.stages.state_file import RunState, StateFile

__all__ = ["correct", "round_weights", "run_stages"]

logger = logging.getLogger(__name__)

T = TypeVar("T")


def run_stages(
    bench: Workbench,
    config: QuantizationConfig,
    clock: Clock,
    state_file: StateFile,
    state: RunState | None,
) -> Outcome:
    """Find step sizes, round, move all step sizes together, and correct biases.

    Args:
        bench: The network, calibrated.
        config: Options.
        clock: Told of the phases.
        state_file: Gets what is found, as soon as it is.
        state: What a run has found that was interrupted.

    Raises:
        KeyboardInterrupt: The run was interrupted, and ``config.keep_best`` is off.
        RunError: Onnxruntime failed.
    """
    found = tuple(oddities(bench))
    for sentence in found:
        logger.warning("%s", sentence)
    search = bench.search(config)
    if state is None:
        state = RunState(_start(search, bench.layerwise, config, clock), bench.evaluator.evaluations)
        state_file.save(state)
    bench.evaluator.evaluations = state.evaluations
    if config.rounding == "compensated":
        state = round_weights(bench, search, state, state_file, clock)
    steps, result = _jointly(bench, search, state, state_file, clock)
    if result.stopped == "interrupted" and not config.keep_best:
        raise KeyboardInterrupt
    float_losses = bench.sample_loss(bench.reference, slice(0, len(bench.samples)))
    rounded = () if state.compensated is None else (state.compensated,)
    stages = (search.average("float", float_losses, evaluations=0), *state.start.stages, *rounded)
    if config.optimizer != "none":
        joint = StageRecord("joint", result.loss, result.guard, bench.evaluator.evaluations)
        stages = (*stages, joint)
    given: tuple[Network, StageRecord | None] = bench.network, None
    (network, corrected), result = _unless_interrupted(
        lambda: correct(bench, search, steps, result.loss, result.guard, clock), given, result, config
    )
    evaluations = bench.evaluator.evaluations
    bench = replace(bench, network=network)
    point = network.point(steps)
    fidelity = fidelities(bench, steps, point)
    sensitivity: dict[str, float] = {}
    if config.report:
        sensitivity, result = _unless_interrupted(
            lambda: _sensitivities(bench, search, steps, clock), sensitivity, result, config
        )
    return Outcome(
        network.written(point),
        network,
        bench.loss,
        state.start,
        stages if corrected is None else (*stages, corrected),
        steps,
        result,
        evaluations,
        fidelity,
        sensitivity,
        histograms(bench, fidelity) if config.report else (),
        found,
        expect(bench, point) if config.verify else None,
    )


def _unless_interrupted(
    stage: Callable[[], T], otherwise: T, result: SearchResult, config: QuantizationConfig
) -> tuple[T, SearchResult]:
    """What a stage behind the search gives; what stands for it in a run that is or was interrupted."""
    if result.stopped == "interrupted":
        return otherwise, result
    try:
        return stage(), result
    except KeyboardInterrupt:
        if not config.keep_best:
            raise
        return otherwise, replace(result, stopped="interrupted")


def correct(
    bench: Workbench, search: Search, steps: Steps, loss: float, guard_loss: float | None, clock: Clock
) -> tuple[Network, StageRecord | None]:
    """Correct the biases, unless that raises the search or the guard loss.

    Args:
        bench: The network.
        search: Measures the outcome.
        steps: Step sizes of all quantizers.
        loss: The search loss as it is.
        guard_loss: The guard loss as it is; None without a guard.
        clock: Told of the phase ``bias``.

    Returns:
        The network, and the record of the stage where biases were corrected.
    """
    layers = correctable(bench.network)
    if not layers:
        return bench.network, None
    with clock.phase("bias", len(layers)) as tick:
        network = correct_biases(bench, steps, tick)
        losses = bench.evaluator.losses(network.point(steps))
    stage = search.average("bias", losses, bench.evaluator.evaluations)
    worse = stage.loss > loss or (
        stage.guard_loss is not None and guard_loss is not None and stage.guard_loss > guard_loss
    )
    return (bench.network, None) if worse else (network, stage)


def round_weights(
    bench: Workbench, search: Search, state: RunState, state_file: StateFile, clock: Clock
) -> RunState:
    """Round from the start, and from its alternative where there is one; the better outcome.

    Args:
        bench: The network; its encoder gets the codes.
        search: Measures the outcomes.
        state: What has been found so far, rounded layers included.
        state_file: Gets every newly rounded layer.
        clock: Told of the phase ``rounding``.
    """
    if state.compensated is None or state.start.alternative is not None:
        rounder = bench.rounder(search)
        starts = 1 if state.start.alternative is None and state.rival is None else 2
        with clock.phase("rounding", starts * len(rounder.layers)) as tick:
            if state.compensated is None:
                state = _round_once(bench, search, rounder, state, state_file, tick)
            if state.start.alternative is not None:
                start = replace(state.start, steps=state.start.alternative, alternative=None)
                state = RunState(start, state.evaluations, rival=state)
                state = _round_once(bench, search, rounder, state, state_file, tick)
    _fix(bench.network.encoder, state)
    return state


def _round_once(
    bench: Workbench, search: Search, rounder: Rounder, state: RunState, state_file: StateFile, tick: Ticker
) -> RunState:
    encoder = bench.network.encoder
    _fix(encoder, state)
    before = 0 if state.rival is None else len(rounder.layers)

    def on_layer(done: int, steps: Steps) -> None:
        tick(before + done)
        state_file.save(replace(state, codes=encoder.fixed, start=replace(state.start, steps=steps)))

    start = replace(state.start, steps=rounder.round(state.start.steps, on_layer))
    record = search.record("compensated", start.steps)
    done = replace(
        state, start=start, codes=encoder.fixed, compensated=record, evaluations=bench.evaluator.evaluations
    )
    done = _better(search, done)
    state_file.save(done)
    return done


def _fix(encoder: Encoder, state: RunState) -> None:
    """Give the weights the codes of a state, and no others."""
    encoder.release()
    for name, codes in state.codes.items():
        encoder.fix(name, codes)


def _better(search: Search, state: RunState) -> RunState:
    """The state or its rival, whichever has the lower loss over all samples; both are on record."""
    rival = state.rival
    if rival is None or rival.compensated is None or state.compensated is None:
        return state
    first, second, fit = rival.compensated, state.compensated, state.start.fit
    assert fit is not None
    if search.over_all_samples(second) < search.over_all_samples(first):
        best, kept, other, p = state, second, first, fit.p
    else:
        best, kept, other, p = rival, first, second, min(p for p, _ in fit.samples)
    given_up = replace(other, stage=f"compensated from p={p:.4g}")
    return replace(
        best,
        start=replace(best.start, stages=(*best.start.stages, given_up), alternative=None),
        compensated=replace(kept, evaluations=state.evaluations),
        evaluations=state.evaluations,
        rival=None,
    )


def _jointly(
    bench: Workbench, search: Search, state: RunState, state_file: StateFile, clock: Clock
) -> tuple[Steps, SearchResult]:
    def on_line_search(found: SearchState) -> None:
        state_file.save(replace(state, search=found, evaluations=bench.evaluator.evaluations))

    with clock.phase("joint") as tick:
        return search.jointly(state.start.steps, tick, state.search, on_line_search)


def _sensitivities(bench: Workbench, search: Search, steps: Steps, clock: Clock) -> dict[str, float]:
    with clock.phase("sensitivity", 2 * len(search.order) + 1) as tick:
        return sensitivities(bench, search.order, steps, search.guard, tick)


def _start(search: Search, layerwise: LayerwiseSteps, config: QuantizationConfig, clock: Clock) -> Start:
    if config.method != "lapq":
        with clock.phase("step sizes", len(layerwise.names)) as tick:
            return search.start_from(baseline_steps(layerwise, config, tick))
    with clock.phase("step sizes", len(layerwise.names)) as tick:
        candidates = layerwise.for_p(config.p_values, tick)
    with clock.phase("quadratic", search.start_evaluations()) as tick:
        return search.start(candidates, tick)
