"""One run, from a float model and samples to a quantized model and its report."""

import json
import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import onnx_ir as ir

from onnx_lapq._version import __version__
from onnx_lapq.calibration.samples import Samples, SampleSource
from onnx_lapq.common.blas import one_blas_thread
from onnx_lapq.config import QuantizationConfig
from onnx_lapq.evaluation.verification import expect
from onnx_lapq.graph.loading import ModelSource
from onnx_lapq.graph.saving import ModelRecord
from onnx_lapq.graph.writing.packing import pack
from onnx_lapq.graph.writing.reductions import keep_reduced_axes
from onnx_lapq.graph.writing.widening import widen_depthwise
from onnx_lapq.job import Job, checked, open_job, set_up_run
from onnx_lapq.method.losses import CustomLoss
from onnx_lapq.network.bench import Bench
from onnx_lapq.progress import Clock, Observer, cancellable, silent
from onnx_lapq.report.building import build_report
from onnx_lapq.report.closing import compare_with_source
from onnx_lapq.report.notes import oddities
from onnx_lapq.report.tensors import histograms
from onnx_lapq.result import QuantizationResult
from onnx_lapq.stages.found import Found, Save
from onnx_lapq.stages.rewriting.equalization import equalization_hints
from onnx_lapq.stages.run import run_stages
from onnx_lapq.stages.state_file import StateFile, identify

__all__ = ["TriedOut", "finish", "quantize", "try_out"]

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
    state: Path | str | None = None,
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
    state = None if state is None else Path(state)
    config = checked(config, loss, state)
    observer = observer if cancel is None else cancellable(observer, cancel)
    with one_blas_thread():
        job = open_job(model, calibration, config, Clock(observer), loss)
        store = StateFile(state, _identity(state, job.prepared, job.samples, config, loss))
        return finish(job, config, store.load() if config.resume else Found(), store.save)


def finish(job: Job, config: QuantizationConfig, found: Found, save: Save) -> QuantizationResult:
    """Do a run: search, write, compare, and put on record.

    Args:
        job: The model, which changes in place, and the samples.
        config: Options, resolved.
        found: What an interrupted run has found, or nothing yet.
        save: Told of what is found.

    Raises:
        InputError: The model, the samples or an option is no good.
        RunError: Onnxruntime failed on sound input.
    """
    hints = equalization_hints(job.prepared, config)
    bench, found = set_up_run(job, config, found, save)
    warnings = [*job.warnings, *hints, *_warned(oddities(bench))]
    return _concluded(job, bench, run_stages(bench, found, save), warnings)


def _concluded(job: Job, bench: Bench, found: Found, warnings: Sequence[str]) -> QuantizationResult:
    """Write what the stages have found, compare it with the user's model, and put the run on record."""
    bench = bench.with_codes(found.codes)
    bench.evaluator.forget()
    config, written = bench.config, _written(bench, found, job.source)
    with job.clock.phase("compare"):
        closing = compare_with_source(job.model, written, bench, found)
    report = build_report(
        bench, found, model=job.source, calibration=job.about_samples, warnings=warnings, closing=closing
    )
    point, outputs = bench.network.point(found.steps), bench.captured.names
    precise = bench.network.target.needs_precise_kernels
    expected = None
    if config.verify:
        expected = expect(
            bench.evaluator, point, job.samples, outputs, precise=precise, beside=closing.beside
        )
    tensors = histograms(bench, report.quantizers) if config.report else ()
    return QuantizationResult(written, report, tensors, expected, closing.pictures)


@dataclass(frozen=True)
class TriedOut:
    """What a quick run shows.

    Attributes:
        bench: The network, without codes.
        model: The quantized model.
        result: The whole run, where it would do no more: at bits that need no joint step. None elsewhere.
    """

    bench: Bench
    model: ir.Model
    result: Callable[[], QuantizationResult] | None


def try_out(job: Job, config: QuantizationConfig, found: Found) -> TriedOut:
    """A quick run that shows what bits give: without joint step, bounds on time, record and comparison.

    Args:
        job: The model, which changes in place, and the samples.
        config: Options, resolved.
        found: The evaluations so far.
    """
    hints = equalization_hints(job.prepared, config)
    quick = replace(config, optimizer="none", max_minutes=None)
    bench, _ = set_up_run(job, quick, found, _keep_nothing)
    found = run_stages(bench, found, _keep_nothing)
    model = _written(bench.with_codes(found.codes), found, job.source)
    bench = replace(bench, config=config)

    def result() -> QuantizationResult:
        return _concluded(job, bench, found, [*job.warnings, *hints, *_warned(oddities(bench))])

    return TriedOut(bench, model, None if bench.searches_jointly else result)


def _keep_nothing(found: Found) -> None:
    """Save nothing."""


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
