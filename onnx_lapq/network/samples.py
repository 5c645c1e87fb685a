"""Samples for a model, and what a run says of them."""

import logging
from collections.abc import Callable
from typing import Any

import onnx_ir as ir

from onnx_lapq.calibration.hashing import hash_samples
from onnx_lapq.calibration.preprocessing import Preprocessing, fit_to_model
from onnx_lapq.calibration.ranges import implausible_range, input_range
from onnx_lapq.calibration.samples import InputSpec, Samples, SampleSource, open_samples
from onnx_lapq.errors import ModelError
from onnx_lapq.network.batching import MAX_BATCH, fixed_batch, whole_batches

__all__ = ["describe_samples", "read_samples"]

logger = logging.getLogger(__name__)


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
    return whole_batches(samples, fixed_batch(model))


def describe_samples(samples: Samples) -> tuple[dict[str, Any], list[str]]:
    """The record of the samples, with a hash and the range of the first ones, and warnings of odd ranges."""
    record = samples.describe()
    record["sha256"] = hash_samples(samples)
    ranges = input_range(samples.batch(0, min(MAX_BATCH, len(samples))))
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
