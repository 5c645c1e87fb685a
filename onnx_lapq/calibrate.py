"""Run the float network over the calibration set."""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import onnx_ir as ir
import onnx_ir.passes.common as common_passes
import onnxruntime as ort

from onnx_lapq.calibration.capture import Capture, capture
from onnx_lapq.calibration.hashing import hash_samples
from onnx_lapq.calibration.preprocessing import Preprocessing, fit_to_model
from onnx_lapq.calibration.ranges import implausible_range, input_range
from onnx_lapq.calibration.samples import InputSpec, Samples, SampleSource, open_samples, take
from onnx_lapq.errors import CalibrationError, ModelError
from onnx_lapq.evaluation.evaluator import batches
from onnx_lapq.evaluation.providers import CPU
from onnx_lapq.evaluation.session import first_run, open_session, run
from onnx_lapq.graph.sites import Placement

__all__ = [
    "batch_limit",
    "calibrate",
    "describe_samples",
    "fixed_batch",
    "float_runs",
    "read_samples",
]

logger = logging.getLogger(__name__)

_MAX_BATCH = 64
_BATCH_BYTES = 64 << 20
"""Bytes of float activations that one batch may produce."""


def _input_specs(model: ir.Model) -> list[InputSpec]:
    """What the graph's inputs take.

    Raises:
        ModelError: An input has no type or an unknown rank.
    """
    specs = []
    for value in model.graph.inputs:
        if value.dtype is None or value.shape is None or value.name is None:
            raise ModelError(f"input {value.name!r} has no type or shape; export the model with typed inputs")
        if not len(value.shape):
            raise ModelError(f"input {value.name!r} is a single number, without a batch; make it a constant")
        if value.dtype == ir.DataType.STRING:
            raise ModelError(f"input {value.name!r} takes text; export the model from behind its tokenizer")
        shape = tuple(size if isinstance(size, int) else size.value for size in value.shape)
        specs.append(InputSpec(name=value.name, dtype=value.dtype.numpy(), shape=shape))
    return specs


def read_samples(
    model: ir.Model,
    source: SampleSource,
    preprocessing: Preprocessing,
    limit: int | None,
    on_file: Callable[[int], None],
) -> Samples:
    """Read calibration or test samples for a model.

    Args:
        model: Its inputs say what is wanted; the sizes of a preset are fitted to it.
        source: A folder of images or arrays, one ``.npz`` or ``.npy``, or samples in memory.
        preprocessing: For images.
        limit: At most this many samples.
        on_file: Called with the number of files or samples read so far.

    Raises:
        CalibrationError: There are no samples, or they cannot be read or do not fit.
        ConfigError: An option does not fit the model.
    """
    inputs = _input_specs(model)
    fitted = fit_to_model(preprocessing, inputs)
    samples = open_samples(source, inputs, fitted, limit, lambda done, _: on_file(done))
    return _whole_batches(samples, fixed_batch(model))


def describe_samples(samples: Samples) -> tuple[dict[str, Any], list[str]]:
    """The record of the samples, with a hash and the range of the first ones, and warnings of odd ranges."""
    record = samples.describe()
    record["sha256"] = hash_samples(samples)
    ranges = input_range(samples.batch(0, min(_MAX_BATCH, len(samples))))
    warnings = []
    for name, (low, high) in ranges.items():
        record["inputs"][name]["range"] = [low, high]
        if record["inputs"][name].get("image"):
            logger.info("input %s: %s in [%.4g, %.4g]", name, record["preprocessing"], low, high)
            odd = implausible_range(low, high)
            if odd is not None:
                logger.warning("%s", odd)
                warnings.append(odd)
    return record, warnings


def _batch_size(model: ir.Model, limit: int, observed: int) -> int:
    """Samples per session run: what a fixed batch dimension says, else as many as keep memory bounded.

    Args:
        model: The prepared model.
        limit: What `batch_limit` says.
        observed: Bytes of activations that one sample produces.
    """
    return fixed_batch(model) or int(np.clip(_BATCH_BYTES // max(observed, 1), 1, limit))


def batch_limit(session: ort.InferenceSession, samples: Samples, outputs: Sequence[str] | None = None) -> int:
    """The most samples that a run may hold where the number is free: 1 where the graph takes no more.

    Exporters bake a batch of 1 into the graph, for example as the shape that a Reshape gives.

    Args:
        session: The model.
        samples: Any samples for it.
        outputs: Outputs that are to have a row for each sample; None for all.
    """
    if len(samples) == 1:
        return 1
    try:
        results = first_run(session, samples.batch(0, 2), list(outputs) if outputs else None)
    except ModelError:
        return 1
    return min(_MAX_BATCH, len(samples)) if any(values.shape[:1] == (2,) for values in results) else 1


def fixed_batch(model: ir.Model) -> int | None:
    """Samples that every run must hold; None where their number is free.

    Raises:
        ModelError: The inputs differ.
    """
    fixed = {
        value.name: value.shape[0]
        for value in model.graph.inputs
        if value.shape is not None and len(value.shape) and isinstance(value.shape[0], int)
    }
    if len(set(fixed.values())) > 1:
        shown = ", ".join(f"{name!r} {size}" for name, size in fixed.items())
        raise ModelError(
            f"the inputs have first dimensions of different sizes ({shown}), but it has to be the batch; "
            "export the model with one sample per row of every input"
        )
    return next(iter(fixed.values()), None) or None


def _whole_batches(samples: Samples, batch: int | None) -> Samples:
    """As many of the samples as fill batches of a fixed size."""
    left = len(samples) % (batch or 1)
    if batch is None or not left:
        return samples
    if len(samples) < batch:
        raise CalibrationError(
            f"{len(samples)} samples do not fill the batch of {batch} that the model's inputs fix; "
            "give more, or export the model with a dynamic batch dimension"
        )
    logger.warning("left out %d of %d samples, to fill batches of %d", left, len(samples), batch)
    return take(samples, len(samples) - left)


def calibrate(
    model: ir.Model,
    placement: Placement,
    samples: Samples,
    workers: int,
    on_batch: Callable[[int], None],
    provider: str = CPU,
) -> tuple[Capture, int]:
    """One pass of the float network: histograms of activations, means of layer inputs, reference outputs.

    Args:
        model: The prepared model; left as it is.
        placement: Its quantizers.
        samples: The calibration set.
        workers: Threads that run sessions.
        on_batch: Called with the number of samples done so far.
        provider: What runs the model.

    Returns:
        What was captured, and the batch size for later runs.

    Raises:
        CalibrationError: The float network computes NaN or infinity.
        ModelError: No output has a row for each sample, or the first samples cannot be run.
        RunError: A later sample cannot be run.
    """
    histograms = list(dict.fromkeys(site.value for site in placement.activations))
    means = _layer_inputs(model, placement)
    outputs = [value.name or "" for value in model.graph.outputs if value.producer() is not None]
    wanted = list(dict.fromkeys([*histograms, *means, *outputs]))
    session = open_session(_with_outputs(model, wanted), provider=provider)
    limit = 1 if fixed_batch(model) else batch_limit(session, samples, outputs)
    first = _batch_size(model, min(2, limit), 0)
    names = [output.name for output in session.get_outputs()]
    results = dict(zip(names, first_run(session, samples.batch(0, first)), strict=True))
    outputs = _outputs_by_sample({name: results[name] for name in outputs}, first)
    wanted = list(dict.fromkeys([*histograms, *means, *outputs]))
    size = _batch_size(model, limit, sum(result.nbytes for result in results.values()) // first)
    runs = _runs(session, wanted, samples, size, workers)
    return capture(runs, histograms=histograms, means=means, outputs=outputs, on_batch=on_batch), size


def float_runs(
    model: ir.Model, samples: Samples, size: int, workers: int, provider: str = CPU
) -> Callable[[Sequence[str]], Iterator[tuple[slice, dict[str, np.ndarray]]]]:
    """A way to look at values of the float network again.

    Args:
        model: The prepared model.
        samples: The calibration set.
        size: Samples per batch.
        workers: Threads that run sessions.
        provider: What runs the model.

    Returns:
        A function of value names that runs the network up to these values; it yields their batches.
    """

    def observe(names: Sequence[str]) -> Iterator[tuple[slice, dict[str, np.ndarray]]]:
        inputs = {value.name for value in model.graph.inputs}
        if inputs.issuperset(names):
            return ((where, samples.batch(where.start, where.stop)) for where in batches(len(samples), size))
        session = open_session(_only_outputs(model, names), provider=provider)
        return _runs(session, list(names), samples, size, workers)

    return observe


def _only_outputs(model: ir.Model, names: Sequence[str]) -> ir.Model:
    observed = _with_outputs(model, list(names))
    kept = [value for value in observed.graph.outputs if value.name in names]
    observed.graph.outputs[:] = kept
    common_passes.RemoveUnusedNodesPass()(observed)
    return observed


def _layer_inputs(model: ir.Model, placement: Placement) -> list[str]:
    nodes = {node.name: node for node in model.graph}
    names: dict[str | None, None] = {}
    for site in placement.weights:
        for layer in site.layers:
            node = nodes[layer]
            if node.op_type in ("Conv", "ConvTranspose", "Gemm", "MatMul") and node.inputs[0] is not None:
                names[node.inputs[0].name] = None
    return [name for name in names if name is not None]


def _with_outputs(model: ir.Model, names: list[str]) -> ir.Model:
    observed = model.clone()
    values = ir.convenience.create_value_mapping(observed.graph, include_subgraphs=False)
    present = {value.name for value in observed.graph.outputs}
    observed.graph.outputs.extend(
        values[name] for name in names if name not in present and not values[name].is_graph_input()
    )
    return observed


def _outputs_by_sample(outputs: Mapping[str, np.ndarray], samples: int) -> list[str]:
    """Names of the outputs that can be compared sample by sample."""
    fit = [name for name, values in outputs.items() if values.shape[:1] == (samples,)]
    others = [name for name in outputs if name not in fit]
    if not fit:
        raise ModelError(
            "no output has a row for each sample, so that there is nothing to compare; export the model with "
            "the batch as the first dimension of inputs and outputs"
        )
    if others:
        logger.warning(
            "outputs without a row for each sample have no part in the loss: %s", ", ".join(others)
        )
    return fit


def _run_named(session: ort.InferenceSession, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, run(session, feeds), strict=True))


def _runs(
    session: ort.InferenceSession, wanted: list[str], samples: Samples, size: int, workers: int
) -> Iterator[tuple[slice, dict[str, np.ndarray]]]:
    def one(where: slice) -> tuple[slice, dict[str, np.ndarray]]:
        feeds = samples.batch(where.start, where.stop)
        results = {**feeds, **_run_named(session, feeds)}
        return where, {name: results[name] for name in wanted}

    pending: list[slice] = batches(len(samples), size)
    with ThreadPoolExecutor(workers) as pool:
        for first in range(0, len(pending), workers):
            yield from pool.map(one, pending[first : first + workers])
