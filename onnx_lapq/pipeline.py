"""One run, from a float model to a quantized one: this module reads as METHOD.md does."""

import json
import threading
from dataclasses import asdict

import onnx_ir as ir

from onnx_lapq._version import __version__
from onnx_lapq.baselines import baseline_steps
from onnx_lapq.calibrate import describe_samples, float_runs, read_samples
from onnx_lapq.calibration.samples import Samples, SampleSource
from onnx_lapq.config import QuantizationConfig
from onnx_lapq.equalize import equalize
from onnx_lapq.errors import ConfigError
from onnx_lapq.files import ModelRecord, describe_model
from onnx_lapq.graph.loading import ModelSource, load
from onnx_lapq.graph.placement import Placement, place
from onnx_lapq.graph.prepare import prepare, raise_opset
from onnx_lapq.graph.storage import opset_for, pack
from onnx_lapq.method.objective import CustomLoss
from onnx_lapq.outcome import Outcome, record
from onnx_lapq.progress import Clock, Observer, cancellable, silent
from onnx_lapq.result import QuantizationResult
from onnx_lapq.rounding import Rounder
from onnx_lapq.search import Search, Start
from onnx_lapq.start import LayerwiseSteps
from onnx_lapq.workbench import set_up

__all__ = ["quantize"]

_DEFAULTS = QuantizationConfig()


def quantize(
    model: ModelSource,
    calibration: SampleSource,
    config: QuantizationConfig = _DEFAULTS,
    *,
    loss: CustomLoss | None = None,
    observer: Observer = silent,
    cancel: threading.Event | None = None,
) -> QuantizationResult:
    """Quantize a model. Prints nothing, writes nothing, and may run in several threads at once.

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

    Returns:
        The quantized model and the record of the run.

    Raises:
        InputError: The model, the samples or an option is no good.
        RunError: Onnxruntime failed on sound input.
        CancelledError: The caller asked for it.
    """
    if loss is not None and config.loss != "auto":
        raise ConfigError(f"config.loss is {config.loss!r} and a loss function is given; give one of them")
    config = config.resolved()
    clock = Clock(observer if cancel is None else cancellable(observer, cancel))
    with clock.phase("prepare"):
        prepared = prepare(load(model))
        placement = place(prepared, config.placement_options())
        if config.storage == "packed":
            raise_opset(prepared, max(opset_for(site.bits) for site in placement.weights))
    with clock.phase("samples") as tick:
        samples = read_samples(prepared, calibration, config.preprocessing, config.samples, tick)
        calibration_record, warnings = describe_samples(samples)
    if config.equalize:
        with clock.phase("equalize"):
            equalize(prepared, samples, config)
        placement = place(prepared, config.placement_options())
    outcome = _quantize(prepared, placement, samples, config, loss, clock)
    if config.storage == "packed":
        pack(outcome.model, placement)
    source = describe_model(model)
    outcome.model.metadata_props["onnx_lapq"] = _stamp(source, outcome.loss, config)
    report = record(
        outcome,
        config,
        model=source,
        calibration=calibration_record,
        seconds=clock.seconds,
        warnings=warnings,
    )
    return QuantizationResult(outcome.model, report)


def _quantize(
    prepared: ir.Model,
    placement: Placement,
    samples: Samples,
    config: QuantizationConfig,
    loss: CustomLoss | None,
    clock: Clock,
) -> Outcome:
    bench = set_up(prepared, placement, samples, config, clock, loss)
    network, evaluator = bench.network, bench.evaluator
    search = bench.search(config)
    start = _start(search, bench.layerwise, config, clock)
    float_losses = bench.sample_loss(bench.reference, slice(0, len(samples)))
    stages = (search.average("float", float_losses, evaluations=0), *start.stages)
    if config.rounding == "compensated":
        rounder = Rounder(
            network,
            evaluator,
            bench.simulation.probes,
            search.guard,
            bench.captured.means,
            float_runs(prepared, samples, bench.batch, bench.workers),
            len(samples),
        )
        with clock.phase("rounding", len(rounder.layers)) as tick:
            rounder.round(start.steps, tick)
        stages = (*stages, search.record("compensated", start.steps))
    with clock.phase("joint", search.most_evaluations) as tick:
        steps, result = search.jointly(start.steps, tick)
    point = network.point(steps)
    return Outcome(
        network.written(point), network, bench.loss, start, stages, steps, result, evaluator.evaluations
    )


def _start(search: Search, layerwise: LayerwiseSteps, config: QuantizationConfig, clock: Clock) -> Start:
    if config.method != "lapq":
        with clock.phase("step sizes", len(layerwise.names)) as tick:
            return search.start_from(baseline_steps(layerwise, config, tick))
    with clock.phase("step sizes", len(layerwise.names)) as tick:
        candidates = layerwise.for_p(config.p_values, tick)
    with clock.phase("quadratic", len(config.p_values) + 2) as tick:
        return search.start(candidates, tick)


def _stamp(model: ModelRecord, loss: str, config: QuantizationConfig) -> str:
    """What the model says of how it was made; threads and memory have no part in it."""
    options = {name: value for name, value in asdict(config).items() if name not in ("workers", "memory")}
    stamp = {
        "method": config.method,
        "version": __version__,
        "model_sha256": model.sha256,
        "loss": loss,
        "options": options,
    }
    return json.dumps(stamp, sort_keys=True)
