"""Parts of a calibration set, what one file or one item of an iterable holds, and samples made of them."""

import logging
from collections.abc import Mapping, Sequence, Set
from dataclasses import asdict
from functools import partial
from typing import Any

import numpy as np

from onnx_lapq.calibration.balancing import balanced_indices
from onnx_lapq.calibration.collecting import Collected, Part
from onnx_lapq.calibration.fitting import batch_to_spec, is_pixels, pixels_to_spec
from onnx_lapq.calibration.labels import labels_from_array
from onnx_lapq.calibration.preprocessing import Preprocessing, image_input, to_model_input
from onnx_lapq.calibration.request import Request
from onnx_lapq.calibration.stored import (
    Array,
    GroupedSamples,
    InputSpec,
    StoredInput,
    StoredSamples,
    set_values,
)
from onnx_lapq.errors import CalibrationError

__all__ = ["LABELS", "limited", "read_part", "store"]

logger = logging.getLogger(__name__)

_UNNAMED = ("", "arr_0")
"""What an array of an ``.npy`` is called here, and one that ``numpy.savez`` was given no name for."""

LABELS = "labels"
"""Name of the array that holds labels."""


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
    members = _without_set(source, members, inputs)
    members = _by_input(source, members, [spec.name for spec in request.fed])
    arrays = {}
    for spec in inputs:
        if spec.value is not None:
            arrays[spec.name] = set_values(spec, 1)
            continue
        array_source, array = f"{source}, array '{spec.name}'", members[spec.name]
        target = image_input(spec, preprocessing)
        if target is not None and is_pixels(array, target):
            arrays[spec.name] = pixels_to_spec(array, spec, target, preprocessing.color, array_source)
        else:
            arrays[spec.name] = batch_to_spec(array, spec, array_source)
    common = {spec.name for spec in inputs if spec.axis is None and len(arrays[spec.name]) == 1}
    count = _count(source, arrays, labels, common)
    for name in common:
        arrays[name] = np.broadcast_to(arrays[name], (count, *arrays[name].shape[1:]))
    return Part(source, arrays, labels, count)


def limited(samples: Collected, limit: int | None) -> Collected:
    """At most ``limit`` samples, evenly over the classes."""
    total = sum(map(_length, samples.groups))
    if limit is None or limit >= total:
        return samples
    return samples.at(balanced_indices(samples.labels, total, limit))


def store(samples: Collected, record: Mapping[str, Any], request: Request) -> StoredSamples | GroupedSamples:
    """Samples of arrays that fit; pixels get the conversion to the model's form."""
    full = _record(samples, request) | dict(record)
    parts = [_stored(group, samples.labels, full, request) for group in samples.groups]
    return parts[0] if len(parts) == 1 else GroupedSamples(parts, samples.labels, full)


def _stored(
    arrays: Mapping[str, Array], labels: Array | None, record: Mapping[str, Any], request: Request
) -> StoredSamples:
    stored: dict[str, StoredInput] = {}
    for spec in request.inputs:
        target, array = image_input(spec, request.preprocessing), arrays[spec.name]
        convert = None
        if target is not None and is_pixels(array, target):
            convert = partial(to_model_input, preprocessing=request.preprocessing, target=target)
        stored[spec.name] = StoredInput(array, convert, spec.axis)
    return StoredSamples(stored, labels, record)


def _record(samples: Collected, request: Request) -> dict[str, Any]:
    """What ``describe`` says of arrays; sizes in which the samples differ are None."""
    described: dict[str, Any] = {}
    preprocessing, converted = request.preprocessing, False
    count = sum(map(_length, samples.groups))
    for spec in request.inputs:
        target = image_input(spec, preprocessing)
        arrays = [group[spec.name] for group in samples.groups]
        converted |= target is not None and is_pixels(arrays[0], target)
        sizes = [set(sizes) for sizes in zip(*(array.shape[1:] for array in arrays), strict=True)]
        described[spec.name] = {
            "image": target is not None,
            "source_dtype": str(arrays[0].dtype),
            "dtype": str(spec.dtype),
            "shape": [count, *(size.pop() if len(size) == 1 else None for size in sizes)],
        }
        if spec.axis != 0:
            described[spec.name]["axis"] = spec.axis
    return {
        "kind": "arrays",
        "count": count,
        "class_names": None,
        "preprocessing": _of_arrays(preprocessing) if converted else None,
        "inputs": described,
    }


def _of_arrays(preprocessing: Preprocessing) -> dict[str, Any]:
    """What is done to pixels that are no files: nothing is resized or cut."""
    return asdict(preprocessing) | {"resize": None, "crop": None, "letterbox": False}


def _length(arrays: Mapping[str, Array]) -> int:
    return len(next(iter(arrays.values())))


def _count(source: str, arrays: Mapping[str, Array], labels: Array | None, common: Set[str]) -> int:
    """Number of samples; the inputs that have one value for all of them do not tell it."""
    if arrays.keys() == common:
        common = set()
    lengths = {name: len(array) for name, array in arrays.items() if name not in common}
    if labels is not None:
        lengths[LABELS] = len(labels)
    if len(set(lengths.values())) > 1:
        shown = ", ".join(f"'{name}' {length}" for name, length in lengths.items())
        only_labels = len({lengths[name] for name in arrays.keys() - common}) == 1
        axis = "" if only_labels else ", or give the right axis of the samples with --batch-axis INPUT=AXIS"
        raise CalibrationError(
            f"{source}: the arrays differ in their number of samples ({shown}); make them equal{axis}"
        )
    count = next(iter(lengths.values()))
    if count == 0:
        raise CalibrationError(f"{source}: the arrays hold no samples; save at least one")
    return count


def _without_set(
    source: str, members: Mapping[str, Array], inputs: Sequence[InputSpec]
) -> Mapping[str, Array]:
    """The arrays but for those of inputs that are set to a number, which they must not contradict."""
    numbers = {spec.name: spec for spec in inputs if spec.value is not None and spec.name in members}
    if not numbers:
        return members  # of an archive, nothing is read so far
    for name in numbers:
        array, wanted = members[name], set_values(numbers[name], 1)
        tolerance = np.finfo(wanted.dtype).eps if wanted.dtype.kind == "f" else 0
        if array.dtype.kind not in "biuf" or not np.allclose(array, wanted, rtol=float(tolerance), atol=0):
            raise CalibrationError(
                f"{source}: array '{name}' contradicts set, which gives {numbers[name].value} to this input; "
                "leave one of them out, or make them equal"
            )
    return {name: array for name, array in members.items() if name not in numbers}


def _by_input(source: str, members: Mapping[str, Array], names: Sequence[str]) -> dict[str, Array]:
    """The array of each input; a single array of any name will do for a single input."""
    held = [name for name in members if name != LABELS or LABELS in names]
    if len(names) == 1 and len(held) == 1:
        if held[0] not in (names[0], *_UNNAMED):
            logger.warning("%s: array '%s' is taken for input '%s', the only one", source, held[0], names[0])
        return {names[0]: members[held[0]]}
    missing = [name for name in names if name not in held]
    if missing:
        shown = ", ".join(f"'{name}'" for name in held if name) or "one unnamed array"
        raise CalibrationError(
            f"{source}: no array for input '{missing[0]}' (there is {shown}); give one array per input: "
            f"{', '.join(names)}; a single number can be --set {missing[0]}=NUMBER"
        )
    extra = sorted(set(held) - set(names))
    if extra:
        logger.info("%s: ignored arrays that are no input of the model: %s", source, ", ".join(extra))
    return {name: members[name] for name in names}
