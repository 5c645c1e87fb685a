"""How many samples a run of the network holds."""

import logging
from collections.abc import Sequence

import numpy as np
import onnx_ir as ir
import onnxruntime as ort

from onnx_lapq.calibration.samples import Samples, take
from onnx_lapq.errors import CalibrationError, ModelError
from onnx_lapq.runtime.session import first_run

__all__ = ["MAX_BATCH", "batch_limit", "batch_size", "fixed_batch", "whole_batches"]

logger = logging.getLogger(__name__)

MAX_BATCH = 64
"""Samples of one run, at most."""

_BATCH_BYTES = 64 << 20
"""Bytes of float activations that one batch may produce."""


def batch_size(model: ir.Model, limit: int, observed: int) -> int:
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
    return min(MAX_BATCH, len(samples)) if any(values.shape[:1] == (2,) for values in results) else 1


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


def whole_batches(samples: Samples, batch: int | None) -> Samples:
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
