"""Along which axis of each output the samples lie."""

from collections.abc import Mapping, Sequence, Set

import numpy as np
import onnx_ir as ir
import onnxruntime as ort

from onnx_lapq.calibration.samples import Samples
from onnx_lapq.errors import RunError
from onnx_lapq.runtime.session import run

__all__ = ["growing_axis", "output_axes", "run_of_one", "sized_by_data"]

_SIZED_BY_DATA = frozenset({"Compress", "Loop", "NonMaxSuppression", "NonZero", "StringSplit", "Unique"})
"""Operators whose outputs have a size that values decide."""


def output_axes(
    session: ort.InferenceSession,
    samples: Samples,
    where: slice,
    outputs: Mapping[str, np.ndarray],
    *,
    fixed: bool,
    open_sizes: Set[str] = frozenset(),
) -> dict[str, int | None]:
    """The axis of the samples in each output that has one.

    It is the one that grows from a run of one sample to one of several. Where a run has to hold several, it
    is the first axis, if there is a row for each of them; so it is where the graph fails on one sample. Where
    it holds one only, the whole output is that of the sample.

    Args:
        session: The model.
        samples: Samples for it.
        where: Those that were run.
        outputs: What the run gave, by name.
        fixed: Whether a run has to hold so many samples.
        open_sizes: Outputs whose shape may differ between samples of one shape.

    Returns:
        By name, in the order of the outputs; None where a run of one sample gives no axis for it.
    """
    count = where.stop - where.start
    one = None if fixed or count == 1 else run_of_one(session, samples, where.start, list(outputs))
    if one is None:
        rows = {name: values.shape[:1] == (count,) for name, values in outputs.items()}
        return {
            name: 0 if has_row else None
            for name, has_row in rows.items()
            if has_row or (count == 1 and name not in open_sizes)
        }
    axes = {
        name: growing_axis(values, outputs[name], count) for name, values in zip(outputs, one, strict=True)
    }
    return {name: axis for name, axis in axes.items() if axis is not None}


def run_of_one(
    session: ort.InferenceSession, samples: Samples, at: int, names: Sequence[str] | None
) -> list[np.ndarray] | None:
    """Outputs of one sample; None where the graph fails on it, as one that squeezes every axis of size 1."""
    try:
        return run(session, samples.batch(at, at + 1), None if names is None else list(names))
    except RunError:
        return None


def growing_axis(one: np.ndarray, several: np.ndarray, count: int) -> int | None:
    """The axis that is 1 in a run of one sample and ``count`` in one of so many, if no other one differs."""
    if one.ndim != several.ndim:
        return None
    sizes = enumerate(zip(one.shape, several.shape, strict=True))
    found = [axis for axis, (size, other) in sizes if size != other]
    grows = len(found) == 1 and (one.shape[found[0]], several.shape[found[0]]) == (1, count)
    return found[0] if grows else None


def sized_by_data(model: ir.Model) -> frozenset[str]:
    """Outputs of open size in a model that has operators whose results have a size that values decide."""
    nodes = ir.traversal.RecursiveGraphIterator(model.graph)
    if all(node.op_type not in _SIZED_BY_DATA for node in nodes):
        return frozenset()
    return frozenset(
        value.name or ""
        for value in model.graph.outputs
        if value.shape is None or not value.shape.is_static()
    )
