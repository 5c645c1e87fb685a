"""One run, from files to files: this module reads as METHOD.md does."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import onnx_ir as ir

from onnx_lapq._version import __version__
from onnx_lapq.baselines import baseline_steps
from onnx_lapq.calibrate import describe_samples, float_runs, read_samples
from onnx_lapq.calibration.samples import Samples
from onnx_lapq.config import QuantizationConfig
from onnx_lapq.files import check_writable, sha256, write_model, write_whole
from onnx_lapq.graph.placement import Placement, place
from onnx_lapq.graph.prepare import load, prepare, raise_opset
from onnx_lapq.graph.storage import opset_for, pack
from onnx_lapq.outcome import Outcome, record
from onnx_lapq.progress import Clock, Observer, silent
from onnx_lapq.report import Report
from onnx_lapq.rounding import Rounder
from onnx_lapq.search import Search, Start
from onnx_lapq.start import LayerwiseSteps
from onnx_lapq.workbench import set_up

__all__ = ["quantize_file", "report_path"]


def quantize_file(
    model: Path, calibration: Path, output: Path, config: QuantizationConfig, observer: Observer = silent
) -> Report:
    """Quantize a model file; writes ``output`` and ``output.report.json``.

    Args:
        model: The float ONNX model.
        calibration: A folder of images or arrays, or one ``.npz``.
        output: Where the quantized model goes.
        config: Options.
        observer: Told of progress.

    Returns:
        The record of the run, as written to the report file.

    Raises:
        InputError: The model, the samples, an option or the output path is no good.
        RunError: Onnxruntime failed on sound input.
    """
    check_writable(output)
    check_writable(report_path(output))
    config, clock = config.resolved(), Clock(observer)
    with clock.phase("prepare"):
        prepared = prepare(load(model))
        placement = place(prepared, config.placement_options())
        if config.storage == "packed":
            raise_opset(prepared, max(opset_for(site.bits) for site in placement.weights))
    with clock.phase("samples") as tick:
        samples = read_samples(prepared, calibration, config.preprocessing, config.samples, tick)
        calibration_record, warnings = describe_samples(samples)
    outcome = _quantize(prepared, placement, samples, config, clock)
    with clock.phase("write"):
        stamp = {
            "method": config.method,
            "version": __version__,
            "model_sha256": sha256(model),
            "options": _options_that_matter(config),
        }
        if config.storage == "packed":
            pack(outcome.model, placement)
        outcome.model.metadata_props["onnx_lapq"] = json.dumps(stamp, sort_keys=True)
        write_model(output, outcome.model)
        report = record(
            outcome,
            config,
            model=model,
            output=output,
            calibration=calibration_record,
            seconds=clock.seconds,
            warnings=warnings,
        )
        write_whole(report_path(output), report.to_json().encode())
    return report


def report_path(output: Path) -> Path:
    """Where the record of a run goes: beside the model."""
    return output.with_name(output.name + ".report.json")


def _quantize(
    prepared: ir.Model, placement: Placement, samples: Samples, config: QuantizationConfig, clock: Clock
) -> Outcome:
    bench = set_up(prepared, placement, samples, config, clock)
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


def _options_that_matter(config: QuantizationConfig) -> dict[str, Any]:
    """Options that decide what is written; threads and memory do not."""
    return {name: value for name, value in asdict(config).items() if name not in ("workers", "memory")}
