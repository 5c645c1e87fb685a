"""One run, from a float model and samples to a quantized model and its report."""

import json
import threading
from dataclasses import replace
from pathlib import Path

from onnx_lapq._version import __version__
from onnx_lapq.calibration.samples import SampleSource
from onnx_lapq.common.extras import require_extra
from onnx_lapq.common.limits import require_room
from onnx_lapq.config import QuantizationConfig
from onnx_lapq.errors import ConfigError
from onnx_lapq.graph.loading import ModelSource, load
from onnx_lapq.graph.placement.place import place
from onnx_lapq.graph.saving import ModelRecord, describe_model
from onnx_lapq.graph.simplify.opsets import raise_opset
from onnx_lapq.graph.simplify.prepare import prepare
from onnx_lapq.graph.writing.packing import opset_for, pack
from onnx_lapq.method.sample_loss import CustomLoss
from onnx_lapq.network.bench import set_up
from onnx_lapq.network.samples import describe_samples, read_samples
from onnx_lapq.progress import Clock, Observer, cancellable, silent
from onnx_lapq.report.outcome import record
from onnx_lapq.result import QuantizationResult
from onnx_lapq.stages.bits import choose_bits, with_bits
from onnx_lapq.stages.equalization import even_channels
from onnx_lapq.stages.run import run_stages
from onnx_lapq.stages.state_file import StateFile, identify, refuse_foreign
from onnx_lapq.stages.transforms import transform_weights

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
        joint step after its first evaluation, the bias correction or the sensitivities ends the run, and the
        best model so far is returned.

    Raises:
        InputError: The model, the samples or an option is no good.
        RunError: Onnxruntime failed on sound input, or a limit on memory is nearly reached.
        CancelledError: The caller asked for it.
    """
    if not isinstance(config, QuantizationConfig):
        raise ConfigError(f"config is of type {type(config).__name__}; give a QuantizationConfig")
    if loss is not None and config.loss != "auto":
        raise ConfigError(f"config.loss is {config.loss!r} and a loss function is given; give one of them")
    require_room()
    if state is not None and not config.resume:
        refuse_foreign(state)
    config = config.resolved()
    if config.report:
        require_extra("report", "matplotlib", "jinja2")
    if config.executor == "ray":
        require_extra("ray", "ray")
    clock = Clock(observer if cancel is None else cancellable(observer, cancel))
    with clock.phase("prepare"):
        prepared = prepare(load(model))
        placement = place(prepared, config.placement_options())
    with clock.phase("samples") as tick:
        samples = read_samples(prepared, calibration, config.preprocessing, config.samples, tick)
        calibration_record, warnings = describe_samples(samples)
    options = {**config.deciding(), "loss function": _name_of(loss)}
    state_file = StateFile(state, {} if state is None else identify(prepared, samples, options))
    saved = state_file.load() if config.resume else None
    if config.equalize is not False:
        with clock.phase("equalize"):
            prepared, trial = even_channels(prepared, samples, config, loss, state_file.choices.trial)
        state_file.choose(replace(state_file.choices, trial=trial))
        warnings += [] if trial is None else [trial.note]
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
    bench = set_up(prepared, placement, samples, config, clock, loss)
    outcome = run_stages(bench, config, clock, state_file, saved)
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
        "options": config.deciding(),
    }
    return json.dumps(stamp, sort_keys=True)
