"""How many samples a run of the network holds."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
import onnxruntime as ort

from onnx_lapq.calibration.samples import Samples, batches, subset, take
from onnx_lapq.errors import CalibrationError, ModelError
from onnx_lapq.network.output_axes import growing_axis, run_of_one
from onnx_lapq.runtime.session import first_run

__all__ = [
    "MAX_BATCH",
    "BatchSizes",
    "batch_limit",
    "batch_sizes",
    "fixed_batch",
    "full_batches",
    "largest",
    "positions_of",
    "small_batch",
    "some_samples",
    "whole_batches",
]

logger = logging.getLogger(__name__)

MAX_BATCH = 64
"""Samples of one run, at most."""

_SMALL_BATCH = 8

_BATCH_BYTES = 64 << 20
"""Bytes of float activations that one batch may hold."""

_IN_USE = 4
"""Of the activations of a run about the fourth part is in use at any moment."""

_ENOUGH = 4
"""Samples of a run beside which what a run costs by itself does not count."""


@dataclass(frozen=True)
class BatchSizes:
    """Samples of a session run.

    Attributes:
        observed: Of one that gives all activations.
        plain: Of one that holds those in use.
    """

    observed: int
    plain: int


def batch_sizes(limit: int, observed: int, *, by_rows: bool = True) -> BatchSizes:
    """Samples per session run where their number is free: as many as keep memory bounded.

    Args:
        limit: What `batch_limit` says.
        observed: Bytes of activations that one sample produces.
        by_rows: Whether every activation has a row for each sample. Elsewhere the order of rows depends on
            the samples of a run, and all runs hold equally many.
    """
    all_kept = _BATCH_BYTES // max(observed, 1)
    plain = max(all_kept, min(_BATCH_BYTES * _IN_USE // max(observed, 1), _ENOUGH)) if by_rows else all_kept
    return BatchSizes(*(int(np.clip(size, 1, limit)) for size in (all_kept, plain)))


def batch_limit(session: ort.InferenceSession, samples: Samples, outputs: Sequence[str] | None = None) -> int:
    """The most samples that a run may hold where the number is free: 1 where the graph takes no more.

    Exporters bake a batch of 1 into the graph, for example as the shape that a Reshape gives.

    Args:
        session: The model.
        samples: Any samples for it.
        outputs: Outputs that are to have a row for each sample; None for all.
    """
    two = largest(batches(samples.groups, 2))
    if two.stop - two.start == 1:
        return 1
    names = list(outputs) if outputs else None
    try:
        results = first_run(session, samples.batch(two.start, two.stop), names)
    except ModelError:
        return 1
    single = run_of_one(session, samples, two.start, names)
    if single is None:
        grows = any(values.shape[:1] == (2,) for values in results)
    else:
        pairs = zip(single, results, strict=True)
        grows = any(growing_axis(one, both, 2) is not None for one, both in pairs)
    return min(MAX_BATCH, len(samples)) if grows else 1


def fixed_batch(model: ir.Model, samples: Samples) -> int | None:
    """Samples that every run must hold; None where their number is free.

    Args:
        model: The model.
        samples: They say along which axis the samples of each input lie.

    Raises:
        ModelError: The inputs differ.
    """
    sizes = {
        value.name: value.shape[axis]
        for value in model.graph.inputs
        if value.shape is not None
        and len(value.shape)
        and (axis := samples.axes.get(value.name or "", 0)) is not None
    }
    fixed = {name: size for name, size in sizes.items() if isinstance(size, int)}
    if len(set(fixed.values())) > 1:
        shown = ", ".join(f"{name!r} {size}" for name, size in fixed.items())
        raise ModelError(
            f"the axes of the samples have different sizes ({shown}), but a run holds as many samples in "
            "every input; correct --batch-axis, or export the model with one sample per row of every input"
        )
    return next(iter(fixed.values()), None) or None


def largest(slices: Sequence[slice]) -> slice:
    """The first one with the most samples."""
    return max(slices, key=lambda at: at.stop - at.start)


def small_batch(model: ir.Model, session: ort.InferenceSession, samples: Samples) -> int:
    """Samples of a run in which many values are looked at: what `fixed_batch` says, or few.

    Args:
        model: The model.
        session: Gives the values that are looked at, and them alone.
        samples: Any samples for it.

    Raises:
        ModelError: See `fixed_batch`, or the first sample cannot be run.
    """
    fixed = fixed_batch(model, samples)
    if fixed is not None:
        return fixed
    observed = sum(values.nbytes for values in first_run(session, samples.batch(0, 1)))
    return min(batch_sizes(batch_limit(session, samples), observed).observed, _SMALL_BATCH)


def some_samples(model: ir.Model, samples: Samples, count: int) -> Samples:
    """A subset of at least so many samples where there are as many, in batches that the model takes.

    Raises:
        ModelError: See `fixed_batch`.
    """
    size = fixed_batch(model, samples) or 1
    return take(samples, min(len(samples), -(-count // size) * size))


def whole_batches(samples: Samples, batch: int | None) -> Samples:
    """As many of the samples as fill batches of a fixed size."""
    left = sum(size % (batch or 1) for size in samples.groups)
    if batch is None or not left:
        return samples
    if left == len(samples):
        raise CalibrationError(
            f"{_count(samples)} do not fill the batch of {batch} that the model's inputs fix; "
            "give more, or export the model with a dynamic batch dimension"
        )
    logger.warning("left out %d of %d samples, to fill batches of %d", left, len(samples), batch)
    if len(samples.groups) == 1:
        return take(samples, len(samples) - left)
    return subset(samples, positions_of(full_batches(samples, batch)))


def full_batches(samples: Samples, batch: int) -> list[slice]:
    """The batches that hold as many samples as asked."""
    return [at for at in batches(samples.groups, batch) if at.stop - at.start == batch]


def positions_of(slices: Sequence[slice]) -> npt.NDArray[np.intp]:
    """Positions of the samples of some batches; at least one."""
    return np.concatenate([np.arange(at.start, at.stop) for at in slices])


def _count(samples: Samples) -> str:
    most = max(samples.groups)
    return f"{len(samples)} samples" if most == len(samples) else f"the most samples of one shape, {most},"
