"""Run the float network over the calibration set."""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np
import onnx_ir as ir
import onnx_ir.passes.common as common_passes
import onnxruntime as ort

from onnx_lapq.calibration.capture import Capture, capture
from onnx_lapq.calibration.samples import Samples, batches
from onnx_lapq.common.ahead import results_in_order
from onnx_lapq.errors import ModelError
from onnx_lapq.graph.layer_kinds import kind_of
from onnx_lapq.graph.placement.sites import Placement
from onnx_lapq.network.batching import (
    BatchSizes,
    batch_limit,
    batch_sizes,
    fixed_batch,
    largest,
    small_batch,
)
from onnx_lapq.network.layer_windows import FloatOutputs, Parts
from onnx_lapq.network.output_axes import output_axes, sized_by_data
from onnx_lapq.runtime.providers import CPU
from onnx_lapq.runtime.session import first_run, open_session, run

__all__ = ["FloatRuns", "calibrate", "float_runs", "run_batches"]

logger = logging.getLogger(__name__)

T = TypeVar("T")

FloatRuns = Callable[[Sequence[str]], Iterator[tuple[slice, dict[str, np.ndarray]]]]
"""From names of values to these values, batch by batch in sample order."""


def calibrate(
    model: ir.Model,
    placement: Placement,
    samples: Samples,
    workers: int,
    on_batch: Callable[[int], None],
    provider: str = CPU,
    layer_outputs: FloatOutputs | None = None,
) -> tuple[Capture, BatchSizes]:
    """One pass of the float network: histograms of activations, means of layer inputs, reference outputs.

    Args:
        model: The prepared model; left as it is.
        placement: Its quantizers.
        samples: The calibration set.
        workers: Threads that run sessions.
        on_batch: Called with the number of samples done so far.
        provider: What runs the model.
        layer_outputs: Takes outputs of layers; None where none are needed.

    Returns:
        What was captured, and the batch sizes for later runs.

    Raises:
        CalibrationError: The float network computes NaN or infinity.
        ModelError: No output has a row for each sample, or the first samples cannot be run.
        RunError: A later sample cannot be run.
    """
    histograms = list(dict.fromkeys(site.value for site in placement.activations))
    means = _layer_inputs(model, placement)
    outputs = [value.name or "" for value in model.graph.outputs if value.producer() is not None]
    looked_at = layer_outputs.sources if layer_outputs else []
    observed = list(dict.fromkeys([*histograms, *means, *outputs, *looked_at]))
    session = open_session(_with_outputs(model, observed), provider=provider, arena="own")
    fixed = fixed_batch(model, samples)
    limit = 1 if fixed else batch_limit(session, samples, outputs)
    where = largest(batches(samples.groups, fixed or min(2, limit)))
    first = where.stop - where.start
    names = [output.name for output in session.get_outputs()]
    feeds = samples.batch(where.start, where.stop)
    results = dict(zip(names, first_run(session, feeds), strict=True))
    axes = output_axes(
        session,
        samples,
        where,
        {name: results[name] for name in outputs},
        fixed=fixed is not None,
        open_sizes=sized_by_data(model),
    )
    _tell_of_others(outputs, axes)
    wanted = list(dict.fromkeys([*histograms, *means, *axes]))
    size = sum(result.nbytes for result in results.values()) // first
    read = [values for name, values in feeds.items() if name in looked_at]
    by_rows = all(len(values) == first for values in [*results.values(), *read] if values.ndim)
    sizes = BatchSizes(fixed, fixed) if fixed else batch_sizes(limit, size, by_rows=by_rows)
    del results  # all activations

    def look(where: slice, values: dict[str, np.ndarray]) -> tuple[slice, dict[str, np.ndarray], list[Parts]]:
        parts = layer_outputs.look(values, where) if layer_outputs else []
        return where, {name: values[name] for name in wanted}, parts

    def runs() -> Iterator[tuple[slice, dict[str, np.ndarray]]]:
        for where, values, parts in _each_batch(session, samples, sizes.observed, workers, look):
            if layer_outputs:
                layer_outputs.append(parts)
            yield where, values
            del values  # before the next batch is awaited

    found = capture(
        runs(),
        histograms=histograms,
        means=means,
        outputs=axes,
        samples=len(samples),
        on_batch=on_batch,
        inputs={value.name or "" for value in model.graph.inputs},
    )
    return found, sizes


def float_runs(
    model: ir.Model, samples: Samples, size: int | None, workers: int, provider: str = CPU
) -> FloatRuns:
    """A way to look at values of the float network again.

    Args:
        model: The prepared model.
        samples: The calibration set.
        size: Samples per batch; None for few, whose values memory has room for.
        workers: Threads that run sessions.
        provider: What runs the model.

    Returns:
        A function of value names that runs the network up to these values; it yields their batches.
    """

    def observe(names: Sequence[str]) -> Iterator[tuple[slice, dict[str, np.ndarray]]]:
        inputs = {value.name for value in model.graph.inputs}
        if inputs.issuperset(names):
            return _fed(samples, names, size or 1)
        session = open_session(_only_outputs(model, names), provider=provider)
        at_once = size or small_batch(model, session, samples)
        return run_batches(session, list(names), samples, at_once, workers)

    return observe


def _fed(samples: Samples, names: Sequence[str], size: int) -> Iterator[tuple[slice, dict[str, np.ndarray]]]:
    for where in batches(samples.groups, size):
        feeds = samples.batch(where.start, where.stop)
        yield where, {name: feeds[name] for name in names}


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
            kind = kind_of(nodes[layer])
            source = kind.node.inputs[0] if kind is not None and kind.data_indices else None
            if source is not None:
                names[source.name] = None
    return [name for name in names if name is not None]


def _with_outputs(model: ir.Model, names: list[str]) -> ir.Model:
    observed = model.clone()
    values = ir.convenience.create_value_mapping(observed.graph, include_subgraphs=False)
    present = {value.name for value in observed.graph.outputs}
    observed.graph.outputs.extend(
        values[name] for name in names if name not in present and not values[name].is_graph_input()
    )
    return observed


def _tell_of_others(outputs: Sequence[str], axes: Mapping[str, int | None]) -> None:
    """Say which outputs cannot be compared sample by sample."""
    if not axes:
        raise ModelError(
            "no output has a row for each sample, so that there is nothing to compare; say where the samples "
            "lie with --batch-axis INPUT=AXIS, or that an input holds one sample with --batch-axis INPUT=none"
        )
    others = [name for name in outputs if name not in axes]
    if others:
        logger.warning(
            "outputs without a row for each sample have no part in the loss: %s", ", ".join(others)
        )


def run_batches(
    session: ort.InferenceSession, wanted: Sequence[str], samples: Samples, size: int, workers: int
) -> Iterator[tuple[slice, dict[str, np.ndarray]]]:
    """Run a session over samples, a few batches ahead of what is taken.

    Args:
        session: Any model of these samples.
        wanted: Names of its outputs or inputs.
        samples: What to feed.
        size: Samples per run.
        workers: Threads.

    Yields:
        Which samples, and their values by name, in sample order.
    """

    def pick(where: slice, values: dict[str, np.ndarray]) -> tuple[slice, dict[str, np.ndarray]]:
        return where, {name: values[name] for name in wanted}

    return _each_batch(session, samples, size, workers, pick)


def _each_batch(
    session: ort.InferenceSession,
    samples: Samples,
    size: int,
    workers: int,
    finish: Callable[[slice, dict[str, np.ndarray]], T],
) -> Iterator[T]:
    """What worker threads make of each batch and its inputs and outputs by name, in sample order."""
    names = [output.name for output in session.get_outputs()]

    def one(where: slice) -> T:
        feeds = samples.batch(where.start, where.stop)
        return finish(where, {**feeds, **dict(zip(names, run(session, feeds), strict=True))})

    with ThreadPoolExecutor(workers) as pool:
        yield from results_in_order(pool, one, batches(samples.groups, size), workers - 1)
