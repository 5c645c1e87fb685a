"""Samples for a model, and what a run says of them."""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import accumulate
from typing import Any

import onnx_ir as ir

from onnx_lapq.calibration.hashing import hash_samples
from onnx_lapq.calibration.preprocessing import Preprocessing, fit_to_model, image_size
from onnx_lapq.calibration.ranges import implausible_range, input_range
from onnx_lapq.calibration.request import Feeding
from onnx_lapq.calibration.samples import InputSpec, Samples, SampleSource, batches, open_samples
from onnx_lapq.errors import ModelError
from onnx_lapq.network.axes import batch_axes, recurrent_inputs
from onnx_lapq.network.batching import MAX_BATCH, fixed_batch, whole_batches
from onnx_lapq.network.padding import is_mask

__all__ = ["check_feeding", "describe_samples", "read_samples"]

logger = logging.getLogger(__name__)

_PLAIN = Feeding()


def check_feeding(model: ir.Model, feeding: Feeding) -> None:
    """Refuse what is said of inputs that the model does not have, or that take something else.

    Raises:
        ConfigError: It does not fit.
    """
    if feeding.axes or feeding.values:
        feeding.check([_spec(value) for value in model.graph.inputs])


def read_samples(
    model: ir.Model,
    source: SampleSource,
    preprocessing: Preprocessing,
    limit: int | None,
    on_file: Callable[[int], None],
    feeding: Feeding = _PLAIN,
) -> Samples:
    """Read calibration or test samples for a model.

    Args:
        model: Its inputs say what is wanted; the sizes of a preset are fitted to it.
        source: A folder of images or arrays, one ``.npz`` or ``.npy``, or samples in memory.
        preprocessing: For images.
        limit: At most this many samples.
        on_file: Called with the number of files or samples read so far.
        feeding: What is said of inputs that are not a batch along their first axis.

    Raises:
        CalibrationError: There are no samples, or they cannot be read or do not fit.
        ConfigError: An option does not fit the model.
    """
    inputs = _input_specs(model, feeding)
    fitted = fit_to_model(preprocessing, inputs)
    samples = open_samples(source, inputs, fitted, limit, lambda done, _: on_file(done))
    for sentence in _assumptions(inputs, feeding, preprocessing, samples):
        logger.warning("%s", sentence)
    return whole_batches(samples, fixed_batch(model, samples))


def describe_samples(samples: Samples) -> tuple[dict[str, Any], list[str]]:
    """The record of the samples, with a hash and the range of the first ones, and warnings of odd ranges."""
    record = samples.describe()
    record["sha256"] = hash_samples(samples)
    warnings = []
    for name, (low, high) in _ranges(samples).items():
        about = record["inputs"][name]
        about["range"] = [low, high]
        if about.get("image") and about["dtype"].startswith("float") and not is_mask(name):
            logger.info("input %s: %s in [%.4g, %.4g]", name, record["preprocessing"], low, high)
            odd = implausible_range(low, high)
            if odd is not None:
                logger.warning("%s", odd)
                warnings.append(odd)
    return record, warnings


def _ranges(samples: Samples) -> dict[str, tuple[float, float]]:
    """Smallest and largest value of each input in the first batch of every shape."""
    firsts = [at for at in batches(samples.groups, MAX_BATCH) if at.start in {0, *accumulate(samples.groups)}]
    found: dict[str, tuple[float, float]] = {}
    for at in firsts:
        for name, (low, high) in input_range(samples.batch(at.start, at.stop)).items():
            before = found.get(name, (low, high))
            found[name] = min(low, before[0]), max(high, before[1])
    return found


def _input_specs(model: ir.Model, feeding: Feeding) -> list[InputSpec]:
    """What the graph's inputs take.

    Raises:
        ConfigError: An option is about an input that is not there, or does not fit it.
        ModelError: An input has no type or an unknown rank, or which axis is the batch is not clear.
    """
    check_feeding(model, feeding)
    specs = [_spec(value) for value in model.graph.inputs]
    fed = [spec for spec in specs if spec.name not in feeding.values]
    outputs = [_sizes(value.shape) for value in model.graph.outputs if value.shape is not None]
    axes = batch_axes(fed, feeding.axes, recurrent_inputs(model.graph), outputs)
    return [replace(spec, axis=axes.get(spec.name), value=feeding.values.get(spec.name)) for spec in specs]


def _spec(value: ir.Value) -> InputSpec:
    if value.dtype is None or value.shape is None or value.name is None:
        raise ModelError(f"input {value.name!r} has no type or shape; export the model with typed inputs")
    if value.dtype == ir.DataType.STRING:
        raise ModelError(f"input {value.name!r} takes text; export the model from behind its tokenizer")
    return InputSpec(name=value.name, dtype=value.dtype.numpy(), shape=_sizes(value.shape))


def _sizes(shape: ir.Shape) -> tuple[int | str | None, ...]:
    return tuple(size if isinstance(size, int) else size.value for size in shape)


def _assumptions(
    inputs: Sequence[InputSpec], feeding: Feeding, preprocessing: Preprocessing, samples: Samples
) -> Iterator[str]:
    """A sentence on each thing that was found and not said by the user."""
    record = samples.describe()
    ignored = _ignored(preprocessing, record["preprocessing"])
    if ignored:
        yield (
            f"the {len(samples)} samples are arrays: options for images ({', '.join(ignored)}) change "
            "nothing of what the model is fed"
        )
    described = record["inputs"]
    for spec in inputs:
        size = described.get(spec.name, {}).get("size")
        if size is not None and preprocessing.input_size is None and None in image_size(spec, preprocessing):
            yield (
                f"input {spec}: the model leaves the size open, and the images are {size[0]}x{size[1]} "
                "(height x width); --input-size gives another"
            )
        if spec.axis and spec.name not in feeding.axes:
            yield (
                f"input {spec}: its samples lie along axis {spec.axis}, by the shapes of the inputs and by "
                f"what reads them; --batch-axis {spec.name}=AXIS says otherwise"
            )
    if len(samples.groups) > 1:
        shapes = len(samples.groups)
        yield f"the {len(samples)} samples are of {shapes} shapes; those of one shape run together"


def _ignored(given: Preprocessing, applied: Mapping[str, Any] | None) -> list[str]:
    """Options for images that had no part in what samples became, of the record of what had.

    Pictures in the report have the colors that are said in any case.
    """
    said = {name: value for name, value in vars(given).items() if value != getattr(Preprocessing(), name)}
    return [
        name.replace("_", "-")
        for name in said
        if name != "color" and (applied is None or applied.get(name) is None)
    ]
