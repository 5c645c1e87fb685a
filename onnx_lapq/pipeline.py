"""One run, from a float model to a quantized one: this module reads as METHOD.md does."""

import json
import logging
import threading
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import onnx_ir as ir

from onnx_lapq._version import __version__
from onnx_lapq.baselines import baseline_steps
from onnx_lapq.calibrate import describe_samples, read_samples
from onnx_lapq.calibration.samples import Samples, SampleSource
from onnx_lapq.config import QuantizationConfig
from onnx_lapq.debias import correct_biases, correctable
from onnx_lapq.equalize import equalize, equalized_if_better
from onnx_lapq.errors import ConfigError
from onnx_lapq.extras import require_extra
from onnx_lapq.files import ModelRecord, describe_model
from onnx_lapq.graph.loading import ModelSource, load
from onnx_lapq.graph.opsets import raise_opset
from onnx_lapq.graph.placement import place
from onnx_lapq.graph.prepare import prepare
from onnx_lapq.graph.sites import Placement
from onnx_lapq.graph.storage import opset_for, pack
from onnx_lapq.method.objective import CustomLoss
from onnx_lapq.method.search_state import SearchResult, SearchState
from onnx_lapq.mixed import choose_bits, with_bits
from onnx_lapq.network import Network
from onnx_lapq.oddities import oddities
from onnx_lapq.outcome import Outcome, record
from onnx_lapq.progress import Clock, Observer, cancellable, silent
from onnx_lapq.report import StageRecord
from onnx_lapq.result import QuantizationResult
from onnx_lapq.search import Search, Start
from onnx_lapq.start import LayerwiseSteps, Steps
from onnx_lapq.state_file import RunState, StateFile, identify
from onnx_lapq.tensors import fidelities, histograms, sensitivities
from onnx_lapq.transforms import transform_weights
from onnx_lapq.verification import expect
from onnx_lapq.workbench import Workbench, set_up

__all__ = ["quantize"]

logger = logging.getLogger(__name__)

_DEFAULTS = QuantizationConfig()


def quantize(
    model: ModelSource,
    calibration: SampleSource,
    config: QuantizationConfig = _DEFAULTS,
    *,
    loss: CustomLoss | None = None,
    observer: Observer = silent,
    cancel: threading.Event | None = None,
    state: Path | None = None,
) -> QuantizationResult:
    """Quantize a model. Prints nothing, writes nothing but ``state``, and may run in several threads at once.

    Args:
        model: The float ONNX model: a file, its bytes, an ``onnx.ModelProto`` or an ``onnx_ir.Model``.
        calibration: A folder of images or arrays; an ``.npz`` or ``.npy`` file; an array [samples, ...] or
            arrays by input name (``labels`` among them); or an iterable of samples, of (sample, label), or of
            batches of these, such as a PyTorch DataLoader, a Hugging Face dataset, or onnxruntime's
            CalibrationDataReader (`onnx_lapq.calibration.in_memory`).
        config: Options.
        loss: What the search minimises instead of ``config.loss``: a function of the quantized network's
            outputs, the float network's, both by name, [n, ...] each, and the labels of these n samples or
            None, that gives n numbers. Called from several threads.
        observer: Told of progress; what it raises ends the run.
        cancel: Once it is set, from any thread, the run ends with `CancelledError`.
        state: A file that keeps what the run has found, for ``config.resume`` to go on from should the run be
            ended by anything; delete it once the result is saved.

    Returns:
        The quantized model and the record of the run. With ``config.keep_best`` a KeyboardInterrupt in the
        joint step or the bias correction ends the run, and the best model so far is returned.

    Raises:
        InputError: The model, the samples or an option is no good.
        RunError: Onnxruntime failed on sound input.
        CancelledError: The caller asked for it.
    """
    if loss is not None and config.loss != "auto":
        raise ConfigError(f"config.loss is {config.loss!r} and a loss function is given; give one of them")
    config = config.resolved()
    if config.report:
        require_extra("report", "matplotlib", "jinja2")
    clock = Clock(observer if cancel is None else cancellable(observer, cancel))
    with clock.phase("prepare"):
        prepared = prepare(load(model))
        placement = place(prepared, config.placement_options())
    with clock.phase("samples") as tick:
        samples = read_samples(prepared, calibration, config.preprocessing, config.samples, tick)
        calibration_record, warnings = describe_samples(samples)
    options = {**_options_that_matter(config), "loss function": _name_of(loss)}
    state_file = StateFile(state, {} if state is None else identify(prepared, samples, options))
    saved = state_file.load() if config.resume else None
    if config.equalize is not False:
        with clock.phase("equalize"):
            prepared, note = _equalized(prepared, samples, config, loss, state_file)
        warnings = [*warnings, *note]
        placement = place(prepared, config.placement_options())
    source, ladder = describe_model(model), None
    if config.chooses_bits:
        ladder = state_file.choices.ladder
        ladder = ladder or choose_bits(prepared, samples, config, source.bytes, clock, loss)
        state_file.choose(replace(state_file.choices, ladder=ladder))
        config = with_bits(prepared, config, ladder)
        placement = place(prepared, config.placement_options())
    placement = transform_weights(prepared, placement, config)
    if config.storage == "packed":
        raise_opset(prepared, max((opset_for(site.bits) for site in placement.weights), default=0))
    outcome = _quantize(prepared, placement, samples, config, loss, clock, state_file, saved)
    if config.storage == "packed":
        pack(outcome.model, placement)
    outcome.model.metadata_props["onnx_lapq"] = _stamp(source, outcome.loss, config)
    report = record(
        outcome,
        config,
        model=source,
        calibration=calibration_record,
        seconds=clock.seconds,
        warnings=warnings,
        ladder=ladder,
    )
    return QuantizationResult(outcome.model, report, outcome.histograms, outcome.expected)


def _equalized(
    prepared: ir.Model,
    samples: Samples,
    config: QuantizationConfig,
    loss: CustomLoss | None,
    state_file: StateFile,
) -> tuple[ir.Model, list[str]]:
    """The network with even channels, and a note where the run decided whether."""
    if config.equalize:
        equalize(prepared, samples, config)
        return prepared, []
    better, trial = equalized_if_better(prepared, samples, config, loss, state_file.choices.trial)
    state_file.choose(replace(state_file.choices, trial=trial))
    return better, [] if trial is None else [trial.note]


def _quantize(
    prepared: ir.Model,
    placement: Placement,
    samples: Samples,
    config: QuantizationConfig,
    loss: CustomLoss | None,
    clock: Clock,
    state_file: StateFile,
    state: RunState | None,
) -> Outcome:
    bench = set_up(prepared, placement, samples, config, clock, loss)
    found = tuple(oddities(bench))
    for sentence in found:
        logger.warning("%s", sentence)
    search = bench.search(config)
    if state is None:
        state = RunState(_start(search, bench.layerwise, config, clock), bench.evaluator.evaluations)
        state_file.save(state)
    bench.evaluator.evaluations = state.evaluations
    if config.rounding == "compensated":
        state = _round(bench, search, state, state_file, clock)
    steps, result = _jointly(bench, search, state, state_file, clock)
    if result.stopped == "interrupted" and not config.keep_best:
        raise KeyboardInterrupt
    float_losses = bench.sample_loss(bench.reference, slice(0, len(samples)))
    rounded = () if state.compensated is None else (state.compensated,)
    stages = (search.average("float", float_losses, evaluations=0), *state.start.stages, *rounded)
    if config.optimizer != "none":
        joint = StageRecord("joint", result.loss, result.guard, bench.evaluator.evaluations)
        stages = (*stages, joint)
    try:
        network, corrected = _correct(bench, search, steps, result, clock)
    except KeyboardInterrupt:
        if not config.keep_best:
            raise
        network, corrected, result = bench.network, None, replace(result, stopped="interrupted")
    evaluations = bench.evaluator.evaluations
    bench = replace(bench, network=network)
    point = network.point(steps)
    fidelity = fidelities(bench, steps, point)
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
        _sensitivities(bench, search, steps, clock) if config.report else {},
        histograms(bench, fidelity) if config.report else (),
        found,
        expect(bench, point) if config.verify else None,
    )


def _correct(
    bench: Workbench, search: Search, steps: Steps, result: SearchResult, clock: Clock
) -> tuple[Network, StageRecord | None]:
    """Correct the biases of where the search ended, unless that raises the search or the guard loss."""
    layers = correctable(bench.network)
    if not layers or result.stopped == "interrupted":
        return bench.network, None
    with clock.phase("bias", len(layers)) as tick:
        network = correct_biases(bench, steps, tick)
        losses = bench.evaluator.losses(network.point(steps))
    stage = search.average("bias", losses, bench.evaluator.evaluations)
    worse = stage.loss > result.loss or (
        stage.guard_loss is not None and result.guard is not None and stage.guard_loss > result.guard
    )
    return (bench.network, None) if worse else (network, stage)


def _round(
    bench: Workbench, search: Search, state: RunState, state_file: StateFile, clock: Clock
) -> RunState:
    encoder = bench.network.encoder
    for name, codes in state.codes.items():
        encoder.fix(name, codes)
    if state.compensated is not None:
        return state
    rounder = bench.rounder(search)
    with clock.phase("rounding", len(rounder.layers)) as tick:

        def on_layer(done: int, steps: Steps) -> None:
            tick(done)
            state_file.save(replace(state, codes=encoder.fixed, start=replace(state.start, steps=steps)))

        start = replace(state.start, steps=rounder.round(state.start.steps, on_layer))
    compensated = search.record("compensated", start.steps)
    state = replace(
        state,
        start=start,
        codes=encoder.fixed,
        compensated=compensated,
        evaluations=bench.evaluator.evaluations,
    )
    state_file.save(state)
    return state


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
    with clock.phase("quadratic", len(config.p_values) + 2) as tick:
        return search.start(candidates, tick)


def _name_of(loss: CustomLoss | None) -> str | None:
    """What a state remembers a loss function by."""
    if loss is None:
        return None
    return f"{loss.__module__}.{getattr(loss, '__qualname__', type(loss).__qualname__)}"


def _stamp(model: ModelRecord, loss: str, config: QuantizationConfig) -> str:
    """What the model says of how it was made."""
    stamp = {
        "method": config.method,
        "version": __version__,
        "model_sha256": model.sha256,
        "loss": loss,
        "options": _options_that_matter(config),
    }
    return json.dumps(stamp, sort_keys=True)


def _options_that_matter(config: QuantizationConfig) -> dict[str, Any]:
    """Options that decide what is written; threads, memory, interruptions and the page do not."""
    others = ("workers", "memory", "resume", "keep_best", "report", "verify")
    return {name: value for name, value in asdict(config).items() if name not in others}
