"""One run, from a float model and samples to a quantized model and its report."""

import json
import logging
import threading
from pathlib import Path

import onnx_ir as ir

from onnx_lapq._version import __version__
from onnx_lapq.calibration.request import Feeding
from onnx_lapq.calibration.samples import Samples, SampleSource
from onnx_lapq.common.extras import require_extra
from onnx_lapq.common.limits import require_room
from onnx_lapq.config import QuantizationConfig
from onnx_lapq.errors import ConfigError
from onnx_lapq.evaluation.fidelity import check_prepared
from onnx_lapq.evaluation.verification import expect
from onnx_lapq.graph.loading import ModelSource, load
from onnx_lapq.graph.placement.place import place
from onnx_lapq.graph.saving import ModelRecord, describe_model
from onnx_lapq.graph.simplify.prepare import prepare
from onnx_lapq.graph.writing.packing import pack
from onnx_lapq.graph.writing.reductions import keep_reduced_axes
from onnx_lapq.graph.writing.widening import widen_depthwise
from onnx_lapq.method.losses import CustomLoss
from onnx_lapq.network.batching import fixed_batch
from onnx_lapq.network.bench import Bench, set_up
from onnx_lapq.network.samples import check_feeding, describe_samples, read_samples
from onnx_lapq.progress import Clock, Observer, cancellable, silent
from onnx_lapq.report.building import build_report
from onnx_lapq.report.closing import compare_with_source
from onnx_lapq.report.notes import oddities
from onnx_lapq.report.tensors import histograms
from onnx_lapq.result import QuantizationResult
from onnx_lapq.stages.activation_scales import move_scales
from onnx_lapq.stages.bits import choose_bits, chosen_bits
from onnx_lapq.stages.equalization import equalization_note, equalize
from onnx_lapq.stages.found import Found
from onnx_lapq.stages.run import run_stages
from onnx_lapq.stages.state_file import StateFile, identify, refuse_foreign
from onnx_lapq.stages.transforms import transform_weights

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
        The quantized model and the record of the run.

    Raises:
        InputError: The model, the samples or an option is no good.
        RunError: Onnxruntime failed on sound input, or a limit on memory is nearly reached.
        CancelledError: The caller asked for it.
    """
    config = _checked(config, loss, state)
    feeding, clock = config.feeding(), Clock(observer if cancel is None else cancellable(observer, cancel))
    with clock.phase("prepare"):
        prepared, source = _prepared(model, config, feeding), describe_model(model)
        place(prepared, config.placement_options())
    with clock.phase("samples") as tick:
        samples = read_samples(prepared, calibration, config.preprocessing, config.samples, tick, feeding)
        about_samples, warnings = describe_samples(samples)
    if config.verify:
        warnings += check_prepared(model, prepared, samples, fixed_batch(prepared, samples))
    store = StateFile(state, _identity(state, prepared, samples, config, loss))
    found = store.load() if config.resume else Found()
    warnings += _equalized(prepared, samples, config, clock)
    if config.moves_scales:
        with clock.phase("scales"):
            move_scales(prepared, place(prepared, config.placement_options()), samples, config)
    found = choose_bits(prepared, samples, config, source.bytes, clock, found, loss)
    if config.chooses_bits:
        store.save(found)
    bench = _on_the_bench(prepared, samples, config, clock, found, loss)
    warnings += _warned(oddities(bench))
    found = run_stages(bench, found, store.save)
    bench = bench.with_codes(found.codes)
    written = _written(bench, found, source)
    with clock.phase("compare"):
        closing = compare_with_source(model, written, bench, found)
    report = build_report(
        bench, found, model=source, calibration=about_samples, warnings=warnings, closing=closing
    )
    point, outputs = bench.network.point(found.steps), bench.captured.names
    precise = bench.network.target.needs_precise_kernels
    return QuantizationResult(
        written,
        report,
        histograms(bench, report.quantizers) if config.report else (),
        expect(bench.evaluator, point, samples, outputs, precise=precise) if config.verify else None,
        closing.pictures,
    )


def _checked(config: QuantizationConfig, loss: CustomLoss | None, state: Path | None) -> QuantizationConfig:
    """The options with what ``auto`` stands for, once all that the run needs is there."""
    if not isinstance(config, QuantizationConfig):
        raise ConfigError(f"config is of type {type(config).__name__}; give a QuantizationConfig")
    if loss is not None and config.loss != "auto":
        raise ConfigError(f"config.loss is {config.loss!r} and a loss function is given; give one of them")
    require_room()
    if state is not None and not config.resume:
        refuse_foreign(state)
    if config.report:
        require_extra("report", "matplotlib", "jinja2")
    if config.executor == "ray":
        require_extra("ray", "ray")
    return config.resolved()


def _prepared(model: ModelSource, config: QuantizationConfig, feeding: Feeding) -> ir.Model:
    loaded = load(model)
    check_feeding(loaded, feeding)
    return prepare(
        loaded, fold_codes=config.fold_codes, values=feeding.values, least_opset=config.least_opset()
    )


def _identity(
    state: Path | None,
    prepared: ir.Model,
    samples: Samples,
    config: QuantizationConfig,
    loss: CustomLoss | None,
) -> dict[str, str]:
    """What a saved state belongs to; nothing where none is kept, for hashing takes its time."""
    if state is None:
        return {}
    return dict(identify(prepared, samples, {**config.deciding(), "loss function": _name_of(loss)}))


def _equalized(prepared: ir.Model, samples: Samples, config: QuantizationConfig, clock: Clock) -> list[str]:
    """Even out channels in place where the options ask for it; a note where they should."""
    if config.equalize:
        with clock.phase("equalize"):
            equalize(prepared, samples, config)
    note = equalization_note(prepared, config)
    return [] if note is None else [note]


def _on_the_bench(
    prepared: ir.Model,
    samples: Samples,
    config: QuantizationConfig,
    clock: Clock,
    found: Found,
    loss: CustomLoss | None,
) -> Bench:
    """Place quantizers of the chosen bits, rewrite weights as asked, and calibrate."""
    options = config.placement_options(chosen_bits(found))
    placement = transform_weights(prepared, place(prepared, options), config.transform, options)
    return set_up(prepared, placement, samples, config, clock, loss, found.evaluations)


def _warned(sentences: list[str]) -> list[str]:
    """The sentences, logged before the long part of the run begins."""
    for sentence in sentences:
        logger.warning("%s", sentence)
    return sentences


def _written(bench: Bench, found: Found, source: ModelRecord) -> ir.Model:
    """The quantized model, packed where asked, with a stamp that says how it was made."""
    network, config = bench.network, bench.config
    model = network.written(network.point(found.steps))
    widen_depthwise(model, network.target.depthwise_channels)
    if config.storage == "packed":
        pack(model, network.placement)
    if network.target.keeps_reduced_axes:
        keep_reduced_axes(model)
    stamp = {
        "method": config.method,
        "version": __version__,
        "model_sha256": source.sha256,
        "loss": bench.loss.name,
        "options": config.deciding(),
    }
    model.metadata_props["onnx_lapq"] = json.dumps(stamp, sort_keys=True)
    return model


def _name_of(loss: CustomLoss | None) -> str | None:
    """What a state remembers a loss function by."""
    if loss is None:
        return None
    return f"{loss.__module__}.{getattr(loss, '__qualname__', type(loss).__qualname__)}"
