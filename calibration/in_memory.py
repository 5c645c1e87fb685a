"""Samples that a program holds: arrays, or an iterable of samples or batches.

An item of an iterable is one sample, or a batch: the model's inputs tell which by their rank. It is

- an array, for a model of one input: anything that numpy makes an array of, such as a torch tensor on the
  CPU or nested lists, or a Pillow image;
- a mapping from input names to arrays, with labels under ``labels`` or ``label``, if there are any;
- a tuple of the arrays of all inputs in order, and one more for the label;
- a pair of one of these and the label.

This covers PyTorch's DataLoader, Hugging Face's datasets and onnxruntime's CalibrationDataReader.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from PIL import Image

from onnx_lapq.calibration.collecting import Collected, Part, collect
from onnx_lapq.calibration.decoding import fit_image
from onnx_lapq.calibration.labels import labels_from_array
from onnx_lapq.calibration.parts import LABELS, limited, read_part, store
from onnx_lapq.calibration.preprocessing import Color, image_input, plan_geometry
from onnx_lapq.calibration.request import Request
from onnx_lapq.calibration.stored import Array, Samples
from onnx_lapq.errors import CalibrationError

__all__ = ["DataReader", "InMemory", "read_in_memory"]

_LABEL = "label"
_ARRAYS = "the calibration arrays"


class DataReader(Protocol):
    """Onnxruntime's CalibrationDataReader."""

    def get_next(self) -> Mapping[str, Any] | None:
        """Feeds by input name, or None at the end."""


InMemory = npt.ArrayLike | Mapping[str, npt.ArrayLike] | Iterable[Any] | DataReader
"""What `read_in_memory` takes."""


def read_in_memory(source: InMemory, request: Request) -> Samples:
    """Read samples that are in memory, or that an iterable gives.

    Args:
        source: An array [count, ...] for a model of one input; arrays by input name, and ``labels``; or an
            iterable or a data reader as this module describes.
        request: What samples are wanted; of an iterable, the limit takes the first ones.

    Returns:
        The samples, in the order given; where they differ in shape, those of one shape together.

    Raises:
        CalibrationError: There are none, or one does not fit the inputs or the others.
        ConfigError: An option does not fit the model.
    """
    if isinstance(source, Mapping) or hasattr(source, "__array__"):
        named = source if isinstance(source, Mapping) else {request.fed[0].name: source}
        members = {name: _array(value, _ARRAYS) for name, value in named.items()}
        part = read_part(_ARRAYS, members, request)
        samples = limited(collect([part], request.inputs), request.limit)
        return store(samples, _record(part.count, samples.labels), request)
    reader = _Reader(request)
    done = 0
    for item in _items(source):
        done += reader.read(item, done)
        request.tell(done, done)
        if request.limit is not None and done >= request.limit:
            break
    samples = reader.collected()
    return store(samples, _record(done, samples.labels), request)


def _record(found: int, labels: Array | None) -> dict[str, Any]:
    return {"path": None, "found": found, "labels": None if labels is None else "in memory"}


def _items(source: Any) -> Iterator[Any]:
    if hasattr(source, "get_next"):
        return iter(source.get_next, None)
    try:
        return iter(source)
    except TypeError as error:
        raise CalibrationError(
            f"the calibration samples are {type(source).__name__}, which holds none; give a path, arrays, or "
            "an iterable of samples"
        ) from error


class _Reader:
    """Collects the items of an iterable."""

    def __init__(self, request: Request) -> None:
        self._request = request
        self._names = {spec.name: spec for spec in request.fed}
        self._parts: list[Part] = []

    def read(self, item: Any, position: int) -> int:
        """Take an item in, of which ``position`` samples came before; return how many it holds."""
        source = f"calibration sample {position}"
        values, label = self._split(item, source)
        known = {spec.name for spec in self._request.inputs}
        wanted = {name: value for name, value in values.items() if name in known} or values
        members = {name: self._pixels(name, value, source) for name, value in wanted.items()}
        part = read_part(source, members, self._request)
        if label is not None:
            labels = np.atleast_1d(_array(label, f"{source}, label"))
            labels = labels[None] if part.count == 1 != len(labels) else labels
            if len(labels) != part.count:
                raise CalibrationError(
                    f"{source}: {len(labels)} labels for {part.count} samples; give one each"
                )
            part = replace(part, labels=labels)
        limit = self._request.limit
        self._parts.append(part if limit is None else part.at(slice(limit - position)))
        return part.count

    def collected(self) -> Collected:
        """The first samples, and their labels."""
        if not self._parts:
            raise CalibrationError("the iterable of calibration samples is empty; give at least one sample")
        return collect(self._with_alike_labels(), self._request.inputs)

    def _with_alike_labels(self) -> list[Part]:
        labels = [part.labels for part in self._parts if part.labels is not None]
        if not labels:
            return self._parts
        if len(labels) != len(self._parts):
            raise CalibrationError("some calibration samples have a label and some have none; label all")
        if len({some.shape[1:] for some in labels}) > 1:
            raise CalibrationError(
                "the labels of the calibration samples differ in shape; give all one shape"
            )
        alike = labels_from_array(np.concatenate(labels), "the calibration samples")
        split = np.split(alike, np.cumsum([part.count for part in self._parts])[:-1])
        return [replace(part, labels=some) for part, some in zip(self._parts, split, strict=True)]

    def _split(self, item: Any, source: str) -> tuple[Mapping[str, Any], Any]:
        """The values of an item by input name, and its label."""
        if isinstance(item, Mapping):
            key = next((key for key in (LABELS, _LABEL) if key in item and key not in self._names), None)
            values = {name: value for name, value in item.items() if name != key}
            return values, None if key is None else item[key]
        if not _is_tuple(item):
            return {next(iter(self._names)): item}, None
        if len(item) == 2 and (isinstance(item[0], Mapping) or _is_tuple(item[0])):
            return self._split(item[0], source)[0], item[1]
        if len(item) not in (len(self._names), len(self._names) + 1):
            raise CalibrationError(
                f"{source}: {len(item)} values for {len(self._names)} inputs ({', '.join(self._names)}); "
                "give one for each, and one more for the label"
            )
        values = dict(zip(self._names, item, strict=False))
        return values, item[len(values)] if len(item) > len(values) else None

    def _pixels(self, name: str, value: Any, source: str) -> Array:
        """The array of a value; a Pillow image gets the model's size."""
        preprocessing = self._request.preprocessing
        target = image_input(self._names.get(name, self._request.fed[0]), preprocessing)
        if not isinstance(value, Image.Image) or target is None:
            return _array(value, source)
        color: Color = "gray" if preprocessing.color == "gray" else "rgb"
        geometry = plan_geometry(preprocessing, target)
        return fit_image(value, geometry, target.channels, color, source)[None]


def _is_tuple(item: Any) -> bool:
    """Whether an item is several values, and not one array; collated tuples arrive as lists."""
    if isinstance(item, tuple):
        return True
    if not isinstance(item, list) or not item:
        return False
    first = item[0]
    is_array = hasattr(first, "__array__") and np.ndim(first) > 0
    return is_array or isinstance(first, Mapping) or _is_tuple(first)


def _array(value: Any, source: str) -> Array:
    try:
        array = np.asarray(value)
    except Exception as error:  # whatever the owner of the value raises, such as torch for a GPU's tensor
        if "inhomogeneous" in str(error):
            raise CalibrationError(
                f"{source}: the samples in it differ in shape; give a list with one item for each sample"
            ) from error
        reason = f"{type(error).__name__}: {error}".splitlines()[0].removesuffix(".")
        raise CalibrationError(
            f"{source}: numpy cannot make an array of it ({reason}); convert it"
        ) from error
    if array.dtype == object and any(isinstance(item, np.ndarray) for item in array.flat):
        raise CalibrationError(
            f"{source}: an array of arrays, not of numbers; give a list with one item for each sample"
        )
    return array
