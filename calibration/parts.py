"""Parts of a calibration set: what one file, or one item of an iterable, holds."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np

from onnx_lapq.calibration.balancing import balanced_indices
from onnx_lapq.calibration.fitting import batch_to_spec, is_pixels, pixels_to_spec
from onnx_lapq.calibration.labels import labels_from_array
from onnx_lapq.calibration.preprocessing import image_input, to_model_input
from onnx_lapq.calibration.request import Request
from onnx_lapq.calibration.stored import Array, InputSpec, StoredInput, StoredSamples
from onnx_lapq.errors import CalibrationError

__all__ = ["LABELS", "Part", "join", "limited", "read_part", "store"]

logger = logging.getLogger(__name__)

LABELS = "labels"
"""Name of the array that holds labels."""


@dataclass(frozen=True, eq=False)
class Part:
    """Some samples of a calibration set.

    Attributes:
        source: What messages call it.
        arrays: [count, ...] by input name.
        labels: [count] or [count, k], or None.
        count: Number of samples, at least 1.
    """

    source: str
    arrays: Mapping[str, Array]
    labels: Array | None
    count: int


def read_part(source: str, members: Mapping[str, Array], request: Request) -> Part:
    """Bring arrays into the form that the inputs want.

    Args:
        source: What messages call the arrays.
        members: By input name, and ``labels``; for a single input one array of any name.
        request: What samples are wanted.

    Raises:
        CalibrationError: An array is missing or does not fit its input, or their lengths differ.
        ConfigError: Mean or std do not fit the model's channels.
    """
    inputs, preprocessing = request.inputs, request.preprocessing
    names = [spec.name for spec in inputs]
    labels = None
    if LABELS not in names and LABELS in members:
        labels = labels_from_array(np.atleast_1d(members[LABELS]), f"{source}, array '{LABELS}'")
    members = _by_input(source, members, names)
    arrays = {}
    for spec in inputs:
        array_source, array = f"{source}, array '{spec.name}'", members[spec.name]
        target = image_input(spec, preprocessing)
        if target is not None and is_pixels(array, target):
            arrays[spec.name] = pixels_to_spec(array, spec, target, preprocessing.color, array_source)
        else:
            arrays[spec.name] = batch_to_spec(array, spec, array_source)
    return Part(source, arrays, labels, _count(source, arrays, labels))


def join(parts: Sequence[Part], inputs: Sequence[InputSpec]) -> tuple[dict[str, Array], Array | None]:
    """Arrays by input name, and labels, of all parts together.

    Raises:
        CalibrationError: The parts differ in shape or type, or only some have labels.
    """
    return {spec.name: _joined(parts, spec.name) for spec in inputs}, _joined_labels(parts)


def limited(
    arrays: Mapping[str, Array], labels: Array | None, limit: int | None
) -> tuple[Mapping[str, Array], Array | None]:
    """At most ``limit`` samples, evenly over the classes."""
    total = len(next(iter(arrays.values())))
    if limit is None or limit >= total:
        return arrays, labels
    chosen = balanced_indices(labels, total, limit)
    return {name: array[chosen] for name, array in arrays.items()}, None if labels is None else labels[chosen]


def store(
    arrays: Mapping[str, Array], labels: Array | None, record: Mapping[str, Any], request: Request
) -> StoredSamples:
    """Samples of arrays that fit; pixels get the conversion to the model's form."""
    stored: dict[str, StoredInput] = {}
    described: dict[str, Any] = {}
    converted = False
    preprocessing = request.preprocessing
    for spec in request.inputs:
        target, array = image_input(spec, preprocessing), arrays[spec.name]
        convert = None
        if target is not None and is_pixels(array, target):
            convert = partial(to_model_input, preprocessing=preprocessing, target=target)
            converted = True
        stored[spec.name] = StoredInput(array, convert)
        described[spec.name] = {
            "image": target is not None,
            "source_dtype": str(array.dtype),
            "dtype": str(spec.dtype),
            "shape": list(array.shape),
        }
    full = {
        "kind": "arrays",
        "count": len(next(iter(arrays.values()))),
        "class_names": None,
        "preprocessing": asdict(preprocessing) | {"resize": None, "crop": None} if converted else None,
        "inputs": described,
    }
    return StoredSamples(stored, labels, full | dict(record))


def _count(source: str, arrays: Mapping[str, Array], labels: Array | None) -> int:
    lengths = {name: len(array) for name, array in arrays.items()}
    if labels is not None:
        lengths[LABELS] = len(labels)
    if len(set(lengths.values())) > 1:
        shown = ", ".join(f"'{name}' {length}" for name, length in lengths.items())
        raise CalibrationError(
            f"{source}: the arrays differ in their number of samples ({shown}); make them equal"
        )
    count = next(iter(lengths.values()))
    if count == 0:
        raise CalibrationError(f"{source}: the arrays hold no samples; save at least one")
    return count


def _by_input(source: str, members: Mapping[str, Array], names: Sequence[str]) -> dict[str, Array]:
    """The array of each input; a single array of any name will do for a single input."""
    held = [name for name in members if name != LABELS or LABELS in names]
    if len(names) == 1 and len(held) == 1:
        return {names[0]: members[held[0]]}
    missing = [name for name in names if name not in held]
    if missing:
        shown = ", ".join(f"'{name}'" for name in held if name) or "one unnamed array"
        raise CalibrationError(
            f"{source}: no array for input '{missing[0]}' (there is {shown}); give one array per input: "
            f"{', '.join(names)}"
        )
    extra = sorted(set(held) - set(names))
    if extra:
        logger.info("%s: ignored arrays that are no input of the model: %s", source, ", ".join(extra))
    return {name: members[name] for name in names}


def _joined(parts: Sequence[Part], name: str) -> Array:
    arrays = [part.arrays[name] for part in parts]
    for part, array in zip(parts, arrays, strict=True):
        if array.shape[1:] != arrays[0].shape[1:] or array.dtype != arrays[0].dtype:
            raise CalibrationError(
                f"{part.source}: a sample of input '{name}' is {array.dtype} {list(array.shape[1:])}, but "
                f"{arrays[0].dtype} {list(arrays[0].shape[1:])} in {parts[0].source}; "
                "give all samples one shape and type"
            )
    return np.concatenate(arrays)


def _joined_labels(parts: Sequence[Part]) -> Array | None:
    labels = [part.labels for part in parts if part.labels is not None]
    if not labels:
        return None
    without = [part.source for part in parts if part.labels is None]
    if without:
        raise CalibrationError(f"{without[0]}: no 'labels' array, which other files have; add it")
    if len({(array.dtype, array.shape[1:]) for array in labels}) > 1:
        raise CalibrationError(
            f"{parts[0].source}: the 'labels' arrays differ in type or width; save them alike"
        )
    return np.concatenate(labels)
